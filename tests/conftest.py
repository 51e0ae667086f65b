"""What several tests share: a tiny study that DVC has run once; which tests keep to one process."""

import fcntl
import gc
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import FunctionType

import pytest
from beartype._check.code import codemain

from tests.support import checked
from tests.support.study import build, classified, repro, tiny

# The checks of types draw which item of a list they look at: not from the numbers that methods and metrics must not
# touch. This is set before any of the project's modules is imported.
codemain.getrandbits = random.Random(0).getrandbits
checked.install()

from atlas.inputs.audit import kept  # noqa: E402
from atlas.inputs.audit.reading import NAMED  # noqa: E402
from atlas.study import unedited  # noqa: E402

# As `atlas.model.runtime` sets it, which MKL reads at the first matrix product of a process, whichever test that is in.
os.environ["MKL_CBWR"] = "AUTO"

# Collections of garbage take a tenth of the time at Python's own numbers of new objects.
gc.set_threshold(20_000, 20, 20)

TESTS = Path(__file__).parent
# Each test of these suites runs whole cells on its own copy of the study; all others stay together.
SPREAD = ("flows/test_reruns",)
# Where whole studies and cells are run, and what else takes longest: these begin first, so that no process ends long
# after the other (the option --no-loadscope-reorder leaves them there).
FIRST = ("flows/", "stages/", "docs/", "methods/", "metrics/")
FIRST += ("cache/test_forms", "inputs/test_calls", "study/test_params")


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    suites = {item: item.path.relative_to(TESTS).with_suffix("").as_posix() for item in items}
    items.sort(key=lambda item: not suites[item].startswith(FIRST))
    for item in items:
        if suites[item] not in SPREAD:
            item.add_marker(pytest.mark.xdist_group(suites[item]))


@pytest.fixture(scope="module", autouse=True)
def _collected():
    """Leave what exists before a module's first test out of garbage collections: these then take half the time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    gc.unfreeze()  # hypothesis, which may be imported then, asks the collector who holds an object


@pytest.fixture(autouse=True)
def _nothing_read_yet():
    """Every test is a process of its own to the guard against edits: what another test read may have changed."""
    unedited.READ.clear()


def _without_checks(function: FunctionType, deep: int, look: Callable = kept._function) -> object:
    """Look at a function and not at the wrapper that checks its types, which fills itself at the first call."""
    return look(checked.unchecked(function), deep)


kept._function = _without_checks


@pytest.fixture(autouse=True)
def _the_same_modules_afterwards():
    """After a fault the modules of methods and metrics are imported anew: tests have names of those there were."""
    known = {name: module for name, module in sys.modules.items() if name.startswith(NAMED)}
    yield
    for name, module in known.items():
        if sys.modules.get(name) is not module:
            sys.modules[name] = module
            parent, _, child = name.rpartition(".")
            setattr(sys.modules[parent], child, module)


@pytest.fixture(scope="session")
def common(tmp_path_factory, worker_id) -> Path:
    """The folder that all processes of these tests have in common."""
    own = tmp_path_factory.getbasetemp()
    return own if worker_id == "master" else own.parent


def once(house: Path, make: Callable[[Path], object]) -> Path:
    """Have a study made by the first process that asks for it, and give its folder. Copy it; change only the copy."""
    done = house.with_suffix(".done")
    with house.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            make(house)
            done.touch()
    return house


@pytest.fixture(scope="session")
def baseline(common) -> Path:
    """A tiny study that `dvc repro` has brought up to date, but for the report."""

    def make(house: Path) -> None:
        build(house, tiny())
        repro(house, "aggregate")

    return once(common / "baseline", make)


@pytest.fixture(scope="session")
def collected(common) -> Path:
    """A tiny study with its dataset, and a classifier of random weights with its predictions."""
    return once(common / "collected", classified)
