"""`atlas show`: one picture of an image's maps, and one line for a name that is not there."""

import shutil
from pathlib import Path

import made_up
import made_up_votes
import pytest
from PIL import Image
from reported import housed
from typer.testing import CliRunner

from flows.cli import app
from stages import params, report
from stages.figures import sheet
from stages.figures.voted import first_test

METHODS = [name for listed in made_up.METHODS.values() for name in listed]


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    with housed(tmp_path_factory, made_up_votes) as folder:
        yield folder


def atlas(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["show", *map(str, words)])
    return done.exit_code, done.output.strip()


def size(tiles: int, lines: int) -> tuple[int, int]:
    """What a sheet of so many tiles beside one another, one below another, has in pixels."""
    across, down = min(sheet.ACROSS, tiles), -(-tiles // sheet.ACROSS)
    width = 2 * sheet.EDGE + across * (sheet.TILE + sheet.GAP) - sheet.GAP
    height = 2 * sheet.EDGE + down * (lines * (sheet.TILE + sheet.GAP) + sheet.TITLE) - sheet.GAP
    return int(width * 130), int(height * 130)


@pytest.mark.parametrize(
    ("words", "tiles", "lines"),
    [
        ([], 1 + len(METHODS), 1),
        (["--methods", "gradcam,rise"], 3, 1),
        (["--methods", "gradcam, saliency", "--certified", "--classifier", "robust"], 3, 3),
    ],
)
def test_a_picture_has_as_many_tiles_as_methods(study, tmp_path, words, tiles, lines):
    output = tmp_path / "out.png"
    status, said = atlas("test_0001", *words, "--output", output, "--study", study)
    assert (status, said) == (0, str(output))
    with Image.open(output) as picture:
        assert picture.size == size(tiles, lines)
        assert not picture.info.keys() & {"Software", "Creation Time", "date:create"}
    before = output.read_bytes()
    atlas("test_0001", *words, "--output", output, "--study", study)
    assert output.read_bytes() == before


def test_tiles_hold_pictures_or_say_that_there_is_none(study):
    given = params.load(study)
    (shown,) = report.chosen(study, given, "vanilla", report.first_rows(study, "vanilla", 1), METHODS)
    drawn = sheet.figure(shown, METHODS, set(), {})
    tiles = [axes for axes in drawn.axes if axes.images]
    none = [axes for axes in drawn.axes if any(text.get_text() == "n/a" for text in axes.texts)]
    assert len(tiles) == 1 + len(METHODS) - 1  # the image, and a map of all but cam
    assert len(none) == 1 + 2 * len(METHODS)  # cam, and every overlay and smoothed map
    assert len(tiles) + len(none) == len(drawn.axes)
    assert first_test(given).tau == 0.75


def test_the_default_name_says_image_and_classifier(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert atlas("test_0003", "--methods", "rise", "--study", study) == (0, "test_0003_vanilla.png")
    assert (tmp_path / "test_0003_vanilla.png").is_file()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["test_9"], "vanilla has no image 'test_9'; it has 24: test_0000, test_0001, test_0002"),
        (["test_0000", "--methods", "rise,gradcamm"], "names no method 'gradcamm'; it names: saliency, input_x"),
        (["test_0000", "--classifier", "vgg"], "names no classifier 'vgg'; it names: vanilla, robust"),
        (
            ["test_0003", "--certified"],
            "noise_15 has no votes on image 'test_0003' of vanilla; it has those of test_0000",
        ),
        (["test_0000", "--output", "no/such/one.png"], "no/such/one.png: cannot be written"),
    ],
)
def test_errors_are_one_line_with_what_was_given_and_what_there_is(study, tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    status, said = atlas(*words, "--study", study)
    assert status == 1
    assert said.startswith("error: ")
    assert told in said
    assert "\n" not in said


def test_maps_that_are_not_here_are_named(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = Path(shutil.copytree(study, tmp_path / "study"))
    shutil.rmtree(other / "data/maps/vanilla/perturbation/rise.zarr")
    status, said = atlas("test_0000", "--methods", "rise", "--study", other)
    assert status == 1
    assert "rise.zarr" in said
    assert "\n" not in said
