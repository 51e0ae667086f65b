"""Call the functions that params.yaml names: the one place where methods and metrics are run.

A call may read what it is given and what its rows' keys hold, and give values. What else it does is a fault
(`atlas.study.errors.Fault`): it writes into what it was given, into the network or into what all code of the process
shares; it leaves something for later calls; it reads modules, files or the environment that no key holds, or asks the
clock, the machine or its entropy; it starts programs or threads that outlive it.
After a fault everything is as it was before, but what functions remember may be spoiled: `forget`.
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
from atlas.inputs.table import brought
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
SCORED: Roots = (("atlas.inputs.metric_inputs", "tensor"), ("stages.score", "judged"))
NETWORK: Roots = (
    ("atlas.model.loading", "load"),
    ("atlas.model.runtime", "start"),
    ("atlas.model.classifier", "Classifier"),
)
KEEPING = {"classifier": "its parameters, buffers, hooks and modes must stay as they are; altered() gives a copy"}
KEPT = "for later calls, whose values would depend on it: remember by arguments, with functools.cache"
# The classes that classifiers' networks are made of, by identity.
LAYERS: dict[int, tuple[weakref.ref, Roots]] = {}


def parts(bound: Entry) -> Roots:
    """Name the verb's part of an entry's rows, as (module, name): keys hold its code, and calls may run it."""
    if bound.kind == "methods":
        return MAPPED
    return SCORED + brought(signature(bound.kind, bound.family, bound.function).inputs)


def attributions(bound: Entry, given: dict[str, Any]) -> "Tensor":
    """Call a method, and check what it gives: floating-point numbers of `image channel y x`.

    Args:
        bound: Which one.
        given: Inputs by name, what it names and `images` among it.

    Raises:
        Fault: it did what it must not.
        ValueError: it gives something else.
    """
    return checked_attributions(call(bound, given), given["images"])


def scores(bound: Entry, given: dict[str, Any], shape: tuple[int, ...]) -> "Tensor":
    """Call a metric, and check what it gives: floating-point numbers, finite or NaN where a score is undefined.

    Args:
        bound: Which one.
        given: What it names, by name.
        shape: Rows, and what stands beside them: fractions, thresholds, radii and levels.

    Raises:
        Fault: it did what it must not.
        ValueError: it gives something else.
    """
    return checked_scores(call(bound, given), shape)


def call(bound: Entry, given: dict[str, Any]) -> Any:
    """Call the function of an entry with what it names, and see that it does nothing else than give a value.

    Raises:
        Fault: it did what it must not; whatever else it raised, or what it gave, is dropped.
    """
    with reads.paused() as outer:
        asks = signature(bound.kind, bound.family, bound.function).inputs
        classifier = given["classifier"] if "classifier" in asks else None
        reading = Reading(bound, _held(bound.kind, bound.family, bound.function, _layers(classifier)))
        if classifier is not None:
            reading.files |= OF_NETWORKS
        guard = Guard({name: given[name] for name in asks if name != "explain"} | {"settings": bound.settings})
        result, raised, before = None, None, {}
        try:
            if reading.faults:
                raise Fault(reading.faults[0], bound.kind, bound.name)
            with guard, reads.watching(reading):
                function = find(bound.kind, bound.family, bound.function)
                before = kept.state(reading.modules)
                result = function(*(given[name] for name in asks), **bound.settings)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever a function raises, it must not end the run
            raised = error
        left = [f"leaves something in {name} {KEPT}" for name in kept.changed(before, reading.modules)]
        for told in [*reading.faults, *guard.faults(reading.imported), *left]:
            where = f"{bound.name}: atlas/{bound.kind}/{bound.family}.py"
            reading.within.append(Fault(f"{where}: {bound.function} {told}", bound.kind, bound.name))
        if reading.within:  # also where the function, or what called it, has caught what was raised
            if outer is not None:
                outer.within.append(reading.within[0])
            raise reading.within[0] from None
    if raised is not None:
        raise raised if isinstance(raised, Exception) else _ended(raised)
    return result


class Guard:
    """Know what things are like before a call: what is handed out, what functions share, and the process.

    Args:
        handed: What the function is given, by name.
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
        """Set the process back, and say what the call has changed.

        Args:
            imported: Whether packages were imported meanwhile, which change some things of the process themselves.
        """
        changed = [f"changes {what}: set it back" for what in process.restored(self._process, imported)]
        return [*self._written(), *self._left(), *changed]

    def _written(self) -> Iterator[str]:
        for name, value in self._handed.items():
            if not watched.same(self._before[name], watched.state(value)):
                yield f"writes into {name}, which others are given too: {KEEPING.get(name, 'copy it first')}"
            elif name == "classifier" and value.recut(self._cuts):  # what the call did to new cuts is not known
                watched.renew(value)
        for function, value, before in self._shared.values():
            if not watched.same(before, watched.state(value)):
                yield f"writes into what {function} gave, which others are given too: copy it first"

    def _left(self) -> Iterator[str]:
        for thread in {*threading.enumerate()} - self._threads:
            kind = type(thread).__module__  # of a package's own class, as the monitor of tqdm, it computes nothing
            ours = kind == "threading" or kind.startswith(places.PROJECT)
            if ours and not isinstance(thread, threading._DummyThread) and not thread.name.startswith(SERVING):
                yield f"leaves a thread running ({thread.name}): what it does later belongs to no call"


