"""The report of photographs and of weights that others have trained: pictures, predictions, what cannot apply."""

import json
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

from atlas.cache.stores import group_at
from atlas.report import template
from atlas.report.images import pictures
from atlas.report.sections import inputs, refused, summary_text
from atlas.study import params
from atlas.study.schema import signatures
from atlas.study.study import Study
from stages import aggregate, report
from tests.support import made_up, reported, scores
from tests.support.reported import find, housed, look, visit

browser = reported.browser

CHANNELS, HEIGHT, WIDTH = SHAPE = 4, 150, 224
LONG = 'a class of <80> letters & $dollars$ with a "name" that never ends ' + "x" * 14
CLASSES = [LONG, *(f"class {number}" for number in range(1, 8))]
DIGEST = "0123456789abcdef" * 4
WARNING = "it gets 1 of 12 held-out images right (8.3%), and the source of its weights says 77.7%"
LEFT_OUT = [["a/b/<cut>.jpg", "truncated: 3 of 12 rows"], ["y" * 100 + ".gif", "animated: 12 frames"]]
NO_BOXES = "the dataset shapes has no boxes"
OVERLAP = """
const box = (node) => node.getBoundingClientRect();
const shown = [...document.querySelectorAll("#gallery .panel:not([hidden]) figure")].map(box);
return shown.some((a, at) => shown.slice(at + 1).some((b) =>
  a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1));
"""


def no_grids(classifier: str) -> str:
    return f"the classifier {classifier} has no grids: classifiers.{classifier}.grids is null"


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Iterator[Path]:
    with housed(tmp_path_factory, made_up) as other:
        text = (signatures.HOUSE / "metrics/localization.py").read_text()
        text = text.replace("pointing_game(maps)", "pointing_game(maps, boxes)").replace(
            "wsl(maps)", "wsl(maps, masks)"
        )
        (signatures.HOUSE / "metrics/localization.py").write_text(text)
        signatures.signature.cache_clear()
        folder = made_up.study(tmp_path_factory.mktemp("photographs") / "study", images=12, shape=SHAPE)
        shutil.rmtree(other)
        adopted(folder)
        dataset = params.path(folder, "datasets", "shapes")
        shutil.rmtree(dataset)
        group_at(dataset, {"classes": CLASSES, "left_out": LEFT_OUT, "known": ["boxes"], "mask_from": "boxes"})
        for classifier in made_up.CLASSIFIERS:
            absent(folder, classifier, "grid_pointing_game", no_grids(classifier))
        absent(folder, "robust", "wsl", NO_BOXES)
        aggregate.main(folder)
        report.main(folder)
        yield folder


def adopted(folder: Path) -> None:
    """Make the classifiers such as others have trained, without grids and without an attack to be evaluated by."""
    given = yaml.safe_load((folder / "params.yaml").read_text())
    given["robustness_eval"] = None
    given["report"] |= {"pixels": 224, "images": 2}
    for name, entry in given["classifiers"].items():
        del entry["train"]
        entry |= {"grids": None, "weights": {"file": f"data/raw/{name}.pth", "sha256": DIGEST}}
        shutil.rmtree(params.path(folder, "grids", name))
        group_at(params.path(folder, "grids", name), {"absent": f"classifiers.{name}.grids is null"})
        source = {"file": f"data/raw/{name}.pth", "tag": None, "sha256": DIGEST, "accuracy": 0.777}
        card = {"classes": CLASSES, "evaluated_on": 12, "accuracy": 11 / 12, "top5": 1.0, "source": source}
        card |= {"warning": WARNING} if name == "robust" else {}
        (params.path(folder, "classifiers", name) / "card.json").write_text(json.dumps(card))
    (folder / "params.yaml").write_text(yaml.safe_dump(given, sort_keys=False))


def absent(folder: Path, classifier: str, metric: str, reason: str) -> None:
    """Write that there is none of the inputs that a metric names, as `score` does."""
    for family in made_up.METHODS:
        scores.set_absent(params.path(folder, "scores", classifier, family), metric, reason)


@pytest.fixture(scope="module")
def text(study) -> str:
    return (study / "data/report/index.html").read_text()


def section(text: str, name: str) -> str:
    start = text.index(f'<section id="{name}"')
    return text[start : text.index("</section>", start)]


# Pictures


