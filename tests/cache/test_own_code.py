"""Code of a user's own that makes a network: keys hold all of it, by names that are the same on every machine."""

import os
import sys
from pathlib import Path

import pytest
import yaml
from torch import nn

from atlas.cache import keys
from atlas.cache.fingerprint import called
from atlas.inputs.audit import events, places
from atlas.inputs.audit.building import building
from atlas.model.loading import build
from atlas.study.errors import UserError
from atlas.study.params import bound_network, load
from atlas.study.study import Study
from stages import versions
from tests.support.study import ROOT

NET = "from torch import nn\n\n\ndef net(width=4):\n    return nn.Conv2d(3, width, 1)\n"
HUB = {
    "hubconf.py": "from models import net\nfrom utils import wide\n\n\ndef made():\n    return net(wide)\n",
    "models/__init__.py": NET,
    "utils/__init__.py": "wide = 5\n",
}
GIVEN = {"family": "torch_hub", "folder": "data/raw/hub", "name": "made", "settings": {}}


def written(folder: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def linked(study: Path, name: str, to: Path) -> Path:
    (study / "data/raw").mkdir(parents=True, exist_ok=True)
    (study / "data/raw" / name).symlink_to(to)
    return study


def keyed(given: dict, study: Path) -> bytes:
    return keys.digest(called.content(bound_network(given, "network").settings, study))


def study_of(study: Path, networks: dict[str, dict], datasets: dict | None = None) -> dict:
    params = yaml.safe_load((ROOT / "studies/photographs/params.yaml").read_text())
    any_classifier = next(iter(params["classifiers"].values()))
    if networks:
        about = {**any_classifier, "images": {"count": 2}}
        params["classifiers"] = {name: {**about, "network": given} for name, given in networks.items()}
    if datasets is not None:
        params["datasets"]["photographs"]["classes"] = None
        params["datasets"] |= datasets
    (study / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return load(study)


@pytest.mark.parametrize("name", HUB)
def test_a_key_holds_every_file_of_a_linked_folder(tmp_path, name):
    hub = written(tmp_path / "elsewhere", HUB)
    study = linked(tmp_path / "study", "hub", hub)
    before = keyed(GIVEN, study)
    (hub / name).write_text(HUB[name] + "\nmore = 1\n")
    assert keyed(GIVEN, study) != before


def test_a_key_holds_the_files_of_folders_that_are_linked_into_a_folder(tmp_path):
    whole = written(tmp_path / "elsewhere", HUB)
    hub = written(tmp_path / "study/data/raw/hub", {"hubconf.py": HUB["hubconf.py"]})
    for name in ("models", "utils"):
        (hub / name).symlink_to(whole / name)
    (hub / "models" / "again").symlink_to(hub)  # which leads back
    before = keyed(GIVEN, tmp_path / "study")
    (whole / "models/__init__.py").write_text(NET + "\nmore = 1\n")
    assert keyed(GIVEN, tmp_path / "study") != before


def test_the_versions_hold_the_linked_files_of_two_classifiers_that_are_named_alike(tmp_path):
    study, networks = tmp_path / "study", {}
    for name in ("one", "two"):
        linked(study, name, written(tmp_path / "elsewhere" / name, HUB))
        networks[name] = {**GIVEN, "folder": f"data/raw/{name}"}
    params = study_of(study, networks)
    versions.main(study)
    assert versions.changed(Study(study, params)) == {}
    for name in ("one", "two"):
        (tmp_path / "elsewhere" / name / "hubconf.py").write_text(HUB["hubconf.py"] + f"\n# {name}\n")
        assert set(versions.changed(Study(study, params))) == {f"data/raw/{name}/hubconf.py"}
        versions.main(study)


@pytest.mark.parametrize("is_linked", [False, True])
def test_the_same_study_elsewhere_has_the_same_keys(tmp_path, monkeypatch, is_linked):
    found = []
    for name in ("here", "quite/another/place"):
        study = tmp_path / name / "study"
        if is_linked:
            linked(study, "hub", written(tmp_path / name / "code", HUB))
        else:
            written(study / "data/raw/hub", HUB)
        one = {"family": "module", "call": "data/raw/hub/hubconf.py:made", "settings": {}}
        params = study_of(study, {"hub": GIVEN, "file": one})
        for at in (study, Path()):
            monkeypatch.chdir(study)
            found.append((keyed(GIVEN, at), keyed(one, at), versions.installed(Study(at, params))))
    assert all(one == found[0] for one in found)


PLACES = {"data/raw/tower.py": "from models.net import net\n", "data/raw/models/net.py": NET}
TOWER = {"family": "module", "call": "data/raw/tower.py:net", "settings": {}}


@pytest.fixture
def kept(monkeypatch):
    """Where nothing is scratch and bytecode is written: as in a folder of a user's own."""
    monkeypatch.setattr(places, "_scratch", tuple)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)


def test_modules_in_a_folder_without_init_are_held(tmp_path, kept):
    written(tmp_path, PLACES)
    given, before = keyed(TOWER, tmp_path), set(sys.modules)
    for _ in range(2):  # from the text, and from the bytecode that Python has left
        assert build(TOWER, classes=4, watch=building, root=tmp_path).out_channels == 4
    assert not {"models", "models.net", "tower"} & (set(sys.modules) - before)
    (tmp_path / "data/raw/models/net.py").write_text(NET.replace("width=4", "width=70"))
    assert keyed(TOWER, tmp_path) != given
    assert build(TOWER, classes=4, watch=building, root=tmp_path).out_channels == 70


def test_an_edit_of_the_same_size_within_a_second_is_run(tmp_path, kept):
    written(tmp_path, PLACES)
    for width in ("4", "9", "7"):
        for name in PLACES:
            text = PLACES[name].replace("width=4", f"width={width}")
            (tmp_path / name).write_text(text)
            os.utime(tmp_path / name, (10**9, 10**9))
        for _ in range(2):
            assert build(TOWER, classes=4, watch=building, root=tmp_path).out_channels == int(width)
    assert list((tmp_path / "data/raw/models/__pycache__").glob("net.*.pyc")), "else nothing was tried"


def test_two_classifiers_have_modules_of_the_same_name(tmp_path, kept):
    for name, width in (("one", 4), ("two", 9)):
        folder = tmp_path / name
        written(folder, {"tower.py": PLACES["data/raw/tower.py"], "models/net.py": NET.replace("4", str(width))})
    for name, width in (("one", 4), ("two", 9), ("one", 4)):
        given = {**TOWER, "call": f"{name}/tower.py:net"}
        assert build(given, classes=4, watch=building, root=tmp_path).out_channels == width


def test_files_that_are_linked_singly_are_built_from(tmp_path, kept):
    written(tmp_path / "elsewhere", {"tower.py": "from net import net\n", "net.py": NET})
    for name in ("tower.py", "net.py"):
        linked(tmp_path / "study", name, tmp_path / "elsewhere" / name)
    for _ in range(2):
        assert isinstance(build(TOWER, classes=4, watch=building, root=tmp_path / "study"), nn.Conv2d)


def test_a_folder_or_file_named_as_a_package_hides_no_version(tmp_path):
    given = {**TOWER, "call": "tower.py:net"}
    written(tmp_path, {"tower.py": NET, "torch/data.py": "", "torch.txt": ""})
    found = called.content(bound_network(given, "network").settings, tmp_path)
    assert "torch" in found
    assert isinstance(build(given, classes=4, watch=building, root=tmp_path), nn.Conv2d)


@pytest.mark.parametrize("beside", ["link", "target"])
def test_a_linked_file_imports_what_lies_beside_the_link_or_its_target(tmp_path, kept, beside):
    """By the same names on every machine, wherever the target lies."""
    tower = "from one import net as made\n\n\ndef net():\n    return made()\n"
    found = []
    for name in ("here", "quite/another/place"):
        code, study = written(tmp_path / name / "code", {"tower.py": tower}), tmp_path / name / "study"
        linked(study, "tower.py", code / "tower.py")
        at = study / "data/raw" if beside == "link" else code
        written(at, {"one.py": "from two.net import net\n", "two/net.py": NET})
        found.append(keyed(TOWER, study))
        for _ in range(2):
            assert build(TOWER, classes=4, watch=building, root=study).out_channels == 4
        (at / "two/net.py").write_text(NET.replace("4", "70"))
        assert build(TOWER, classes=4, watch=building, root=study).out_channels == 70
        assert keyed(TOWER, study) != found[-1]
    assert found[0] == found[1]
    assert not {"one", "two", "two.net", "tower"} & set(sys.modules)


def test_what_lies_beside_a_link_comes_before_what_lies_beside_its_target(tmp_path, kept):
    tower = "from one import net as made\n\n\ndef net():\n    return made()\n"
    code = written(tmp_path / "code", {"tower.py": tower, "one.py": NET})
    linked(tmp_path, "tower.py", code / "tower.py")
    written(tmp_path / "data/raw", {"one.py": NET.replace("4", "5")})
    before = keyed(TOWER, tmp_path)
    assert build(TOWER, classes=4, watch=building, root=tmp_path).out_channels == 5
    (code / "one.py").write_text(NET.replace("4", "6"))
    assert keyed(TOWER, tmp_path) == before
    (tmp_path / "data/raw/one.py").unlink()
    assert build(TOWER, classes=4, watch=building, root=tmp_path).out_channels == 6
    assert keyed(TOWER, tmp_path) != before


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("json", "a standard module of Python"),
        ("timm", "an installed package"),
        ("torch", "an installed package"),
        ("stages", "this project's code"),
    ],
)
def test_a_file_that_would_hide_a_module_is_refused(tmp_path, name, told):
    written(tmp_path, {f"{name}.py": NET})
    given = {**TOWER, "call": f"{name}.py:net"}
    before = {one: module for one, module in sys.modules.items() if one.partition(".")[0] == name}
    with pytest.raises(
        UserError, match=rf"{name}\.py has the name of {told}, which it would hide: give it another name"
    ):
        build(given, classes=4, watch=building, root=tmp_path)
    assert {one: module for one, module in sys.modules.items() if one.partition(".")[0] == name} == before


