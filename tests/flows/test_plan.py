"""The plan says of each cell what `dvc status` says, whatever has changed, and looks at each path once."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from dvc.dependency import param
from dvc.ignore import DvcIgnoreFilter
from dvc.repo import Repo
from dvc_data.hashfile import hash as hashing

from flows import dvc_speedups
from flows.dvc_speedups import lock_by_stage, look_once
from flows.dvc_speedups.lock_by_stage import HEAD, cut
from flows.plan import _lines, plan
from tests.support import stand_ins
from tests.support.study import build, tiny, write

MAPS = Path("data/maps/resnet_vanilla/gradient.zarr")
CAM = {"gradcam": {"layer": "final", "channels": "sum"}}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A study of stand-ins, all of whose cells are recorded."""
    house = build(tmp_path_factory.mktemp("plan") / "house", tiny())
    stand_ins.record(house, stand_ins.write(house, 3))
    assert not plan(house).reasons
    assert (house / ".atlas/lock.json").is_file()
    return house


@pytest.fixture
def house(recorded, tmp_path, monkeypatch):
    house = Path(shutil.copytree(recorded, tmp_path / "house", symlinks=True))
    monkeypatch.chdir(house)
    return house


def setting(change: Callable[[dict], object]) -> Callable[[], None]:
    def changed() -> None:
        params = tiny()
        change(params)
        write(Path(), params)

    return changed


def edit(name: str, old: str, new: str) -> Callable[[], None]:
    def change() -> None:
        file = Path(name)
        text = file.read_text()
        assert old in text
        file.unlink()  # it may be a link into the cache
        file.write_text(text.replace(old, new))

    return change


def new(name: str, text: str = "{}") -> Callable[[], None]:
    def change() -> None:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)

    return change


def unrecorded() -> None:
    """Delete a cell from dvc.lock."""
    file = Path("dvc.lock")
    blocks = [block for block in cut(file.read_text()) if not block.startswith("  attribute@resnet_vanilla-gradient:")]
    file.write_text(HEAD + "".join(blocks))


def without(part: str) -> Callable[[], None]:
    """Delete a part of what dvc.lock says of a cell."""

    def change() -> None:
        lock = yaml.safe_load(Path("dvc.lock").read_text())
        del lock["stages"]["score@resnet_vanilla-noise"][part]
        Path("dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))

    return change


def uncached() -> None:
    """Delete a file of an output from the cache."""
    with Repo(".") as repo:
        output = next(out for out in repo.index.outs if Path(out.fs_path) == MAPS.absolute())
        digest = next(iter(output.get_obj()))[2].value
        path = Path(output.cache.oid_to_path(digest))
    path.unlink()


def linked() -> None:
    """Put a link in the place of an output, and one to a folder into another output."""
    MAPS.rename("elsewhere")
    MAPS.symlink_to(Path("elsewhere").absolute())
    (MAPS.parent / "noise.zarr" / "more").symlink_to(Path("elsewhere").absolute())


def moved() -> None:
    first, second = MAPS / "0" / "0.json", MAPS / "1" / "1.json"
    first.rename("aside")
    second.rename(first)
    Path("aside").rename(second)


NOTHING: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "a comment of the settings": edit("params.yaml", "seed: 0\n", "seed: 0 # chosen\n"),
    "a file that is touched": lambda: os.utime(MAPS / "0/0.json"),
    "a file that is ignored": new("atlas/methods/__pycache__/one.pyc"),
    "another file that is ignored": new(str(MAPS / "0" / "one.partial")),
    "an empty folder": lambda: (MAPS / "empty").mkdir(),
    "a cell that is frozen": edit("dvc.yaml", "  aggregate:\n", "  aggregate:\n    frozen: true\n"),
    "a damaged copy of the lock": new(".atlas/lock.json", "["),
    "another copy of the lock": new(".atlas/lock.json", "[]"),
}
SOMETHING: dict[str, Callable[[], object]] = {
    "links": linked,
    "a setting": setting(lambda params: params["methods"]["noise"]["smoothgrad"].update(samples=9)),
    "a setting of all": setting(lambda params: params.update(seed=7)),
    "a setting that is gone": setting(lambda params: params["metrics"]["localization"].popitem()),
    "a file of code": edit("stages/correlate.py", "import", "import  "),
    "a file of a folder of code": edit("atlas/metrics/grid.py", "import", "import  "),
    "a file more in a folder of code": new("atlas/methods/more.py"),
    "a file less in a folder of code": lambda: Path("atlas/methods/superpixel.py").unlink(),
    "the lock of the environment": edit("uv.lock", "version = 1", "version = 1 #"),
    "the versions of a stage": edit("data/versions/score.json", "{", "{ "),
    "an output": new(str(MAPS / "0" / "0.json")),
    "files of an output that changed places": moved,
    "a file more in an output": new(str(MAPS / "9" / "9.json")),
    "a file less in an output": lambda: (MAPS / "0" / "0.json").unlink(),
    "an output less": lambda: shutil.rmtree(MAPS),
    "an output that is a file": lambda: (shutil.rmtree(MAPS), MAPS.write_text("maps")),
    "an output that others depend on": new("data/images/resnet_vanilla.zarr/0/0.json"),
    "a metric": new("data/metrics.json", '{"a": 1}'),
    "a file less in the cache": uncached,
    "a cell less in the lock": unrecorded,
    "all cells less in the lock": lambda: Path("dvc.lock").unlink(),
    "no dependencies in the lock": without("deps"),
    "no outputs in the lock": without("outs"),
    "no settings in the lock": without("params"),
    "a command": edit("dvc.yaml", "stages.correlate ", "stages.correlate  "),
    "a dependency more": edit("dvc.yaml", "        - atlas/datasets\n", "        - atlas/datasets\n        - flows\n"),
    "a family more": setting(lambda params: params["methods"].update(cam=CAM)),
    "a family less": setting(lambda params: params["methods"].pop("noise")),
}


