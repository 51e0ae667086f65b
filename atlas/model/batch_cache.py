"""Remember what functions of one family gave, so that they do common work once per batch."""

from collections.abc import Callable
from functools import partial, wraps

# Told of every result that is handed out, and by which function.
LISTENERS: list[Callable[[str, object], None]] = []
# What all functions remember, and whether that is of every batch of a cell.
HELD: list[tuple[list[tuple], bool]] = []


def shared(function: Callable | None = None, *, calls: int = 1, lasting: bool = False) -> Callable:
    """Remember a function's last calls, so that functions of one family do common work once per batch.

    Tensors and objects are compared by identity, everything else by value. Several callers get the same result: no
    caller may write into it.

    Args:
        function: What is decorated.
        calls: How many calls are held; more than one where entries with unlike settings take turns.
        lasting: Whether it is given no images of a batch, so that every batch of a cell can have what it gave the last.
    """
    if function is None:
        return partial(shared, calls=calls, lasting=lasting)
    held: list[tuple] = []
    HELD.append((held, lasting))

    @wraps(function)
    def remembering(*args: object, **settings: object) -> object:
        found = [result for known, set_to, result in held if set_to == settings and _same(known, args)]
        if not found:
            del held[: max(0, len(held) + 1 - calls)]  # before more is made
            found = [function(*args, **settings)]
            held.append((args, settings, found[0]))
        for listener in LISTENERS:
            listener(function.__name__, found[0])
        return found[0]

    return remembering


def forget(*, batch: bool = False) -> None:
    """Let go of what functions remember: when a batch is done, of what was of its images; else of everything."""
    for held, lasting in HELD:
        if not (batch and lasting):
            held.clear()


def _same(old: tuple, new: tuple) -> bool:
    plain = (int, float, str, list, tuple, type(None))
    return len(old) == len(new) and all(a == b if type(b) in plain else a is b for a, b in zip(old, new, strict=True))