def test_a_file_beside_that_is_named_as_a_standard_module_hides_it_from_no_package(tmp_path):
    """Neither from what is imported already nor, afterwards, from what imports it then."""
    wave = sys.modules.pop("wave", None)
    import json

    written(tmp_path, {"tower.py": NET, "json.py": "raise RuntimeError\n", "wave.py": "own = 1\n"})
    given = {**TOWER, "call": "tower.py:net"}
    assert isinstance(build(given, classes=4, watch=building, root=tmp_path), nn.Conv2d)
    assert sys.modules["json"] is json
    assert "wave" not in sys.modules
    if wave is not None:
        sys.modules["wave"] = wave


@pytest.mark.parametrize("name", ["wave", "numpy", "stages"])
def test_what_a_file_imports_beside_it_must_not_have_the_name_of_a_module_there_is(tmp_path, name):
    """Else it depends on what the process has imported before which of the two is taken."""
    written(tmp_path, {"tower.py": f"import {name}\n{NET}", f"{name}.py": "own = 1\n"})
    with pytest.raises(UserError, match=rf"tower.py:net': .*{name}.py has the name of .*: give it another name"):
        build({**TOWER, "call": "tower.py:net"}, classes=4, watch=building, root=tmp_path)


def test_a_package_s_network_that_reads_a_file_is_told_of_settings(tmp_path, kept, monkeypatch):
    written(tmp_path / "packages", {"sonar.py": f"from pathlib import Path\n{NET}\n\ndef made(at):\n    open(at)\n"})
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.setattr(events, "is_own", lambda file: "packages" not in file and places.is_own(file))
    (tmp_path / "widths.txt").write_text("8")
    given = {"family": "module", "call": "sonar:made", "settings": {"at": str(tmp_path / "widths.txt")}}
    told = "reads .*widths.txt, which its key does not hold: have the network take what is in it as a setting"
    with pytest.raises(UserError, match=told) as raised:
        build(given, classes=4, watch=building, root=tmp_path)
    assert "FILES" not in str(raised.value)