def by_dvc() -> dict[str, list[str]]:
    """What `dvc status` says of each cell."""
    with Repo(".") as repo:
        return {cell: _lines(changes) for cell, changes in repo.status().items()}


@pytest.mark.parametrize("what", [*NOTHING, *SOMETHING])
def test_the_plan_says_of_each_cell_what_dvc_says(house, what):
    {**NOTHING, **SOMETHING}[what]()
    found = plan(Path()).reasons
    own = {cell: reasons for cell, reasons in found.items() if not reasons[0].startswith("after ")}
    assert own == by_dvc()
    assert bool(own) == (what in SOMETHING)


def test_what_dvc_refuses_to_digest_is_refused(house, monkeypatch):
    (MAPS / "0" / ".dvcignore").touch()
    said = []
    for speedups in ("1", "0"):
        monkeypatch.setenv(dvc_speedups.VARIABLE, speedups)
        with pytest.raises(Exception, match=r"\.dvcignore") as told:
            plan(Path())
        said.append((type(told.value), str(told.value)))
    assert said[0] == said[1]


def test_each_path_is_looked_at_once_and_dvc_lock_parsed_once(house, monkeypatch):
    looked, parsed, filtered, parse = [], [], DvcIgnoreFilter.__call__, lock_by_stage.parse_yaml

    def filtering(self, root, *given, **how):
        looked.append(root)
        return filtered(self, root, *given, **how)

    monkeypatch.setattr(DvcIgnoreFilter, "__call__", filtering)
    monkeypatch.setattr(lock_by_stage, "parse_yaml", lambda text, name: parsed.append(text) or parse(text, name))
    reads = counted(monkeypatch, param, "load_path")
    Path(".atlas/lock.json").unlink()
    plan(Path())
    assert len(looked) == len(set(looked))
    assert str(MAPS.absolute() / "0") in looked
    assert len(parsed) == len(reads) == 1
    unrecorded()
    with Path("dvc.lock").open("a") as lock:
        lock.write("  attribute@resnet_vanilla-gradient:\n    cmd: another\n")
    assert plan(Path()).reasons
    assert parsed[1:] == [f"{lock_by_stage.HEAD}  attribute@resnet_vanilla-gradient:\n    cmd: another\n"]


def test_what_is_recorded_together_is_digested_once(house, monkeypatch):
    cells = {f"score@resnet_vanilla-{family}": family for family in ("gradient", "noise", "control")}
    outputs = {cell: Path(f"data/scores/resnet_vanilla/{family}.zarr") for cell, family in cells.items()}
    for output in outputs.values():
        for file in output.rglob("*.json"):
            file.write_text(f"{file.read_text()} ")
    digested = counted(monkeypatch, hashing, "_hash_file")
    reads, dumps = counted(monkeypatch, param, "load_path"), counted(monkeypatch, lock_by_stage, "replace")
    code = counted(monkeypatch, look_once, "_get_hashes")
    given = {
        cell: (f"python -m stages.score resnet_vanilla {cells[cell]}", str(output)) for cell, output in outputs.items()
    }
    stand_ins.record(house, given)
    files = [file for output in outputs.values() for file in output.rglob("*.json")]
    written = [path for path, *_ in digested if not path.startswith("memory:")]  # the others are listings of folders
    assert len(written) == len(set(written))
    assert {str(file.absolute()) for file in files} <= set(written)
    paths = [path for looked, *_ in code for path in looked]
    assert len(paths) == len(set(paths))
    assert len(reads) == 1
    assert [path.name for path, _ in dumps] == ["dvc.lock"]
    assert set(by_dvc()) == {"cost@resnet_vanilla", "aggregate"}, "of scores, only what depends on them is stale"


def counted(monkeypatch, module: object, name: str) -> list[tuple]:
    """Have a function's calls listed, by what they are given."""
    calls, function = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda *given, **how: calls.append(given) or function(*given, **how))
    return calls
