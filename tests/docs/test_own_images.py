"""One's own images and classifier, by what the README and the how-to say of it and nothing else."""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from atlas.share import open_maps, open_results
from atlas.study.errors import UserError
from atlas.study.params import load
from atlas.study.study import Study
from stages import attribute, collect, predict, prepare, score, select, tile, versions
from tests.support.forked import call
from tests.support.study import ROOT, build, environment, run, tiny

README, HOW_TO = ROOT / "README.md", ROOT / "docs" / "own-images.md"
SMALL = {
    "methods": {
        "gradient": {"gradient": {"sign": "both", "output": "logit", "layer": "input", "channels": "abs_sum"}},
        "cam": {"gradcam": {"layer": "final", "channels": "sum"}},
    },
    "metrics": {
        "localization": {"pointing_game": {"tolerance": 4}},
        "faithfulness": {"deletion": {"pixels": 2048, "baseline": "black", "relative": False, "count": 2}},
    },
    "certify": {},
}


def shown(page: Path) -> dict:
    """The datasets and classifiers that a page shows."""
    (text,) = re.findall(r"```yaml\n(datasets:\n.*?)```", page.read_text(), re.DOTALL)
    return yaml.safe_load(text)


def given(study: Path, shown: dict) -> str:
    """Write the settings of the study of photographs, with other datasets and classifiers; name the classifier."""
    params = yaml.safe_load((ROOT / "studies/photographs/params.yaml").read_text())
    params = {**params, **SMALL, **shown}
    params["engine"]["batch"] = 4
    (study / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    (classifier,) = shown["classifiers"]
    return classifier


def made(study: Path, shown: dict) -> tuple[str, dict[str, np.ndarray]]:
    """Run the stages to scores; give the classifier and the scores of the metric that needs no boxes."""
    classifier = given(study, shown)
    (dataset,) = shown["datasets"]
    collect.main(study, dataset)
    with pytest.raises(UserError, match="sha256") as missing:
        prepare.main(study, classifier)
    weights = shown["classifiers"][classifier]["weights"]
    weights["sha256"] = hashlib.sha256((study / weights["file"]).read_bytes()).hexdigest()
    assert weights["sha256"] in str(missing.value)
    given(study, shown)
    for stage in (prepare, predict, select, tile):
        stage.main(study, classifier)
    for family in SMALL["methods"]:
        attribute.main(study, classifier, family)
        score.main(study, classifier, family)
    return classifier


@pytest.fixture
def study(tmp_path, monkeypatch):
    study = tmp_path / "studies" / "mine"
    (study / "data/raw").mkdir(parents=True)
    monkeypatch.chdir(study)
    return Path()


def photographed(place: Path) -> None:
    """Draw ten pictures of two classes, a folder for each."""
    draws = np.random.default_rng(0)
    for number in range(10):
        file = place / "photos" / ("cat", "dog")[number % 2] / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(0, 256, (80 + number, 90, 3), dtype=np.uint8)).save(file)


def test_a_folder_of_pictures_and_a_checkpoint(study, tmp_path):
    from torchvision.models import resnet18

    photographed(tmp_path)
    torch.manual_seed(0)
    torch.save(resnet18(num_classes=2).state_dict(), tmp_path / "resnet18.pth")
    before = (tmp_path / "resnet18.pth").read_bytes()
    for name in ("photos", "resnet18.pth"):
        (study / "data/raw" / name).symlink_to(tmp_path / name)
    about = shown(README)
    about["datasets"]["photos"]["fit"].update(size=64, resize=72)
    classifier = made(study, about)
    for method in ("gradient", "gradcam"):
        maps = open_maps(classifier, method, study=study)
        assert maps.sizes == {"image": 10, "y": 64, "x": 64}
        assert np.isfinite(maps).all()
    assert (tmp_path / "resnet18.pth").read_bytes() == before