UNHELD = [
    (
        "open(HERE / 'widths.txt').read()",
        "reads .*widths.txt, .*: have .*tower.py take what is in it as a setting .*, import that from a .py file",
    ),
    (
        "import importlib; importlib.import_module('late')",
        "imports .*late.py, .*have it beside the file that params.yaml",
    ),
    ("import os; os.listdir(HERE)", "lists the folder .*: name the files in .*tower.py"),
    ("import atlas.cache.rows", "imports atlas.cache.rows, .*tower.py may import packages and files beside it"),
]


@pytest.mark.parametrize(("line", "told"), UNHELD)
def test_what_cannot_be_held_is_told_in_terms_of_the_users_own_code(tmp_path, kept, line, told):
    text = f"from pathlib import Path\n{NET}\nHERE = Path(__file__).parent\n{line}\n"
    written(tmp_path / "data/raw", {"tower.py": text, "late.py": "", "widths.txt": "8"})
    with pytest.raises(UserError, match=told) as raised:
        build(TOWER, classes=4, watch=building, root=tmp_path)
    assert "FILES" not in str(raised.value)
    assert "_called" not in str(raised.value)


@pytest.mark.parametrize(
    "asks",
    [{"classes": "imagenet"}, {"fit": {"family": "torchvision", "name": "resnet50", "tag": "IMAGENET1K_V2"}}],
    ids=["names of classes", "a fit"],
)
def test_another_version_of_what_datasets_read_of_torchvision_has_images_collected_anew(asks, tmp_path, monkeypatch):
    timm = {"any": {"family": "timm", "name": "resnet18", "settings": {}}}
    photos = {"family": "folder", "path": "data/raw/photos"}
    assert (
        "torchvision" not in versions.installed(Study(tmp_path, study_of(tmp_path, timm, {"own": photos})))["collect"]
    )
    params = study_of(tmp_path, timm, {"own": {**photos, **asks}})
    versions.main(tmp_path)
    known = versions.installed(Study(tmp_path, params))["collect"]
    assert "torchvision" in known
    monkeypatch.setattr(versions.packages, "version", lambda name: "99" if name == "torchvision" else known.get(name))
    assert versions.installed(Study(tmp_path, params))["collect"] == {**known, "torchvision": "99"}
    assert "torchvision" in versions.changed(Study(tmp_path, params))