@pytest.mark.parametrize(("shape", "side", "small"), [((7, 5), 3, (3, 2)), ((4, 6), 3, (2, 3)), ((5, 5), 9, (5, 5))])
def test_a_reduced_picture_is_the_mean_of_the_areas_that_its_pixels_cover(shape, side, small):
    values = np.random.default_rng(0).random((2, *shape))
    found = pictures.shrink(values, side=side)
    assert found.shape == (2, *small)
    fine = np.repeat(np.repeat(values, small[0], axis=1), small[1], axis=2)
    expected = fine.reshape(2, small[0], shape[0], small[1], shape[1]).mean(axis=(2, 4))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_pictures_of_any_shape_have_their_own_size(text):
    sizes = re.findall(r'<img src="[^"]*" width="(\d+)" height="(\d+)"', section(text, "gallery"))
    assert len(sizes) == 2 * 2 * 15 - 2
    assert set(sizes) == {(str(WIDTH), str(HEIGHT))}
    assert 'class="tiles fine" style="--shape:224 / 150"' in text
    assert "image, mean of 4 channels" in text


def test_long_names_are_shortened_with_the_whole_as_title(text):
    whole = LONG.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&#34;")
    assert len(LONG) == 80
    assert f'<strong><span title="{whole}">' in text
    assert not re.findall(f">[^<]*{re.escape(whole)}", text)
    assert template.cut("a" * 40) == "a" * 40
    assert template.cut("a" * 50 + "z") == "a" * 20 + "…" + "a" * 18 + "z"
    assert len(template.cut("x" * 41)) == 40


# What is said of classifiers and datasets


def test_label_prediction_and_probability_stand_beside_an_image(study, text):
    told = re.findall(r'<dl class="told">(.*?)</dl>', section(text, "gallery"))
    assert len(told) == 4
    plain = [re.sub("<[^>]*>", " ", one).split() for one in told]
    assert " ".join(plain[1]) == "label class 1 prediction class 1 60.0% then class 2 20.0% , class 3 10.0% , " + (
        "class 4 5.0% , class 5 2.0%"
    )
    last = f"test_{11:04d}"
    found = inputs.predicted(Study(study), "vanilla", [last, "another"])
    assert list(found) == [last]
    assert found[last].label == "class 3"
    assert found[last].probability == pytest.approx(0.2)
    assert found[last].classes[0] == ("class 4", pytest.approx(0.6))


def test_weights_of_others_are_said_to_be_theirs_and_nothing_of_training(text):
    run = section(text, "run")
    assert f"<code>data/raw/vanilla.pth</code>, SHA-256 <code>{DIGEST[:12]}</code>" in run
    assert DIGEST[:13] not in run
    assert '91.7% <span class="soft">of 12</span></td><td class="number">100.0%' in run
    assert not re.findall("trained (here|against)|attack|nothing", run)
    assert "under attack" not in text
    assert '<th scope="col" class="number">grids</th>' not in run


def test_a_warning_stands_at_the_top(text):
    assert text.count(WARNING) == 1
    assert text.index(WARNING) < text.index("<nav")
    assert '<span class="name">robust</span> <span class="chip warning">warning</span>' in section(text, "run")


def test_pictures_that_were_left_out_are_counted_and_listed(text):
    run = section(text, "run")
    assert "2 pictures of shapes could not be used" in run
    assert "<code>a/b/&lt;cut&gt;.jpg</code></th><td>truncated: 3 of 12 rows</td>" in run
    assert f'<span title="{LEFT_OUT[1][0]}">' in run


def test_masks_that_are_made_of_boxes_are_said_to_be_where_they_are_asked_for(study, text):
    said = "The mask of an image is the union of its boxes, as the dataset has no masks."
    assert text.count(said) == 1
    card = text[text.index('id="metric_wsl"') :]
    assert said in card[: card.index("</article>")]
    given = params.load(study)
    assert inputs.made_of_the_other(Study(study, given)) == {"wsl": [said]}


# What cannot apply


def test_metrics_that_cannot_apply_are_listed_once_and_in_no_chart(study, text):
    refusals = section(text, "refused")
    rows = re.findall(r"<tr><td><span class=\"name\">(\w+)</span></td><td>(.*?)</td><td>(.*?)</td></tr>", refusals)
    robust = '<span class="name">robust</span>'
    assert ("grid_pointing_game", "all", "the classifier … has no grids: classifiers.….grids is null") in rows
    assert ("wsl", robust, NO_BOXES) in rows
    assert text.count("grid_pointing_game") == 1
    assert text.count(NO_BOXES) == 1
    with zipfile.ZipFile(study / "data/report/tables.zip") as packed:
        assert not [name for name in packed.namelist() if "grid_pointing_game" in name]
    assert 'id="family_grid"' not in text
    assert "scored by 6 metrics" in text
    answer = section(text, "answer")
    columns = [re.findall(r'<th scope="col">(\w+)</th>', one) for one in re.findall("<table.*?</table>", answer, re.S)]
    assert "wsl" in columns[0]
    assert "wsl" not in columns[1]