def forget() -> None:
    """Have the modules of methods, metrics and networks imported anew: what they remember is dropped."""
    batch_cache.forget()
    for name in [name for name in sys.modules if name.startswith(NAMED)]:
        del sys.modules[name]
        parent, _, child = name.rpartition(".")
        if parent in sys.modules:  # `shared` goes before what it holds
            vars(sys.modules[parent]).pop(child, None)
    OWN.clear()


class Failures:
    """What went wrong in a cell, by who failed. All others' rows are kept; the cell fails at its end.

    Args:
        cell: Its name.
        kept: What is said of them, and of all others.
    """

    def __init__(self, cell: str, kept: str):
        self._cell, self._kept = cell, kept
        self.told: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.told

    def __bool__(self) -> bool:
        return bool(self.told)

    def add(self, name: str, error: Exception, images: str = "") -> None:
        """Note that something failed, for a few of the images."""
        said = " ".join(str(error).split())
        told = said if isinstance(error, UserError) else f"{type(error).__name__}: {said}"
        self.told.setdefault(name, f"{told} (images {images})" if images else told)

    def end(self) -> None:
        """End the cell if anything failed.

        Raises:
            UserError: in one line, who failed and why.
        """
        if self.told:
            told = "; ".join(f"{name}: {error}" for name, error in self.told.items())
            raise UserError(f"{self._cell}: {self._kept}: {told}")


@cache
def _held(kind: str, family: str, function: str, layers: Roots) -> Held:
    """Return what the keys of an entry's rows hold, the classifier's among them."""
    bound = Entry(kind, family, function, function, {}, {})
    roots = ((f"atlas.{kind}.{family}", function), ("atlas.inputs.row_inputs", "tensors"), *parts(bound), *layers)
    return Held(keys.modules(*roots), keys.names(*roots), keys.files(*roots), keys.unheld(*roots))


def _layers(classifier: "Classifier | None") -> Roots:
    """Name the classes of this project that a classifier's network is made of, and the code that loads it."""
    if classifier is None:
        return ()
    place = id(classifier)
    if place not in LAYERS:
        kinds = {type(module) for network in watched.networks(classifier) for module in network.modules()}
        own = {(kind.__module__, kind.__qualname__.partition(".")[0]) for kind in kinds}
        found = NETWORK + tuple(sorted(root for root in own if root[0].startswith("atlas.")))
        LAYERS[place] = weakref.ref(classifier, lambda _: LAYERS.pop(place, None)), found
    return LAYERS[place][1]


def _ended(raised: BaseException) -> BaseException:
    """Return whether an end of the process was asked for by a function, not by a signal to the process."""
    trace = raised.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    file = trace.tb_frame.f_code.co_filename if trace is not None else ""
    if f"{places.ROOT}/flows/" in file:
        return raised
    return RuntimeError(f"raised {type(raised).__name__}({', '.join(map(repr, raised.args))})")
