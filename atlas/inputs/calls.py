"""Call the functions that params.yaml names: the only place where methods and metrics are run.

A call may read its inputs and what the keys of its rows hold, and return values. Anything else is a fault
(`atlas.study.errors.Fault`): writing into its inputs, into the network or into process-wide state; leaving something
for later calls; reading modules, files or the environment that no key holds; using the clock, the machine or its
entropy; starting programs, or threads that outlive it.
After a fault everything is restored, but what functions have cached may be spoiled: see `forget`.
"""

import sys
import threading
import weakref
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from atlas.cache import keys
from atlas.inputs.audit import kept, places, process, reads, watched
from atlas.inputs.audit.reading import NAMED, OF_NETWORKS, OWN, SERVING, Held, Reading
from atlas.inputs.returned import checked_attributions, checked_scores
from atlas.inputs.table import providers_in_key
from atlas.model import batch_cache
from atlas.study.errors import Fault, UserError
from atlas.study.params import find
from atlas.study.schema.settings import Entry
from atlas.study.schema.signatures import signature

if TYPE_CHECKING:
    from torch import Tensor

    from atlas.model.classifier import Classifier

Roots = tuple[tuple[str, str], ...]

MAPPED: Roots = (("atlas.inputs.explain", "mapped"), ("atlas.inputs.summing", "check_sum"))
SCORED: Roots = (("atlas.inputs.metric_inputs", "tensor"), ("stages.score", "to_stored"))
KEEPING = {"classifier": "its parameters, buffers, hooks and modes must stay as they are; altered() gives a copy"}
KEPT = "for later calls, whose values would depend on it: remember by arguments, with functools.cache"
# The classes that a classifier's network is made of, by the classifier's identity.
LAYERS: dict[int, tuple[weakref.ref, Roots]] = {}


def parts(bound: Entry) -> Roots:
    """Return the stage's own part of an entry's rows, as (module, name): keys hold this code, and calls may run it."""
    if bound.kind == "methods":
        return MAPPED
    return SCORED + providers_in_key(signature(bound.kind, bound.family, bound.function).inputs)


def attributions(bound: Entry, given: dict[str, Any]) -> "Tensor":
    """Call a method, and check that it returns floating-point numbers over `image channel y x`.

    Args:
        bound: The method's entry.
        given: Inputs by name: those that the method declares, and `images`.

    Raises:
        Fault: the method did something forbidden.
        ValueError: it returned something else.
    """
    return checked_attributions(call(bound, given), given["images"])


def scores(bound: Entry, given: dict[str, Any], shape: tuple[int, ...]) -> "Tensor":
    """Call a metric, and check that it returns floating-point numbers, finite or NaN where a score is undefined.

    Args:
        bound: The metric's entry.
        given: The inputs that it declares, by name.
        shape: The expected shape: rows, then fractions, thresholds, or radii and levels.

    Raises:
        Fault: the metric did something forbidden.
        ValueError: it returned something else.
    """
    return checked_scores(call(bound, given), shape)


def call(bound: Entry, given: dict[str, Any]) -> Any:
    """Call the function of an entry with the inputs it declares, and check that it only returns a value.

    Raises:
        Fault: it did something forbidden; any other exception it raised, or the value it returned, is dropped.
    """
    with reads.paused() as outer:
        declared = signature(bound.kind, bound.family, bound.function).inputs
        classifier = given["classifier"] if "classifier" in declared else None
        reading = Reading(bound, _held(bound.kind, bound.family, bound.function, _layers(classifier)))
        if classifier is not None:
            reading.files |= OF_NETWORKS
        guard = Guard({name: given[name] for name in declared if name != "explain"} | {"settings": bound.settings})
        result, raised, before = None, None, {}
        try:
            if reading.faults:
                raise Fault(reading.faults[0], bound.kind, bound.name)
            with guard, reads.watching(reading):
                function = find(bound.kind, bound.family, bound.function)
                before = kept.state(reading.modules)
                result = function(*(given[name] for name in declared), **bound.settings)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever a function raises, it must not end the run
            raised = error
        left = [f"leaves something in {name} {KEPT}" for name in kept.changed(before, reading.modules)]
        for message in [*reading.faults, *guard.faults(reading.imported), *left]:
            where = f"{bound.name}: atlas/{bound.kind}/{bound.family}.py"
            reading.within.append(Fault(f"{where}: {bound.function} {message}", bound.kind, bound.name))
        if reading.within:  # raised even if the function or its caller caught the fault
            if outer is not None:
                outer.within.append(reading.within[0])
            raise reading.within[0] from None
    if raised is not None:
        raise raised if isinstance(raised, Exception) else _ended(raised)
    return result