def test_a_metric_that_refuses_all_methods_for_one_reason_cannot_apply():
    names = {"classifier": ["net"], "metric": ["deletion", "infidelity"], "method": ["a", "b", "c"]}
    asked = xr.DataArray(np.array([[[5, 5, 0], [0, 0, 0]]]), names, ("classifier", "metric", "method"))
    own = dict.fromkeys(("deletion", "infidelity"), "no ReLU")

    def table(*reasons: str) -> xr.Dataset:
        told = {name: {"infidelity": why} for name, why in zip("ab", reasons, strict=True)}
        return xr.Dataset({"asked": asked}, attrs={"unsupported": {"net": {**told, "c": own}}, "absent": {}})

    alike = table("images are not square", "images are not square")
    assert refused.inapplicable(alike) == {"net": {"infidelity": "images are not square"}}
    assert refused.nowhere(alike) == ["infidelity"]
    only = {"classifier": "net", "method": "c", "reason": "no ReLU", "metrics": ["deletion"]}
    assert refused.methods(alike) == [only]
    other = table("images are not square", "maps are not signed")
    assert refused.inapplicable(other) == {}
    assert len(refused.methods(other)) == 3


def test_no_mean_rank_is_beyond_the_number_of_methods(text):
    rank, number = re.search(r"the best mean rank: ([\d.]+) of (\d+) methods", text).groups()
    assert 1 <= float(rank) <= int(number) == 14


def test_few_images_are_said_to_be_few_beside_the_answer(text):
    """All of these metrics want 100 images or more; there are 12 at most."""
    (said,) = re.findall("<li>([^<]*by enough images[^<]*)</li>", section(text, "answer"))
    assert said.startswith("None of the 11 rankings is by enough images, or grids, to tell the methods apart: ")

    def told(reached: int) -> list[str]:
        rows = [{"ranks": True}] * 3
        return summary_text.few([{"reached": reached, "rows": [*rows, {"ranks": True}]}, {"reached": 0, "rows": rows}])

    assert told(3)[0].startswith("Only 3 of the 7 rankings are by enough")
    assert told(1)[0].startswith("Only 1 of the 7 rankings is by enough")
    assert told(4) == summary_text.few([{"reached": 0, "rows": [{"ranks": False}]}]) == []


# In a browser


@pytest.fixture
def page(browser, study):
    return visit(browser, study)


def shown(page, selector: str) -> list:
    return [one for one in find(page, selector) if one.is_displayed()]


def test_a_click_enlarges_a_map_beside_its_image_and_keys_go_on(page):
    from selenium.webdriver.common.keys import Keys

    looks = shown(page, "#gallery .look")
    assert len(looks) == 14
    dialog = page.find_element("css selector", "#enlarged")
    assert not dialog.is_displayed()
    looks[1].send_keys(Keys.ENTER)

    def told() -> list[str]:
        return [one.text.partition(":")[0] for one in shown(page, "#enlarged figcaption")]

    assert told() == ["The image", "Map of saliency"]
    drawn = shown(page, "#enlarged img")
    assert all(one.size["width"] > 2 * WIDTH for one in drawn)
    assert all(one.size["width"] / one.size["height"] == pytest.approx(WIDTH / HEIGHT, rel=0.02) for one in drawn)
    page.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert told() == ["The image", "Map of input_x_gradient"]
    page.switch_to.active_element.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert told() == ["The image"]
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not dialog.is_displayed()
    assert page.get_log("browser") == []


def test_maps_lie_over_the_image_where_that_is_wanted(page):
    from selenium.webdriver.support.select import Select

    box = page.find_element("css selector", "#gallery [data-over]")
    assert not find(page, "#gallery .under")
    box.click()
    assert len(shown(page, "#gallery .under")) == 13
    assert not find(page, "#gallery .first .under")
    _, image = (Select(one) for one in find(page, "#gallery select"))
    image.select_by_index(1)
    assert len(shown(page, "#gallery .under")) == len(find(page, "#gallery .under")) == 13
    box.click()
    assert not find(page, "#gallery .under")


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_or_overlaps(page, width, scheme):
    look(page, width=width, scheme=scheme)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    assert not page.execute_script(OVERLAP)
    page.execute_script("document.querySelectorAll('#gallery .look')[3].click()")
    box = page.find_element("css selector", "#enlarged").rect
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    assert box["height"] <= 900
    page.execute_script("document.querySelector('#enlarged').close()")
