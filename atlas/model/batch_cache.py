"""Cache the results of functions of one family, so that common work is done once per batch."""

from collections.abc import Callable
from functools import partial, wraps

# Called with every result that is handed out and the name of its function.
LISTENERS: list[Callable[[str, object], None]] = []
# The caches of all functions, and whether each lasts beyond a batch.
CACHES: list[tuple[list[tuple], bool]] = []


def shared(function: Callable | None = None, *, calls: int = 1, lasting: bool = False) -> Callable:
    """Cache a function's last calls, so that functions of one family do common work once per batch.

    Tensors and objects are compared by identity, everything else by value. Several callers get the same result, so no
    caller may write into it.

    Args:
        function: The decorated function.
        calls: How many calls are cached; more than one if entries with different settings alternate.
        lasting: Whether the arguments include no images of a batch, so that every batch of a cell can reuse the result.
    """
    if function is None:
        return partial(shared, calls=calls, lasting=lasting)
    cached: list[tuple] = []
    CACHES.append((cached, lasting))

    @wraps(function)
    def remembering(*args: object, **settings: object) -> object:
        found = [result for known, set_to, result in cached if set_to == settings and _same(known, args)]
        if not found:
            del cached[: max(0, len(cached) + 1 - calls)]  # evict before computing
            found = [function(*args, **settings)]
            cached.append((args, settings, found[0]))
        for listener in LISTENERS:
            listener(function.__name__, found[0])
        return found[0]

    return remembering


def forget(*, batch: bool = False) -> None:
    """Clear the caches: at the end of a batch those that concern its images, otherwise all."""
    for cached, lasting in CACHES:
        if not (batch and lasting):
            cached.clear()


def _same(old: tuple, new: tuple) -> bool:
    plain = (int, float, str, list, tuple, type(None))
    return len(old) == len(new) and all(a == b if type(b) in plain else a is b for a, b in zip(old, new, strict=True))