def test_the_commands_of_the_readme_make_a_report(tmp_path, monkeypatch):
    """As they stand, on ten pictures and a network saved to a file, with a few methods and metrics."""
    from torchvision.models import resnet18

    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    photographed(tmp_path)
    torch.manual_seed(0)
    torch.save(resnet18(num_classes=2).state_dict(), tmp_path / "resnet18.pth")
    (commands,) = re.findall(r"```sh\n(mkdir.*?)```", README.read_text(), re.DOTALL)
    for name in ("photos", "resnet18.pth"):
        commands = re.sub(rf"/where/(they|it)/lies?/{name}", str(tmp_path / name), commands)
    *prepared, reproduced = commands.splitlines()
    house = build(tmp_path / "house", tiny())
    shutil.copy(ROOT / "Makefile", house)
    (house / "studies/photographs").mkdir(parents=True)
    shutil.copy(ROOT / "studies/photographs/params.yaml", house / "studies/photographs")
    subprocess.run(["bash", "-euc", "\n".join(prepared)], cwd=house, check=True, capture_output=True)
    study, about = house / "studies/mine", shown(README)
    given(study, about)
    words = reproduced.removeprefix("uv run ").split()
    told = call(words, house, environment(house))
    assert told.returncode == 1
    weights = about["classifiers"]["mine"]["weights"]
    weights["sha256"] = hashlib.sha256((tmp_path / "resnet18.pth").read_bytes()).hexdigest()
    assert weights["sha256"] in told.stderr
    given(study, about)
    run(house, *words)
    maps = open_maps("mine", "gradcam", study=study)
    assert maps.sizes == {"image": 10, "y": 224, "x": 224}
    assert np.isfinite(open_results(study=study)["mean"].sel(metric="deletion")).all()
    page = (study / "data/report/index.html").read_text()
    assert all(f"mine/{name}" in page for name in maps.image.values[:4])
    refused = page[page.index('id="refused"') :]
    assert "pointing_game" in refused
    assert "the dataset photos has no boxes" in refused


def test_a_network_of_ones_own_of_four_channels_and_images_that_are_not_square(study, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", HOW_TO.read_text(), re.DOTALL)
    (tmp_path / "tower.py").write_text(code)
    draws = np.random.default_rng(0)
    pixels = draws.integers(0, 256, (9, 4, 96, 160), dtype=np.uint8)
    np.savez(tmp_path / "bands.npz", pixels=pixels, label=np.arange(9) % 3)
    torch.manual_seed(0)
    own: dict = {}
    exec(code, own)
    tower = own["Tower"](width=8, classes=3)
    torch.save(tower.state_dict(), tmp_path / "tower.pth")
    for name in ("tower.py", "bands.npz", "tower.pth"):
        (study / "data/raw" / name).symlink_to(tmp_path / name)
    classifier = made(study, shown(HOW_TO))
    maps = open_maps(classifier, "gradient", study=study)
    assert maps.sizes == {"image": 6, "y": 96, "x": 160}
    row = int(maps.image.values[0])
    images = ((torch.tensor(pixels[row : row + 1]) / 255 - 0.5) / 0.25).requires_grad_()
    tower(images)[0, row % 3].backward()
    assert_stale_where_edited(study, tmp_path / "tower.py")
    torch.testing.assert_close(torch.tensor(maps.values[0]), images.grad[0].abs().sum(0) / 0.25, rtol=1e-4, atol=1e-6)


def assert_stale_where_edited(study: Path, file: Path) -> None:
    """What DVC does not know of: a file that makes a network."""
    params = load(study)
    versions.main(study)
    assert versions.changed(Study(study, params)) == {}
    file.write_text(file.read_text() + "\n# edited\n")
    assert set(versions.changed(Study(study, params))) == {f"data/raw/{file.name}"}
    versions.main(study)
    assert versions.changed(Study(study, params)) == {}


def test_a_package_that_no_family_of_the_study_takes_is_not_missed(study):
    """Who installs the packages of other families, as the tests do, has nothing made anew."""
    about = shown(README)
    given(study, about)
    told = versions.installed(Study(study))
    assert "torchvision" in told["predict"]
    assert not {"timm", "transformers"} & {name for known in told.values() for name in known}
    versions.main(study)
    about["classifiers"]["mine"]["network"] = {"family": "timm", "name": "resnet18", "settings": {}}
    given(study, about)
    assert "timm" in versions.changed(Study(study))


def test_the_settings_it_starts_from_are_right():
    load(ROOT / "studies" / "photographs")
