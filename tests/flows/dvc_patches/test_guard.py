"""What a cache or a remote names is laid out inside the outputs of a study, or not at all."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from atlas.cache.recorded import cache, check, recorded
from atlas.study.errors import UserError
from tests.support.forked import call
from tests.support.study import ROOT, environment, run

CLIMBING = [
    "../evil.py",
    "a/../../evil.py",
    "/tmp/evil.py",
    "",
    ".",
    "a//b",
    "..",
    "a/./b",
    "a\0b",
    300 * "a",
    "a\ud800",
]
PIPELINE = {"stages": {"say": {"cmd": "mkdir out && echo 1 > out/one", "params": ["a"], "outs": ["out"]}}}
CODE = "from flows.recording import record; import os, sys; record(os.getcwd(), 'say')"


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """A small project of DVC, whose one stage has run."""
    place = tmp_path_factory.mktemp("ready")
    (place / "dvc.yaml").write_text(yaml.safe_dump(PIPELINE))
    (place / "params.yaml").write_text("a: 1\n")
    Repo.init(str(place), no_scm=True).close()
    run(place, "dvc", "repro", "-q")
    return place


@pytest.fixture
def project(ready, tmp_path):
    return Path(shutil.copytree(ready, tmp_path / "project"))


def plant(project: Path, listing: list[dict], kept: Path | None = None) -> Path:
    """Put a listing into the cache and let dvc.lock, and the filed run, name it as the output."""
    kept = kept or project / ".dvc/cache/files/md5"
    data = json.dumps(listing).encode()
    name = hashlib.md5(data).hexdigest()
    file = kept / name[:2] / f"{name[2:]}.dir"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    lock = project / "dvc.lock"
    known = yaml.safe_load(lock.read_text())["stages"]["say"]["outs"][0]["md5"]
    for text in (lock, *(one for one in project.glob(".dvc/cache/runs/*/*/*"))):
        text.write_text(text.read_text().replace(known, f"{name}.dir"))
    shutil.rmtree(project / "out")
    return file


def content(project: Path) -> str:
    data = b"print('code that nobody here wrote')\n"
    md5 = hashlib.md5(data).hexdigest()
    file = project / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return md5


def recording(project: Path) -> subprocess.CompletedProcess:
    env = {**environment(project), "PYTHONPATH": str(ROOT)}
    return call([sys.executable, "-c", CODE], project, env)


def test_dvc_lays_out_no_file_outside_an_output(project):
    plant(project, [{"md5": content(project), "relpath": "../evil.py"}])
    done = recording(project)
    assert not (project / "evil.py").exists()
    assert "the listing names the file '../evil.py'; expected a path inside its folder" in done.stderr
    assert done.returncode != 0


def test_dvc_takes_no_digest_for_a_path(project):
    outside = project / "secret"
    outside.write_text("1\n")
    plant(project, [{"md5": "../../../../secret", "relpath": "one"}])
    done = recording(project)
    assert "is named by the digest '../../../../secret'; expected hexadecimal digits" in done.stderr
    assert not (project / "out").exists()


def test_dvc_lays_out_no_other_output_of_a_filed_run(project):
    (filed,) = project.glob(".dvc/cache/runs/*/*/*")
    filed.write_text(filed.read_text().replace("path: out", "path: ../evil"))
    shutil.rmtree(project / "out")
    (project / "dvc.lock").unlink()
    done = recording(project)
    assert "a run of say is filed with the output '../evil'; expected out" in done.stderr
    assert not (project.parent / "evil").exists()


def test_dvc_lays_out_no_file_through_a_link(project, tmp_path):
    (tmp_path / "outside").mkdir()
    plant(project, [{"md5": content(project), "relpath": "a/evil.py"}])
    (project / "out").mkdir()
    (project / "out" / "a").symlink_to(tmp_path / "outside")
    code = "from pathlib import Path; from flows.commands.pull import pull; pull(Path(), [])"
    env = {**environment(project), "PYTHONPATH": str(ROOT)}
    done = call([sys.executable, "-c", code], project, env)
    assert not (tmp_path / "outside" / "evil.py").exists()
    assert "expected a folder: delete the link" in done.stderr


@pytest.mark.parametrize("unguarded", [False, True], ids=["at first", "after plain dvc has read it"])
def test_a_pull_writes_nothing_outside(project, tmp_path, unguarded):
    run(project, "dvc", "remote", "add", "--default", "shared", str(tmp_path / "shared"))
    md5 = content(project)
    listing = plant(project, [{"md5": md5, "relpath": "../evil.py"}])
    shutil.copytree(project / ".dvc/cache/files", tmp_path / "shared/files")
    listing.unlink()
    if unguarded:
        run(project, "dvc", "fetch", "-q")
    env = {**environment(project), "PYTHONPATH": str(ROOT)}
    code = "from pathlib import Path; from flows.commands.pull import pull; pull(Path(), [])"
    done = call([sys.executable, "-c", code], project, env)
    assert not (project / "evil.py").exists()
    assert "the listing names the file '../evil.py'" in done.stderr


@pytest.mark.parametrize("name", CLIMBING)
def test_a_recorded_output_is_laid_out_inside_or_not_at_all(project, tmp_path, name):
    file = plant(project, [{"md5": content(project), "relpath": "fine"}, {"md5": content(project), "relpath": name}])
    with pytest.raises(UserError) as caught:
        recorded(project, "say", project / "out", tmp_path / "deep" / "place")
    assert str(caught.value).startswith(
        f"{file}: the listing names the file {name!r}; expected a path inside its folder"
    )
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize("md5", ["../../../../secret", "ab", None, 3, "A" * 32])
def test_a_digest_that_is_none_is_refused(project, tmp_path, md5):
    plant(project, [{"md5": md5, "relpath": "one"}])
    with pytest.raises(UserError, match="expected 32 hexadecimal digits"):
        recorded(project, "say", project / "out", tmp_path / "place")
    assert not (tmp_path / "place").exists()


def test_a_link_out_of_the_cache_is_refused(project, tmp_path):
    (tmp_path / "secret").write_text("1\n")
    md5 = content(project)
    plant(project, [{"md5": md5, "relpath": "one"}])
    file = project / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    file.unlink()
    file.symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match="is in DVC's cache a link out of it"):
        recorded(project, "say", project / "out", tmp_path / "place")


def test_a_link_in_place_of_the_scratch_is_not_followed(project, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").write_text("1\n")
    (tmp_path / "place").symlink_to(tmp_path / "outside")
    recorded(project, "say", project / "out", tmp_path / "place")
    assert [one.name for one in (tmp_path / "outside").iterdir()] == ["kept"]
    assert [one.name for one in (tmp_path / "place").iterdir()] == ["one"]


@pytest.mark.parametrize("names", [["a", "a"], ["a", "a/b"], ["a/b/c", "a/b"]])
def test_a_file_stands_in_one_place(names):
    with pytest.raises(UserError, match=r"twice; expected once|as a file and as a folder; expected one of them"):
        check(names)


def test_what_is_no_listing_is_no_output(project, tmp_path):
    for number, text in enumerate(("{}", "3", '["a"]', "[" * 100000, "\xff")):
        plant(project, [{"md5": f"{number:032}", "relpath": "one"}]).write_text(text)
        assert list(recorded(project, "say", project / "out", tmp_path / "place").glob("*")) == []
        (project / "out").mkdir()


@pytest.mark.parametrize(
    ("level", "given"),
    [
        ("system", "{place}"),
        ("global", "{place}/50%off"),
        ("global", "~/kept"),
        ("project", "../kept"),
        ("local", "{place}/100%"),
    ],
)
def test_dvcs_cache_is_where_dvc_says(project, tmp_path, monkeypatch, level, given):
    for name in ("system", "global"):
        monkeypatch.setenv(f"DVC_{name.upper()}_CONFIG_DIR", str(tmp_path / name))
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    run(project, "dvc", "config", f"--{level}", "cache.dir", given.format(place=tmp_path / "elsewhere"))
    assert cache(project).parents[1] == Path(run(project, "dvc", "cache", "dir").stdout.strip()).resolve()


def test_the_recorded_output_is_found_in_a_cache_of_the_users_own(project, tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "global"))
    shutil.move(project / ".dvc/cache", tmp_path / "100%")
    run(project, "dvc", "config", "--global", "cache.dir", str(tmp_path / "100%"))
    assert (recorded(project, "say", project / "out", tmp_path / "place") / "one").read_text() == "1\n"


def test_a_configuration_that_cannot_be_read_is_told(project):
    for text in ("[core\n", "[core]\nno = 1\n", "[cache]\ndir = %(dir)s\n"):
        (project / ".dvc/config").write_text(text)
        with pytest.raises(UserError, match=r"\.dvc/config: "):
            cache(project)
