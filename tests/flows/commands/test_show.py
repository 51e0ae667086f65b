"""`atlas show`: one picture of an image's maps, and one line for a name that is not there."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import binom
from typer.testing import CliRunner

from atlas.report.images import image_sheet
from atlas.study import params
from atlas.study.study import Study
from flows.cli import app
from flows.commands import show
from stages import report
from tests.support import made_up, made_up_votes, stored
from tests.support.made_up_votes import LEVELS
from tests.support.reported import housed

# From the largest level to the smallest.
COLORS = [(0xF1, 0xC2, 0x32), (0x84, 0x2E, 0x6A), (0, 0, 0)]
METHODS = [name for listed in made_up.METHODS.values() for name in listed]


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    with housed(tmp_path_factory, made_up_votes) as folder:
        yield folder


def atlas(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["show", *map(str, words)])
    return done.exit_code, done.output.strip()


def size(tiles: int) -> tuple[int, int]:
    """What a sheet of so many maps beside one another, one below another, has in pixels."""
    across, down = min(image_sheet.ACROSS, tiles), -(-tiles // image_sheet.ACROSS)
    width = 2 * image_sheet.EDGE + across * (image_sheet.TILE + image_sheet.GAP) - image_sheet.GAP
    height = 2 * image_sheet.EDGE + down * (image_sheet.TILE + image_sheet.GAP + image_sheet.TITLE) - image_sheet.GAP
    return int(width * 130), int(height * 130)


@pytest.mark.parametrize(("words", "tiles"), [([], 1 + len(METHODS)), (["--methods", "gradcam,rise"], 3)])
def test_a_picture_has_as_many_tiles_as_methods(study, tmp_path, words, tiles):
    output = tmp_path / "out.png"
    status, said = atlas("test_0001", *words, "--output", output, "--study", study)
    assert (status, said) == (0, str(output))
    with Image.open(output) as picture:
        assert picture.size == size(tiles)


def test_a_picture_is_the_same_in_every_run(study, tmp_path):
    output = tmp_path / "out.png"
    words = ["test_0001", "--methods", "saliency", "--certified", "--output", output, "--study", study]
    assert atlas(*words) == (0, str(output))
    before = output.read_bytes()
    with Image.open(output) as picture:
        assert not picture.info.keys() & {"Software", "Creation Time", "date:create"}
    atlas(*words)
    assert output.read_bytes() == before


@pytest.fixture
def sheets(monkeypatch) -> list[Figure]:
    """The sheets that are drawn meanwhile."""
    found = []
    monkeypatch.setattr(image_sheet, "png", lambda one: found.append(one) or b"")
    return found


def tiles(drawn: Figure, method: str) -> list:
    """The axes of a method, from the top down."""
    (first,) = (axes for axes in drawn.axes if axes.get_title().replace("\n", "") == method)
    return sorted((one for one in drawn.axes if one.get_position().x0 == first.get_position().x0), key=lower)


def lower(axes: Axes) -> float:
    return -axes.get_position().y0


def votes(study: Path, way: str) -> np.ndarray:
    return stored.rows(study / "data/votes/robust/cam.zarr", made_up_votes.VOTES, f"gradcam/{way}")["counts"]


def restated(study: Path, way: str, row: int, tau: float, alpha: float, *, holm: bool) -> tuple[np.ndarray, np.ndarray]:
    """Each level's colors of gradcam's map on the robust classifier, and their overlay, pixel by pixel."""
    counts0, counts = votes(study, way)[row].astype(int)
    levels, over = [], np.full((*counts0.shape[1:], 3), 255)
    for place, color in enumerate(COLORS):
        important = counts0[place] > 5
        sure = binom.sf(np.where(important, counts[place], 60 - counts[place]) - 1, 60, tau)
        left = np.full(sure.size, sure.size)
        if holm:
            left[np.argsort(sure.ravel(), kind="stable")] = np.arange(sure.size, 0, -1)
        fails = sure.ravel() > alpha / left
        certain = sure < sure.ravel()[fails].min(initial=np.inf)
        one = np.full((*sure.shape, 3), 217)
        one[certain & ~important] = 255
        one[certain & important] = over[certain & important] = color
        levels.append(one)
    return np.array(levels), over


@pytest.mark.parametrize(
    ("words", "test", "said"),
    [
        (
            [],
            ("noise_15", 1, 0.75, 0.05, False),
            "σ = 0.15, τ = 0.75 → radius 0.101; form strict, α = 0.05, Bonferroni’s correction; "
            "votes that certify: 58 of 60",
        ),
        (
            ["--metric", "sweep"],
            ("noise_25", 1, 0.6, 0.05, True),
            "σ = 0.25, τ = 0.6 → radius 0.0633; form strict, α = 0.05, Holm’s correction; "
            "votes that certify: 52 of 60, down to 43 as others are certified",
        ),
    ],
    ids=["first", "chosen"],
)
def test_tiles_hold_the_colors_of_the_labels(study, tmp_path, sheets, monkeypatch, words, test, said):
    given = params.load(study)
    given["metrics"]["certified"]["sweep"].update({"smoothings": ["noise_25"], "tau": [0.6]})
    monkeypatch.setattr(show, "Study", lambda folder: Study(folder, given))
    words = ["test_0001", "--certified", "--methods", "rise,gradcam", "--classifier", "robust", *words]
    assert atlas(*words, "--output", tmp_path / "out.png", "--study", study)[0] == 0
    (drawn,) = sheets
    way, row, tau, alpha, holm = test
    levels, over = restated(study, way, row, tau, alpha, holm=holm)
    _, *shown, overlaid, smoothed = [axes.images[0] for axes in tiles(drawn, "gradcam")]
    assert len(shown) == len(LEVELS)
    assert len(np.unique(levels.reshape(-1, 3), axis=0)) == 2 + len(LEVELS)
    np.testing.assert_array_equal([one.get_array() for one in shown], levels)
    np.testing.assert_array_equal(overlaid.get_array(), over)
    cast = votes(study, way)[row, :, 0].astype(int).sum(axis=0)
    np.testing.assert_allclose(smoothed.get_array() * 70, cast)
    assert all(one.get_interpolation() == "nearest" for one in (*shown, overlaid))
    texts = [one.get_text() for one in drawn.texts]
    assert texts[:5] == ["top 50%", "top 30%", "top 10%", "all levels", "smoothed\ntop 50%"]
    assert texts[5] == said
    assert texts[6:] == [*(f"important, top {level}%" for level in LEVELS), "unimportant", "abstained"]
    keys = [[round(255 * part) for part in one.get_facecolor()[:3]] for one in drawn.artists]
    assert keys == [*map(list, COLORS), [255] * 3, [217] * 3]


def test_tiles_hold_pictures_or_say_that_there_is_none(study):
    opened = Study(study)
    (shown,) = report.chosen(opened, "vanilla", report.first_rows(opened, "vanilla", 1), METHODS)
    drawn = image_sheet.figure(shown, METHODS, set(), image_sheet.Marks("", LEVELS, {}))
    held = [axes for axes in drawn.axes if axes.images]
    none = [axes for axes in drawn.axes if any(text.get_text() == "n/a" for text in axes.texts)]
    assert len(held) == 1 + len(METHODS) - 1  # the image, and a map of all but cam
    assert len(none) == 1 + (2 + len(LEVELS)) * len(METHODS)  # cam, and all that is certified
    assert len(held) + len(none) == len(drawn.axes)


def test_the_default_name_says_image_and_classifier(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert atlas("test_0006", "--methods", "rise", "--study", study) == (0, "test_0006_vanilla.png")
    assert (tmp_path / "test_0006_vanilla.png").is_file()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["test_9"], "vanilla has no image 'test_9'; it has 24: test_0000, test_0001, test_0002"),
        (["test_0000", "--methods", "rise,gradcamm"], "names no method 'gradcamm'; it names: saliency, input_x"),
        (["test_0000", "--classifier", "vgg"], "names no classifier 'vgg'; it names: vanilla, robust"),
        (
            ["test_0006", "--certified"],
            "noise_15 has no votes on image 'test_0006' of vanilla; it has those of test_0000",
        ),
        (
            ["test_0000", "--certified", "--metric", "deletion"],
            "names no metric of votes 'deletion'; it names: certified_important, certified_unimportant",
        ),
        (["test_0000", "--metric", "sweep"], "expected --certified with it"),
        (["test_0000", "--output", "no/such/one.png"], "no/such/one.png: cannot be written"),
    ],
)
def test_errors_are_one_line_with_what_was_given_and_what_there_is(study, tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    status, said = atlas(*words, "--study", study)
    assert status == 2
    assert said.startswith("error: ")
    assert told in said
    assert "\n" not in said


def test_maps_that_are_not_here_are_named(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = Path(shutil.copytree(study, tmp_path / "study"))
    shutil.rmtree(other / "data/maps/vanilla/perturbation.zarr")
    status, said = atlas("test_0000", "--methods", "rise", "--study", other)
    assert status == 2
    assert "perturbation.zarr" in said
    assert "\n" not in said