class Guard:
    """Record the state before a call: of the inputs, of the values that functions share, and of the process.

    Args:
        handed: The inputs of the function, by name.
    """

    def __init__(self, handed: dict[str, Any]):
        self._handed = handed
        self._before = {name: watched.first(value) for name, value in handed.items()}
        self._cuts = {*handed["classifier"].cuts()} if "classifier" in handed else set()
        self._shared: dict[int, tuple[str, object, object]] = {}
        self._threads = {*threading.enumerate()}
        self._process = process.state()

    def __enter__(self) -> None:
        batch_cache.LISTENERS.append(self._hear)

    def __exit__(self, *error: object) -> None:
        batch_cache.LISTENERS.remove(self._hear)

    def _hear(self, function: str, result: object) -> None:
        if id(result) not in self._shared:
            self._shared[id(result)] = function, result, watched.first(result)

    def faults(self, imported: bool) -> list[str]:
        """Restore the process, and return descriptions of what the call has changed.

        Args:
            imported: Whether packages were imported meanwhile; imports change some state of the process themselves.
        """
        changed = [f"changes {what}: set it back" for what in process.restored(self._process, imported)]
        return [*self._written(), *self._left(), *changed]

    def _written(self) -> Iterator[str]:
        for name, value in self._handed.items():
            if not watched.unchanged(self._before[name], value):
                yield f"writes into {name}, which others get, too: {KEEPING.get(name, 'copy it first')}"
            elif name == "classifier" and value.cut_again(self._cuts):  # changes to new cuts cannot be checked
                watched.renew(value)
        for function, value, before in self._shared.values():
            if not watched.unchanged(before, value):
                yield f"writes into what {function} returned, which others get, too: copy it first"

    def _left(self) -> Iterator[str]:
        for thread in {*threading.enumerate()} - self._threads:
            kind = type(thread).__module__  # a thread class of a package, such as tqdm's monitor, computes nothing
            ours = kind == "threading" or kind.startswith(places.PROJECT)
            if ours and not isinstance(thread, threading._DummyThread) and not thread.name.startswith(SERVING):
                yield f"leaves a thread running ({thread.name}): what it does later belongs to no call"


def forget() -> None:
    """Drop the modules of methods, metrics and networks, with all that they have cached; they are imported anew."""
    batch_cache.forget()
    process.forget_layers()
    for name in [name for name in sys.modules if name.startswith(NAMED)]:
        del sys.modules[name]
        parent, _, child = name.rpartition(".")
        if parent in sys.modules:  # a package such as `shared` may be deleted before its modules
            vars(sys.modules[parent]).pop(child, None)
    OWN.clear()


class Failures:
    """Failures in a cell, by the name of what failed. The rows of all others are kept; the cell fails at its end.

    Args:
        cell: The cell's name.
        kept: The message's general part: what happens to the failed ones and to all others.
    """

    def __init__(self, cell: str, kept: str):
        self._cell, self._kept = cell, kept
        self.message: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.message

    def __bool__(self) -> bool:
        return bool(self.message)

    def add(self, name: str, error: Exception, images: str = "") -> None:
        """Record a failure, with the names of some of the images."""
        text = " ".join(str(error).split())
        message = text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"
        self.message.setdefault(name, f"{message} (images {images})" if images else message)

    def end(self) -> None:
        """End the cell if anything failed.

        Raises:
            UserError: one line that says what failed and why.
        """
        if self.message:
            message = "; ".join(f"{name}: {error}" for name, error in self.message.items())
            raise UserError(f"{self._cell}: {self._kept}: {message}")


@cache
def _held(kind: str, family: str, function: str, layers: Roots) -> Held:
    """Return what the keys of an entry's rows hold, including the classifier's part."""
    bound = Entry(kind, family, function, function, {}, {})
    roots = ((f"atlas.{kind}.{family}", function), ("atlas.inputs.row_inputs", "tensors"), *parts(bound), *layers)
    return Held(keys.modules(*roots), keys.names(*roots), keys.files(*roots), keys.uncovered(*roots))


def _layers(classifier: "Classifier | None") -> Roots:
    """Return the classes of this project that a classifier's network is made of, and the code that loads it."""
    if classifier is None:
        return ()
    place = id(classifier)
    if place not in LAYERS:
        kinds = {type(module) for network in watched.networks(classifier) for module in network.modules()}
        process.watch_layers(kinds)
        own = {(kind.__module__, kind.__qualname__.partition(".")[0]) for kind in kinds}
        found = keys.NETWORK + tuple(sorted(root for root in own if root[0].startswith("atlas.")))
        LAYERS[place] = weakref.ref(classifier, lambda _: LAYERS.pop(place, None)), found
    return LAYERS[place][1]


def _ended(raised: BaseException) -> BaseException:
    """Return the exception to raise when a call ended the process: unchanged for a signal, else an error."""
    trace = raised.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    file = trace.tb_frame.f_code.co_filename if trace is not None else ""
    if f"{places.ROOT}/flows/" in file:
        return raised
    return RuntimeError(f"raised {type(raised).__name__}({', '.join(map(repr, raised.args))})")
