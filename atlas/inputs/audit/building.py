"""Audit how networks are built: report what their functions read that their classifiers' keys do not hold.

Classifiers are therefore loaded here, by every stage that runs one.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import cache_from_source
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.cache import keys
from atlas.inputs.audit import reads
from atlas.inputs.audit.reading import OF_NETWORKS, Held, Reading
from atlas.study.errors import UserError
from atlas.study.schema.settings import Entry

if TYPE_CHECKING:
    from atlas.model.classifier import Classifier
    from atlas.study.study import Study


def load_classifier(study: "Study", name: str, engine: dict[str, Any] | None = None) -> "Classifier":
    """Set up torch, and load a trained classifier.

    Args:
        study: The study.
        name: The classifier's name.
        engine: Device, precision, threads and batch; None for the study's.
    """
    from atlas.model.loading import load
    from atlas.model.runtime import start

    engine = study.engine if engine is None else engine
    start(engine)
    network = study.classifier(name)["network"]
    return load(study.path("classifiers", name), name, network, engine, building)


@contextmanager
def building(family: str, function: str, files: list[Path]) -> Iterator[None]:
    """Audit the building of a network.

    Args:
        family: The network's module in `atlas/networks`.
        function: The function's name in that module.
        files: The files that it may read, because the classifier's key holds them.

    Raises:
        UserError: it reads what no key of its classifier holds; raised even if the function caught the fault.
    """
    held = _held(family, function)
    own = {one for file in files for one in (file.resolve(), file.parent.resolve() / file.name)}  # and links
    held = held._replace(files=held.files | own)
    OF_NETWORKS.update(map(str, own))
    drop_bytecode(own)
    reading = Reading(Entry("networks", family, function, function, {}, {}), held)
    try:
        with reads.watching(reading):
            yield
    except Exception:
        if not reading.faults:
            raise
    if reading.faults:
        raise UserError(f"atlas/networks/{family}.py: {function} {reading.faults[0]}")


def drop_bytecode(files: Iterable[Path]) -> None:
    """Delete the bytecode of users' modules, so that what runs is the text that the classifier's key holds.

    After an edit within a second that keeps the size, Python would take the bytecode of the old text.
    """
    for file in files:
        if file.suffix == ".py":
            with suppress(OSError):  # there is none
                Path(cache_from_source(str(file))).unlink()


@cache
def _held(family: str, function: str) -> Held:
    """Return what a classifier's key holds of the code of its network."""
    roots = ((f"atlas.networks.{family}", function), *keys.NETWORK)
    return Held(keys.modules(*roots), keys.names(*roots), keys.files(*roots), keys.uncovered(*roots))
