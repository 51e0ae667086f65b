"""What is certified, as the report shows it: pictures to the pixel, numbers as the results have them, a page to use."""

import base64
import io
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import xarray as xr
import yaml
import zarr
from PIL import Image

from atlas.inputs.certification import ABSTAINED, IMPORTANT, UNIMPORTANT, Votes
from atlas.report import template
from atlas.report.certification import (
    certificates,
    certified,
    certified_curves,
    certified_results,
    grid_localization,
    protocol,
    published,
)
from atlas.report.charts import curve_plot, tradeoff
from atlas.report.images.pictures import Picture
from atlas.study import params
from atlas.study.errors import UserError
from atlas.study.schema.settings import Entry
from atlas.study.schema.smoothing import radius
from atlas.study.study import Study
from stages import aggregate, report
from tests.support import made_up, made_up_votes, reported
from tests.support.made_up_votes import LEVELS, VOTED
from tests.support.reported import CONTRAST, beyond, find, housed, look, visit
from tests.support.results import opened

browser = reported.browser
WHITE, GRAY, BLACK = (255, 255, 255), (217, 217, 217), (0, 0, 0)
SIZES = dict.fromkeys(made_up.CLASSIFIERS, made_up.SIDE**2)
YELLOW, PURPLE = (0xF1, 0xC2, 0x32), (0x84, 0x2E, 0x6A)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    with housed(tmp_path_factory, made_up_votes) as folder:
        aggregate.main(folder)
        report.main(folder)
        yield folder


@pytest.fixture(scope="module")
def table(study) -> xr.Dataset:
    return opened(study, "certified").load()


@pytest.fixture(scope="module")
def known(study, table) -> certified_results.Found:
    return certified_results.found(table, params.load(study), SIZES)


@pytest.fixture(scope="module")
def text(study) -> str:
    return (study / "data/report/index.html").read_text()


def among(known: certified_results.Found, *entries: Entry, **ways: dict) -> certified_results.Found:
    """What is known, as if it were of these entries, and of smoothings of 100 images and grids with other settings."""
    changed = {
        name: known.smoothings[name]._replace(
            settings={**known.smoothings[name].settings, **ways[name]}, pictures={"images": 100, "grids": 100}
        )
        for name in ways
    }
    return known._replace(metrics=list(entries), smoothings={**known.smoothings, **changed})


def entry(known: certified_results.Found, name: str, **changes: object) -> Entry:
    """An entry with other settings and options."""
    (one,) = (one for one in known.metrics if one.name == name)
    settings = {key: changes.get(key, value) for key, value in one.settings.items()}
    return one._replace(settings=settings, options={key: changes.get(key, value) for key, value in one.options.items()})


def pixels(picture: Picture) -> np.ndarray:
    data = base64.b64decode(picture.uri.removeprefix("data:image/webp;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


# Pictures


def test_colors_go_from_little_to_much_and_end_in_black():
    formatted = [certified.formatted(color) for color in certified.colors(5)]
    assert formatted == ["#f1c232", "#ec6060", "#842e6a", "#271c48", "#000000"]
    assert [tuple(color) for color in certified.colors(3)] == [YELLOW, PURPLE, BLACK]
    assert tuple(certified.colors(1)[0]) == BLACK
    between = certified.colors(9)[1]
    assert tuple(between) == (0xEE, 0x91, 0x49)  # half way between the first two


def test_the_smallest_level_wins_and_all_else_is_white():
    labels = np.array(
        [
            [[IMPORTANT, IMPORTANT, IMPORTANT, ABSTAINED, UNIMPORTANT, UNIMPORTANT]],
            [[IMPORTANT, IMPORTANT, ABSTAINED, ABSTAINED, UNIMPORTANT, IMPORTANT]],
            [[IMPORTANT, UNIMPORTANT, UNIMPORTANT, UNIMPORTANT, UNIMPORTANT, ABSTAINED]],
        ],
        np.int8,
    )
    shown = pixels(certified.overlay(labels, "", side=6))
    assert [tuple(one) for one in shown[0]] == [BLACK, PURPLE, YELLOW, WHITE, WHITE, PURPLE]


def test_a_level_has_three_colors():
    labels = np.array([[[IMPORTANT, UNIMPORTANT, ABSTAINED]]] * 3, np.int8)
    for place, color in enumerate((YELLOW, PURPLE, BLACK)):
        shown = pixels(certified.panel(labels, place, "", side=3))
        assert [tuple(one) for one in shown[0]] == [color, WHITE, GRAY]


def test_a_large_picture_keeps_labels_and_mixes_none():
    labels = np.full((1, 6, 9), UNIMPORTANT, np.int8)
    labels[0, 1::3, 1::3] = IMPORTANT  # the middles of blocks of three
    shown = pixels(certified.panel(labels, 0, "", side=3))
    assert shown.shape == (2, 3, 3)
    assert (shown == BLACK).all()


def test_the_smoothed_map_is_the_mean_of_the_marks():
    first = np.array([[[[10, 0]], [[4, 1]]]], np.uint8)
    rest = np.array([[[[60, 0]], [[31, 0]]]], np.uint8)
    votes = Votes(first, rest, np.zeros((1, 2), np.uint16), 10, 60, 0.15, [50, 30], "strict")
    np.testing.assert_array_equal(certified.smoothed(votes, 0, 1), [[35 / 70, 1 / 70]])
    assert [tuple(one) for one in pixels(certified.average(votes, 0, 0, "", side=2))[0]] == [WHITE, BLACK]
    assert pixels(certified.average(votes, 0, 1, "", side=2))[0, 1].tolist() == [round(255 / 70)] * 3


# Numbers


def test_the_trade_off_shows_what_the_table_holds(known, table, study):
    for classifier in made_up.CLASSIFIERS:
        (game,) = known.of("certified_grid_pointing_game")
        found = certificates.traded(known, params.load(study), game, classifier)
        assert {one.method for one in found["rows"]} == set(VOTED)
        for one in found["rows"]:
            here = table.sel({"classifier": classifier, "method": one.method, "level": 30}).sel(
                radius=0.1, method="nearest"
            )
            game, left = (here.sel(metric=name) for name in ("certified_grid_pointing_game", "grid_abstained"))
            assert one.game[:3] == pytest.approx([float(game[name]) for name in ("mean", "low", "high")], nan_ok=True)
            share = [1 - float(left[name]) / 100 for name in ("mean", "high", "low")]
            assert one.share[:3] == pytest.approx(share, nan_ok=True)
            assert one.game.count == int(game["count"])
        far = [np.hypot(1 - one.game.mean, 1 - one.share.mean) for one in found["rows"] if one.known]
        assert far == sorted(far)
        assert [one.method for one in found["rows"] if not one.known] == ["cam"] * (classifier == "vanilla")
        assert found["grids"]
        assert found["chance"] == 0.25


def test_pictures_without_a_certified_pixel_are_told_of_all_there_are(known, study):
    """Of all, and not of those on which the game is defined, which may leave the empty ones out."""
    (ties,) = known.of("grid_parted_ties")  # whose numbers stand in: 0.9 of the pictures, or 0.1, have none
    game = entry(known, "certified_grid_pointing_game", nothing="undefined")
    for count, told in ((game.options["count"], True), (2, False)):
        empty = ties._replace(function="certified_nothing", options={**ties.options, "count": count})
        metrics = [one for one in known.metrics if one.name not in (ties.name, game.name)]
        found = certificates.traded(known._replace(metrics=[*metrics, game, empty]), params.load(study), game, "robust")
        number = made_up_votes.GRIDS * 4
        for one in found["rows"]:
            share = 0.1 if one.method in made_up_votes.TIED else 0.9
            assert one.filled == ((round(number * share), number) if told else None)


def test_without_grids_the_share_is_of_images(known, study):
    metrics = [one for one in known.metrics if one.function != "grid_abstained"]
    (game,) = known.of("certified_grid_pointing_game")
    found = certificates.traded(known._replace(metrics=metrics), params.load(study), game, "robust")
    (one,) = (one for one in found["rows"] if one.method == "rise")
    assert not found["grids"]
    (abstained,) = (one for one in metrics if one.function == "abstained")
    there = known.point(abstained, "robust", "rise", known.where(known.test(abstained)), 30)
    assert one.share.mean == pytest.approx(1 - there.mean / 100)


def test_numbers_stand_apart_from_dots_and_from_one_another():
    dots = [np.array([100.0, 100.0])] * 9 + [np.array([103.0, 96.0])] * 3
    halves = [(tradeoff.DIGIT * len(str(one)) / 2, tradeoff.LINE / 2) for one in range(1, 13)]
    found = tradeoff.centers(dots, halves, [], (250, 250))
    boxes = [tradeoff.box(center, *half) for center, half in zip(found, halves, strict=True)]
    boxes += [tradeoff.box(dot, tradeoff.DOT, tradeoff.DOT) for dot in (dots[0], dots[-1])]
    for place, one in enumerate(boxes[:12]):
        for other in boxes[place + 1 :]:
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def test_shares_by_level_by_noise_and_by_votes(known, processes):
    found = dict(certified_curves.sweep_charts(known, processes))
    assert [(what, [one["entry"] for one in found[what]]) for what in found] == [
        ("level", ["certified_important", "sweep"]),
        ("sigma", ["sweep"]),
        ("tau", ["sweep"]),
    ]
    first, second = found["level"]
    assert first["parts"] == ["important", "unimportant"]
    assert second["parts"] == ["important"]  # the sweep is of that alone
    assert second["how"] == "form strict, α = 0.05, Holm’s correction"
    assert [name for name, _, _ in first["charts"]] == made_up.CLASSIFIERS
    charts = {name: chart for name, chart, _ in first["charts"]}
    assert charts["vanilla"].count("n/a") == 3  # cam, at each level
    assert "n/a" not in charts["robust"]
    for level in LEVELS:
        assert f"top {level}%" in charts["robust"]
    for what, at, titles in (
        ("sigma", "τ = 0.75", ["σ 0.15, τ 0.75", "→ radius 0.101", "σ 0.25, τ 0.75", "→ radius 0.168"]),
        ("tau", "σ = 0.15", ["σ 0.15, τ 0.6", "→ radius 0.038", "σ 0.15, τ 0.75", "→ radius 0.101"]),
    ):
        (one,) = found[what]
        chart = {name: chart for name, chart, _ in one["charts"]}["robust"]
        assert one["at"] == at
        assert re.findall(r">([σ→] ?[^<]*)</text>", chart) == titles
        assert {name for name in VOTED if f">{name}<" in chart} == set(made_up_votes.SWEPT)


def test_a_sweep_has_the_numbers_of_its_test(known, table, processes):
    (one,) = dict(certified_curves.sweep_charts(known, processes))["sigma"]
    _, chart, numbers = one["charts"][0]
    assert numbers.heads == [
        ("sweep", "important, σ 0.15, τ 0.75 → radius 0.101"),
        ("sweep", "important, σ 0.25, τ 0.75 → radius 0.168"),
    ]
    for name, _, cells in numbers.rows:
        here = table.sel({"classifier": "vanilla", "metric": "sweep", "method": name, "level": 30})
        for cell, place in zip(cells, (0.101173, 0.168622), strict=True):
            there = here.sel(radius=place, method="nearest")
            assert cell == tuple(float(there[column]) for column in ("mean", "low", "high", "count"))
    most = f"{numbers.rows[0][0]} {numbers.rows[0][2][0].mean:.3g}%"
    assert "certified important on vanilla by σ at τ = 0.75; most of the top 30% at σ = 0.15, τ = 0.75" in chart
    assert most in chart


def test_a_radius_that_the_results_do_not_have_has_no_mean(known):
    """Nor has it the mean of the radius next to it."""
    metric = entry(known, "certified_important")
    (test,) = known.tests(metric)
    assert known.point(metric, "robust", "rise", known.where(test), 30).known
    (test,) = known.tests(entry(known, "certified_important", tau=[0.7501]))
    assert known.point(metric, "robust", "rise", known.where(test), 30) == certified_results.NOWHERE


def test_one_radius_and_one_part_are_not_swept_over(known, processes):
    few = [one for one in known.metrics if one.name == "certified_unimportant"]
    ((what, (one,)),) = certified_curves.sweep_charts(known._replace(metrics=few), processes)
    assert (what, one["entry"], one["parts"]) == ("level", "certified_unimportant", ["unimportant"])
    none = [one for one in known.metrics if one.name == "abstained"]
    assert certified_curves.sweep_charts(known._replace(metrics=none), processes) == []
    assert certified_curves.removed(known._replace(metrics=none), processes) == []


def test_the_targets_probability_by_what_is_removed(known, table, processes):
    (one,) = certified_curves.removed(known, processes)
    assert (one["entry"], one["at"]) == ("certified_deletion", "σ = 0.15, τ = 0.75 → radius 0.101")
    shown = {name: (dict(charts), numbers) for name, charts, numbers in one["shown"]}
    charts, numbers = shown["vanilla"]
    assert list(charts) == ["gradient", "cam", "perturbation"]
    assert [title for _, title in numbers.heads] == [
        "nothing removed",
        *(f"without the top {n}%" for n in (10, 30, 50)),
    ]
    for classifier, (_, found) in shown.items():
        assert [name for name, _, _ in found.rows] == VOTED
        for name, _, cells in found.rows:
            here = table.sel({"classifier": classifier, "metric": "certified_deletion", "method": name})
            for level, cell in zip((0, 10, 30, 50), cells, strict=True):
                there = here.sel(level=level).sel(radius=0.101173, method="nearest")
                there = [float(there[column]) for column in ("mean", "low", "high", "count")]
                assert list(cell) == pytest.approx(there, nan_ok=True)
    words = re.findall(r"<text[^>]*>([^<]*)</text>", charts["cam"])
    assert {"nothing", "10%", "30%", "50%", "probability", "gradcam", "uniform"} <= set(words)
    assert "cam" not in words  # refused
    (gradcam,) = (cells for name, _, cells in numbers.rows if name == "gradcam")
    assert f"gradcam {gradcam[0].mean:.2f} to {gradcam[3].mean:.2f}; with bands, controls dashed" in charts["cam"]
    rise = {name: cells for name, _, cells in shown["robust"][1].rows}["rise"]
    assert f"rise {rise[0].mean:.2f} to {rise[3].mean:.2f}" in shown["robust"][0]["perturbation"]


def test_the_game_by_level_has_the_numbers_of_its_test(known, table, study, processes):
    ((what, (one,)),) = grid_localization.sweep_charts(
        known, params.load(study), processes
    )  # of one σ and τ there is no sweep
    assert (what, one["entry"], one["at"]) == ("level", grid_localization.GAME, "σ = 0.15, τ = 0.75 → radius 0.101")
    assert [name for name, _, _ in one["shown"]] == made_up.CLASSIFIERS
    for classifier, charts, numbers in one["shown"]:
        assert numbers.heads == [(grid_localization.GAME, f"top {level}%") for level in (10, 30, 50)]
        assert [name for name, _, _ in numbers.rows] == VOTED
        for name, _, cells in numbers.rows:
            here = table.sel({"classifier": classifier, "metric": grid_localization.GAME, "method": name})
            for level, cell in zip((10, 30, 50), cells, strict=True):
                there = here.sel(level=level).sel(radius=0.101173, method="nearest")
                there = [float(there[column]) for column in ("mean", "low", "high", "count")]
                assert list(cell) == pytest.approx(there, nan_ok=True)
        chart = dict(charts)["cam"]
        assert "from 10% to 50%, 0.25 by chance" in chart
        assert {"10%", "30%", "50%", "game", "gradcam", "uniform"} <= set(
            re.findall(r"<text[^>]*>([^<]*)</text>", chart)
        )


def test_the_game_by_noise_and_by_votes(known, study, processes):
    """Of a mean without an interval there is a dot alone."""
    game = entry(known, grid_localization.GAME, smoothings=["noise_15", "noise_25"], tau=[0.75, 0.6])
    numbers = np.zeros_like(known.values)
    numbers[..., 3] = 8
    places = known.table["radius"].values.tolist()
    for place in range(len(places)):
        numbers[:, :, :, place, :, 0] = 0.1 * (place + 1)
    numbers[..., 1:3] = np.nan
    full = known._replace(values=numbers)
    found = dict(grid_localization.sweep_charts(among(full, game), params.load(study), processes))
    assert list(found) == ["level", "sigma", "tau"]
    for what, at, radii, titles in (
        ("sigma", "τ = 0.75", (0.101173, 0.168622), ["0.15", "0.25"]),
        ("tau", "σ = 0.15", (0.038002, 0.101173), ["0.6", "0.75"]),
    ):
        (one,) = found[what]
        assert one["at"] == at
        _, charts, numbers = one["shown"][0]
        wanted = [0.1 * (1 + int(np.abs(np.array(places) - radius).argmin())) for radius in radii]
        for _, _, cells in numbers.rows:
            assert [cell.mean for cell in cells] == pytest.approx(wanted)
            assert [cell.count for cell in cells] == [8, 8]
        (chart,) = [chart for family, chart in charts if family == "cam"]
        assert set(titles) <= set(re.findall(r"<text[^>]*>([^<]*)</text>", chart))
        assert f"gradcam {wanted[0]:.2f} to {wanted[1]:.2f}" in chart
        assert "LineCollection" not in chart


def test_steps_beside_those_without_an_interval_have_theirs():
    nan = np.nan
    line = curve_plot.Line("one", np.array([0.2, 0.4, 0.6]), np.array([nan, 0.3, nan]), np.array([nan, 0.5, nan]))
    frame = curve_plot.Frame(np.arange(3), ["a", "b", "c"], "", "", 0, 1, chance=0.25)
    chart = curve_plot.chart(frame, [line], [], "lone", "")
    (upright,) = re.findall(r'<g id="LineCollection_1">(.*?)</g>', chart, flags=re.DOTALL)
    ((x, low), (end, high)) = [map(float, one) for one in re.findall(r"[ML] ([\d.]+) ([\d.]+)", upright)]
    assert x == end
    across = [
        re.findall(r"[ML] ([\d.]+) ([\d.]+)", path) for path in re.findall(r'<path d="([^"]*)"[^>]*dasharray', chart)
    ]
    ((_, level), (_, same)) = across[0]
    assert level == same
    # By chance is as far below the lower end as that is from half way to three tenths.
    assert (float(level) - low) / (low - high) == pytest.approx(0.25, abs=1e-3)


def test_a_game_of_one_level_is_not_swept(known, study, processes):
    (game,) = known.of(grid_localization.GAME)
    one = among(known, game, noise_15={"levels": [30]})
    assert grid_localization.sweep_charts(one, params.load(study), processes) == []


def test_numbers_on_grids_are_of_every_test_and_tile(known, table):
    game = entry(known, grid_localization.GAME, tile=0)._replace(name="sweep")
    several = known._replace(metrics=[*known.metrics, game])
    (first, every), (second, tile) = grid_localization.tests(several)
    assert (first, every, tile) == (second, None, 0)
    found = grid_localization.numbers(several, "robust", first, every)
    assert [one["level"] for one in found] == LEVELS
    for one in found:
        assert one["heads"] == [
            (grid_localization.GAME, "game"),
            (grid_localization.GRIDS, "abstained, %"),
            (grid_localization.TIES, "samples with ties"),
        ]
        for method, _, cells in one["rows"]:
            here = table.sel({"classifier": "robust", "method": method, "level": one["level"]})
            here = here.sel(radius=0.101173, method="nearest")
            for (name, _), cell in zip(one["heads"], cells, strict=True):
                there = [float(here.sel(metric=name)[column]) for column in ("mean", "low", "high", "count")]
                assert list(cell) == pytest.approx(there, nan_ok=True)
                assert cell.count == made_up_votes.GRIDS * 4  # tiles
    assert [one["heads"] for one in grid_localization.numbers(several, "robust", second, tile)] == [
        [("sweep", "game")]
    ] * 3
    assert grid_localization.numbers(several, "robust", second, tile)[0]["test"].endswith("bonferroni, tile 0")


def test_numbers_are_of_every_test(known):
    first, second = certificates.tests(known)
    assert (first.correction, second.correction) == ("bonferroni", "holm")
    names = [name for name, _ in certificates.numbers(known, "robust", first)[0]["heads"]]
    assert names == ["certified_important", "certified_unimportant", "abstained", "certified_localization"]
    assert [name for name, _ in certificates.numbers(known, "robust", second)[0]["heads"]] == ["sweep"]


def drawn(known: certified_results.Found, given: dict, processes: Executor) -> tuple[dict, str]:
    """The section's values, and its HTML."""
    values = {
        **certificates.section(known, given, processes),
        "panels": [],
        "published": published.joined(known, given),
    }
    classifiers = known.table["classifier"].values.tolist()
    page = template.environment().get_template("certified.html.j2")
    return values, page.render({"certified": values, "percent": "95%", "classifiers": classifiers})


def test_the_tests_shown_stand_in_a_table_with_the_votes_they_take(known, text):
    found = certificates.tested(known, known.test(known.metrics[0]))
    said = {one["test"].name: (one["images"], one["grids"]) for one in found}
    both, pixels = list(made_up.CLASSIFIERS), made_up.SIDE**2
    name = "noise_15, τ = 0.75, α = 0.05, bonferroni"
    assert next(iter(said)) == name
    # By SciPy: 58 of 60 votes at a p-value of at most 0.05 / 2304, 59 at a fourth of it.
    assert said[name] == ([(pixels, "58 of 60", both)], [(4 * pixels, "59 of 60", both)])
    sweep = ([(pixels, "52 of 60, down to 43 as others are certified", both)], [])
    assert said["noise_25, τ = 0.6, α = 0.05, holm"] == sweep
    assert len(said) == 1 + 4
    (table,) = re.findall(r'<table class="sortable tests">(.*?)</table>', text, flags=re.DOTALL)
    rows = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in table.split("<tbody>")[1].split("</tr>")[:-1]]
    words = [[re.sub("<[^>]*>", "", cell) for cell in row] for row in rows]
    first = ["noise_15", "0.15", "0.75", "0.101", "strict", "0.05", "Bonferroni’s correction", "10 + 60"]
    assert words[0] == [*first, "58 of 60 (2304 pixels)", "59 of 60 (9216 pixels)"]
    assert len(words) == 5
    assert words[-1][:4] == ["noise_25", "0.25", "0.6", "0.0633"]
    assert words[-1][-2:] == ["52 of 60, down to 43 as others are certified (2304 pixels)", "n/a"]


def test_images_of_two_sizes_take_votes_of_their_own(known, study):
    given = params.load(study)
    two = certified_results.found(known.table, given, {"vanilla": 64**2, "robust": 224**2})
    first, *_ = certificates.tested(two, two.test(two.metrics[0]))
    assert first["images"] == [(64**2, "58 of 60", ["vanilla"]), (224**2, "59 of 60", ["robust"])]


def test_where_no_count_of_votes_certifies_it_is_said_in_place_of_bars(known, study, processes):
    """At τ = 0.85 all 60 votes are enough for images of one classifier, and for grids of none."""
    strict = {"alpha": 0.15, "correction": "bonferroni", "smoothings": ["noise_15"], "tau": [0.6, 0.85]}
    share, game = entry(known, "sweep", **strict), entry(known, grid_localization.GAME, **strict)
    sizes = {"vanilla": 48**2, "robust": 64**2}
    known = certified_results.found(known.table, params.load(study), sizes)._replace(metrics=[share, game])
    assert [one.reaches(sizes[name]) for one in known.tests(share) for name in sizes] == [True, True, True, False]
    values, html = drawn(known, params.load(study), processes)
    place = "σ = 0.15, τ = 0.85 → radius 0.155"
    (one,) = dict(values["sweeps"])["tau"]
    assert one["beyond"] == [(place, ["robust"])]
    charts = {name: chart for name, chart, _ in one["charts"]}
    assert [charts[name].count(">certifies<") for name in sizes] == [0, 1]
    assert dict(values["sweeps"])["level"][0]["beyond"] == []
    (one,) = dict(values["games"])["tau"]
    assert one["beyond"] == [(place, ["vanilla", "robust"])]
    assert html.count(f"At {place} no count of votes certifies a pixel on robust, not even all") == 1
    assert html.count(f"At {place} no count of votes certifies a pixel, not even all") == 1
    assert html.count("none: not even all 60") == 3


def test_certificates_of_ties_are_flagged(known, study, processes, text):
    given = params.load(study)
    (game,) = known.of(grid_localization.GAME)
    found = certificates.traded(known, given, game, "robust")
    assert {one.method for one in found["rows"] if one.tied} == set(made_up_votes.TIED)
    numbers = {one.method: place for place, one in enumerate(found["rows"], 1)}
    marks = re.findall(r">(\d+)†</text>", found["chart"])
    assert sorted(map(int, marks)) == sorted(numbers[name] for name in made_up_votes.TIED)
    values = known.values.copy()
    values[:, :, known.table.indexes["metric"].get_loc(grid_localization.TIES)] = 0.5
    loose = certificates.traded(known._replace(values=values), given, game, "robust")
    assert not any(one.tied for one in loose["rows"])
    # Its mark is hollow: one more than of controls, and one filled less.
    hollow = [one["chart"].count("fill: var(--paper)") for one in (found, loose)]
    assert hollow[0] == hollow[1] + len(set(made_up_votes.TIED) - {"uniform"})
    assert "hollow, number with †: ties" in text
    assert "†: in more than half of the noisy samples equal scores lay at the edge of the top" in text
    assert text.count('<button type="button">samples with ties</button>') > 2
    others = [one for one in known.metrics if one.function != grid_localization.TIES]
    _, html = drawn(known._replace(metrics=others), given, processes)
    assert "†" not in html
    assert "Whether what is certified comes from ties was not measured" in html


def test_what_a_column_is_biased_by_stands_above_it(known, study, processes):
    consistency = entry(known, "certified_localization")._replace(function="certified_consistency")
    of = certificates.NOTES
    for metrics, said in (
        (known.metrics, {"certified_localization"}),
        ([entry(known, "abstained"), consistency], {"certified_consistency"}),
        ([entry(known, "abstained")], set()),
    ):
        _, html = drawn(known._replace(metrics=list(metrics)), params.load(study), processes)
        assert {name for name in of if of[name] in html and name != "parted_ties"} == said
        assert ("it favors methods of which more is certified" in html) == (metrics is known.metrics)


def test_one_classifier_is_enough(table, study, processes):
    given = params.load(study)
    known = certified_results.found(table.isel(classifier=[1]), given, SIZES)
    values, html = drawn(known, given, processes)
    assert [one["classifier"] for one in values["tradeoffs"]] == ["robust"]
    assert {name for _, listed in values["sweeps"] for one in listed for name, _, _ in one["charts"]} == {"robust"}
    assert "vanilla" not in html


def test_where_no_method_has_a_mean_all_is_not_applicable(known, study, processes):
    nothing = known._replace(values=np.where(np.arange(4) < 3, np.nan, np.zeros_like(known.values)))
    values, html = drawn(nothing, params.load(study), processes)
    assert "nearest to the ideal: none" in values["tradeoffs"][0]["chart"]
    assert "radius 0.101: none; numbers" in values["sweeps"][0][1][0]["charts"][0][1]
    assert values["removals"][0]["shown"][0][1] == []
    assert "nan" not in html.lower()


def test_votes_on_grids_alone_have_no_numbers_of_images(known, study, processes):
    grids = [one for one in known.metrics if one.family == "certified_grid"]
    values, html = drawn(known._replace(metrics=grids), params.load(study), processes)
    assert len(values["tradeoffs"]) == len(made_up.CLASSIFIERS)
    assert values["sweeps"] == values["removals"] == values["numbers"] == []
    assert "Numbers by level" not in html
    assert "Does the classifier use" not in html


def test_the_section_speaks_of_the_test_of_images_though_one_of_grids_stands_first(study):
    given = params.load(study)
    grids = {name: {**one, "alpha": 0.2} for name, one in made_up_votes.METRICS["certified_grid"].items()}
    given["metrics"] = {"certified_grid": grids, "certified": given["metrics"]["certified"]}
    assert certified_results.first_test(given).alpha == 0.05
    del given["metrics"]["certified"]
    assert certified_results.first_test(given).alpha == 0.2


def test_each_entry_of_the_game_has_its_chart_where_its_test_has_a_share(known, study, processes):
    game = entry(known, "certified_grid_pointing_game", tile=0, smoothings=["noise_25"])
    metrics = [*known.metrics, game._replace(name="grid_abstained")]
    values, _ = drawn(known._replace(metrics=metrics), params.load(study), processes)
    assert [one["entry"] for one in values["tradeoffs"]] == ["certified_grid_pointing_game"] * 2
    metrics += [entry(known, "abstained", smoothings=["noise_25"])]
    values, html = drawn(known._replace(metrics=metrics), params.load(study), processes)
    assert [one["entry"] for one in values["tradeoffs"][2:]] == ["grid_abstained"] * 2
    assert html.count(", of tile 0 alone") == 2
    assert {one.method for one in values["tradeoffs"][2]["rows"]} == {*made_up_votes.SWEPT, made_up_votes.ALONE}


def test_the_key_names_the_families_of_all_smoothings(known, study, processes):
    few = known.smoothings["noise_15"]._replace(methods=["saliency"])
    values, _ = drawn(known._replace(smoothings={**known.smoothings, "noise_15": few}), params.load(study), processes)
    assert [name for name, _, _ in values["families"]] == ["gradient", "cam"]


def test_the_page_says_what_is_certified(text):
    words = re.sub(r"<[^>]*>|\s+", " ", text)
    for said in (
        "70 noisy samples of an image (noise of standard deviation σ = 0.15 in intensities)",
        "10 of them say which label a pixel may have",
        "more than τ = 75% of all samples",
        "1 − α = 95%, for all pixels of a map together by Bonferroni’s correction",
        "σ · Φ⁻¹(τ) = 0.101",
        "removed pixels show the mean color",
    ):
        assert said in words
    assert 'id="published"' not in text
    assert "′: published" not in text


def test_what_has_no_votes_is_told(text):
    (said,) = re.findall(r"Not voted on, by the entries of params\.yaml: (.*?)</p>", text)
    assert set(re.findall(r'"name">(\w+)<', said)) == {
        name for listed in made_up.METHODS.values() for name in listed
    } - {*VOTED, made_up_votes.ALONE}
    (said,) = re.findall(r"Voted on under some entries of certify alone.*?: (.*?)</p>", text)
    assert re.findall(r'"name">(\w+)</span> \((\w+)\)', said) == [
        (name, "noise_25" if name == made_up_votes.ALONE else "noise_15")
        for name in [name for listed in made_up.METHODS.values() for name in listed]
        if name in {*VOTED, made_up_votes.ALONE} - set(made_up_votes.SWEPT)
    ]


def test_a_study_without_votes_has_no_such_results(study, tmp_path):
    plain = Path(shutil.copytree(study, tmp_path / "study"))
    given = yaml.safe_load((plain / "params.yaml").read_text())
    given["certify"] = {}
    for family in made_up_votes.METRICS:
        del given["metrics"][family]
    (plain / "params.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
    shutil.rmtree(plain / "data/votes")
    aggregate.main(plain)
    found = set(report.results(Study(plain)))
    assert found == {"summary", "agreement", "contrasts", "precision", "comparison", "controls", "cost", "curves"}


def test_votes_that_are_gone_are_an_error_and_in_a_draft_not_applicable(study, known, tmp_path):
    other = Path(shutil.copytree(study, tmp_path / "study"))
    shutil.rmtree(other / "data/votes/robust/cam.zarr")
    test, rows = known.test(known.metrics[0]), np.arange(2)
    with pytest.raises(UserError, match=r"robust/cam\.zarr: the votes cannot be read"):
        report.votes(Study(other), "robust", test.smoothing, rows)
    (other / "missing.json").write_text('{"certify@robust-perturbation": "it failed"}')
    cast = report.votes(Study(other), "robust", test.smoothing, rows)
    assert set(cast) == set(VOTED) - {"cam", "gradcam", "rise"}
    shown = {"robust": report.chosen(Study(other), "robust", rows, [])}
    for one in certificates.panels(shown, {"robust": cast}, test, side=96):
        drawn = dict(one["rows"])
        assert list(drawn) == VOTED
        assert [name for name in VOTED if not drawn[name]] == ["cam", "gradcam", "rise"]
        assert all(len(drawn[name]) == 2 + len(LEVELS) for name in cast)


def test_panels_show_the_images_of_the_gallery_that_have_votes(study, table, processes, tmp_path):
    """The first two images are of one class, and the next class is the fourth's, on which nothing voted."""
    other = Path(shutil.copytree(study, tmp_path / "study"))
    targets = zarr.open_group(params.path(other, "images", "robust") / "images", mode="r+")["target"]
    targets[:4] = np.array([2, 2, 0, 1])
    targets[4:] = 2
    given = params.load(other)
    assert report.first_rows(Study(other), "robust", 3).tolist() == [0, 2, 3]
    panels = report.certified(Study(other, given), table, 3, 96, processes)["panels"]
    assert [one["image"] for one in panels if one["classifier"] == "robust"] == ["test_0000", "test_0002", "test_0003"]
    panels = report.certified(Study(other, given), table, 2, 96, processes)["panels"]
    last = [one for one in panels if one["classifier"] == "robust"][-1]
    (shown,) = report.chosen(Study(other), "robust", np.array([2]), [])
    assert pixels(last["picture"]).tolist() == np.moveaxis(shown.pixels, 0, -1).tolist()
    test = certified_results.first_test(given)
    marks = test.labels(report.votes(Study(other), "robust", test.smoothing, np.array([2]))["rise"])[0]
    drawn = dict(last["rows"])["rise"][0]
    assert drawn == certified.overlay(marks, drawn.alt, side=96)


# Beside what was published


@pytest.fixture
def paper(study, tmp_path) -> Path:
    """A copy of the study, as if it were of a network and the images of the paper."""
    other = Path(shutil.copytree(study, tmp_path / "study"))
    given = yaml.safe_load((other / "params.yaml").read_text())
    given["datasets"]["shapes"] = {"family": "imagenet", "function": "paper", "path": "here", "number": 100}
    about = given["classifiers"]["robust"]
    about["network"] = {"family": "torchvision", "name": "resnet18"}
    about |= {group: {**about[group], "count": 100} for group in ("images", "grids")}
    (other / "params.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
    return other


def row(found: list, method: str, function: str, level: int) -> published.Compared:
    (rows,) = (rows for _, _, rows in found)
    (one,) = (one for one in rows if (one.method, one.metric.function, one.level) == (method, function, level))
    return one


def test_published_means_stand_beside_ours(known, paper):
    found = published.joined(known, params.load(paper))
    ((classifier, network, rows),) = found
    assert (classifier, network) == ("robust", "resnet18")
    # Of the certified methods all but gradcam name no layer here, and so are at the input; saliency has another name.
    assert {one.method for one in rows} == {"cam", "gradcam", "input_x_gradient", "rise"}
    one = row(found, "gradcam", "certified_unimportant", 50)
    assert one.published == 30.6
    assert one.ours == known.point(entry(known, "certified_unimportant"), "robust", "gradcam", 0.101173, 50)
    assert one.difference == pytest.approx(one.ours.mean - 30.6)
    wide = [one for one in rows if one.test.smoothing.name == "noise_25"]
    assert {(one.method, one.metric.name) for one in wide} == {("gradcam", "sweep")}
    assert {one.level for one in rows if one.metric.name == "certified_deletion"} == {0, 10, 30, 50}


@pytest.mark.parametrize(("sigma", "tau"), [(0.15, 0.74), (0.15, 0.752), (0.3, NormalDist().cdf(0.101173 / 0.3))])
def test_no_other_noise_or_share_of_votes_is_compared(known, paper, sigma, tau):
    """The radius, to two digits, is that of the published means; what it is of is not."""
    other = entry(known, "certified_unimportant", tau=[tau])
    assert f"{radius(sigma, tau):.2f}" == "0.10"
    assert published.joined(among(known, other, noise_15={"sigma": sigma}), params.load(paper)) == []
    both = entry(known, "certified_unimportant", tau=[tau, 0.75])
    ((_, _, rows),) = published.joined(among(known, both), params.load(paper))
    assert {(one.test.smoothing.settings["sigma"], one.test.tau) for one in rows} == {(0.15, 0.75)}


AUTHORS = {"form": "authors", "n0": 10, "n": 90}


@pytest.mark.parametrize(
    ("settings", "changes", "said"),
    [
        (AUTHORS, {}, []),
        ({**AUTHORS, "form": "strict"}, {}, ["form strict"]),
        (AUTHORS, {"tile": None}, ["all tiles"]),
        (AUTHORS, {"tile": 3}, ["tile 3"]),
        (AUTHORS, {"nothing": "undefined"}, ["empty maps left out"]),
        ({**AUTHORS, "n0": 20}, {}, ["20 + 90 votes"]),
        ({**AUTHORS, "n": 100}, {}, ["10 + 100 votes"]),
        (AUTHORS, {"alpha": 0.05}, ["α = 0.05"]),
        (AUTHORS, {"correction": "holm"}, ["Holm’s correction"]),
        (AUTHORS, {"correction": "none"}, ["uncorrected"]),
        (
            {"form": "strict_rectified", "n0": 5, "n": 50},
            {"alpha": 0.01, "tile": None, "correction": "none"},
            ["form strict_rectified", "all tiles", "5 + 50 votes", "α = 0.01", "uncorrected"],
        ),
    ],
)
def test_what_is_measured_otherwise_is_said(known, paper, settings, changes, said):
    changes = {"tile": 0, "alpha": 0.001, **changes}
    game = entry(known, "certified_grid_pointing_game", **changes)
    found = published.joined(among(known, game, noise_15=settings), params.load(paper))
    assert row(found, "gradcam", "certified_grid_pointing_game", 50).differs == said


def test_what_is_of_images_has_no_tile_and_grids_of_nine_are_told(known, paper):
    given = params.load(paper)
    given["classifiers"]["robust"]["grids"] = {**given["classifiers"]["robust"]["grids"], "tiles_per_side": 3}
    metrics = [
        entry(known, name, tile=tile, alpha=0.001)
        for name, tile in (("certified_unimportant", None), ("certified_grid_pointing_game", 0))
    ]
    found = published.joined(among(known, *metrics, noise_15=AUTHORS), given)
    assert row(found, "gradcam", "certified_unimportant", 50).differs == []
    assert row(found, "gradcam", "certified_grid_pointing_game", 50).differs == ["3 × 3 tiles"]


# Two entries of one function: the second has the values of another metric, by which it is told.
@pytest.mark.parametrize(
    ("first", "second", "chosen"),
    [
        ({}, {}, "first"),
        ({"tile": None}, {}, "second"),
        ({"tile": None}, {"alpha": 0.05, "correction": "holm", "nothing": "undefined"}, "second"),
        ({"alpha": 0.05, "correction": "holm"}, {"alpha": 0.05}, "second"),
        ({"alpha": 0.05}, {"alpha": 0.01}, "first"),
        ({"smoothings": ["noise_25"]}, {"smoothings": ["noise_15"], "tile": None, "alpha": 0.05}, "second"),
        ({"smoothings": ["noise_25"], "tau": [0.7]}, {"smoothings": ["noise_15"], "tile": 2}, "second"),
    ],
)
def test_the_entry_that_is_measured_most_alike_is_compared(known, paper, first, second, chosen):
    """Form before tile before the number of all that differs; the first of equals."""
    alike = {"tile": 0, "alpha": 0.001}
    one = entry(known, "certified_grid_pointing_game", **{**alike, **first})
    other = entry(known, "certified_grid_pointing_game", **{**alike, **second})._replace(name="grid_abstained")
    strict = {**AUTHORS, "form": "strict", "sigma": 0.15}
    found = published.joined(among(known, one, other, noise_15=AUTHORS, noise_25=strict), params.load(paper))
    name = {"first": one.name, "second": other.name}[chosen]
    assert row(found, "gradcam", "certified_grid_pointing_game", 50).metric.name == name


def test_a_method_without_a_mean_is_not_left_out(known, paper):
    given = params.load(paper)
    given["classifiers"] = {name: {**given["classifiers"]["robust"]} for name in given["classifiers"]}
    (_, _, rows), _ = published.joined(known, given)
    refused = [one for one in rows if one.method == "cam"]
    assert refused
    assert all(np.isnan([one.ours.mean, one.difference]).all() and one.ours.count == 0 for one in refused)


def test_a_map_whose_pixels_changed_places_was_not_published(known, paper):
    given = params.load(paper)
    given["methods"]["cam"]["gradcam"]["reverse"] = {"remain": 0.5, "swap": 0.1}
    ((_, _, rows),) = published.joined(known, given)
    assert {one.method for one in rows} == {"cam", "input_x_gradient", "rise"}


def test_the_page_compares(paper):
    report.main(paper)
    page = (paper / "data/report/index.html").read_text()
    assert 'id="published"' in page
    assert "means on robust, resnet18" in page
    assert "authors&#39; rebuttal: Figure 1" in page
    assert "form strict; 10 + 60 votes; α = 0.05; 5 images</td>" in page
    assert "form strict; all tiles; 10 + 60 votes; α = 0.05; 5 grids</td>" in page
    assert "equal to those at 30% in every curve, so seemingly copied</td>" in page
    assert "inferred: the axis is read as the certified share of grids; inferred: the level is 30%" in page
    assert "published certified, % (inferred)" in page
    assert "number with ′: published" in page


FAMILIES = ("gradient", "path", "relevance", "masking", "feature", "cam")


def test_published_means_are_of_methods_and_metrics_that_there_are():
    facts = published.facts()
    assert len({tuple(list(one.values())[:7]) for one in facts}) == len(facts) > 2000
    assert {(one["method"], one["layer"]) for one in facts} == set(protocol.SETTINGS) >= set(protocol.OF_TRANSFORMERS)
    functions = {name for file in FAMILIES for name in _public(file)}
    assert {one["method"] for one in facts} <= functions
    assert {one["network"] for one in facts} == {"resnet18", "wide_resnet50_2", "resnet152", "vgg11", "vit_b_16"}
    assert {(one["sigma"], one["tau"]) for one in facts} == {("0.15", "0.75"), ("0.25", "0.75"), ("0.33", "0.75")}
    for one in facts:
        top = 1 if one["metric"] in ("certified_grid_pointing_game", "certified_deletion") else 100
        assert 0 <= float(one["value"]) <= top


def test_the_paper_study_has_the_published_settings():
    listed = yaml.safe_load((Path(__file__).parents[3] / "studies/certified/methods.yaml").read_text())["methods"]
    there = [(one.get("function", name), one) for family in listed.values() for name, one in family.items()]
    for function, one in there:
        theirs = protocol.settings(published.NAMED.get(function, function), one.get("layer", "input"), "resnet18")
        assert {name: one[name] for name in theirs} == theirs


@pytest.mark.parametrize(
    ("method", "network", "changes", "said"),
    [
        (("rise", "input"), "resnet18", {}, []),
        (("rise", "input"), "resnet18", {"masks": 96, "seed": 7}, ["masks: 96 instead of 6000"]),
        (("lrp", "final"), "vgg11", {"epsilon": 1e-6}, ["epsilon: 1e-06 instead of 0.25"]),
        (("lrp", "final"), "resnet18", {"epsilon": 1e-6}, []),
        (
            ("gradient", "input"),
            "resnet18",
            {"sign": "positive", "channels": "sum"},
            ["sign: positive instead of both", "channels: sum instead of abs_sum"],
        ),
        (
            ("integrated_gradients", "input"),
            "resnet152",
            {"steps": 16, "baseline": "black"},
            ["baseline: black instead of mean", "steps: 16 instead of 20"],
        ),
        (("occlusion", "input"), "vgg11", {"stride": 4}, ["stride: 4 instead of 8"]),
        (("occlusion", "final"), "vgg11", {"window": 3}, ["window: 3 instead of 5"]),
        (("cam", "final"), "vgg11", {"rectified": False}, ["rectified: false instead of true"]),
        (("input_x_gradient", "input"), "vit_b_16", {}, []),
        (("input_x_gradient", "input"), "vit_b_16", {"channels": "sum"}, ["channels: sum instead of abs_sum"]),
        (("input_x_gradient", "input"), "resnet18", {"channels": "abs_sum"}, ["channels: abs_sum instead of sum"]),
    ],
)
def test_settings_of_a_method_that_are_not_the_authors_are_named(method, network, changes, said):
    theirs = protocol.settings(*method, network)
    own = {**theirs, **changes}
    options = {"channels": own.pop("channels", "sum"), "reverse": None}
    assert protocol.unlike_settings(Entry("methods", "", "ours", method[0], own, options), theirs, network) == said


def test_a_method_with_other_settings_is_compared_and_they_are_named(known, paper):
    given = params.load(paper)
    given["methods"]["gradient"]["input_x_gradient"]["channels"] = "abs_sum"
    alike = [entry(known, "certified_unimportant", alpha=0.001)]
    found = published.joined(among(known, *alike, noise_15=AUTHORS), given)
    assert row(found, "gradcam", "certified_unimportant", 50).differs == []
    one = row(found, "input_x_gradient", "certified_unimportant", 50)
    assert one.differs == ["channels: abs_sum instead of sum"]


@pytest.mark.parametrize(
    ("images", "grids", "size", "of_images", "of_grids"),
    [
        ({}, {}, 224, [], []),
        ({"target": "prediction"}, {}, 224, ["prediction explained instead of label"], []),
        ({"target": "prediction", "correct_by": ["robust"]}, {}, 224, [], []),
        ({"count": 20}, {"count": 30}, 224, ["20 images"], ["30 grids"]),
        ({"count": 300}, {"count": 300}, None, [], []),
        ({"count": None}, {}, 224, [], []),
        ({}, {}, 64, ["images of 64 × 64 pixels"], ["tiles of 64 × 64 pixels"]),
    ],
)
def test_other_classes_numbers_and_sizes_are_said(known, paper, images, grids, size, of_images, of_grids):
    given = params.load(paper)
    about = given["classifiers"]["robust"]
    given["classifiers"]["robust"] = {
        **about,
        "images": {**about["images"], **images},
        "grids": {**about["grids"], **grids},
    }
    given["datasets"]["shapes"] |= {"size": size} if size else {}
    of = {"alpha": 0.001}
    metrics = [entry(known, "certified_unimportant", **of), entry(known, "grid_abstained", tile=0, **of)]
    found = published.joined(among(known, *metrics, noise_15=AUTHORS), given)
    assert row(found, "gradcam", "certified_unimportant", 50).differs == of_images
    assert row(found, "gradcam", "grid_abstained", 50).differs == of_grids


def test_the_side_of_a_transformer_is_its_own(known, paper):
    given = params.load(paper)
    given["classifiers"]["robust"]["network"] = {"family": "torchvision", "name": "vit_b_16", "side": 128}
    metric = entry(known, "certified_unimportant", alpha=0.001)
    found = published.joined(among(known, metric, noise_15=AUTHORS), given)
    assert row(found, "gradcam", "certified_unimportant", 50).differs == ["images of 128 × 128 pixels"]


def caveats(**at: str) -> set[str]:
    return {one["caveat"] for one in published.facts() if all(one[key] == value for key, value in at.items())}


def test_what_cannot_be_compared_or_is_inferred_is_said():
    lrp = "epsilon 0.25 in the paper, 1e-6 in its code"
    wide = "taken at layer2, not at the last layer"
    of = {"method": "lrp", "layer": "final", "metric": "certified_important"}
    assert caveats(network="wide_resnet50_2", **of) == {f"{wide}; {lrp}"}
    assert caveats(network="resnet152", **of) == {lrp}
    assert caveats(network="resnet18", method="gradcam", metric="certified_important") == {""}
    vit = "without the last LayerNorm before the head"
    of = {"network": "vit_b_16", "method": "gradcam", "metric": "abstained"}
    assert caveats(layer="input", **of) == {vit}
    assert caveats(layer="final", **of) == {f"{vit}; taken one block before the end"}
    assert all(one.startswith("class weights") for one in caveats(network="vgg11", method="cam"))
    copied = caveats(metric="certified_deletion", level="50") - caveats(metric="certified_deletion", level="30")
    assert copied
    assert all(one.endswith("so seemingly copied") for one in copied)
    assert all("inferred: the axis" in one for one in caveats(metric="grid_abstained"))
    poster = {one["source"] for one in published.facts() if "the level is 30%" in one["caveat"]}
    assert poster == {"authors' poster: trade-off plot (level inferred)"}


def test_every_caveat_is_of_a_number():
    said = "; ".join(one["caveat"] for one in published.facts())
    assert all(one["caveat"] in said for one in published._rows(published.CAVEATS))


def test_published_places_are_in_the_trade_off(known, paper, study):
    (game,) = known.of("certified_grid_pointing_game")
    found = certificates.traded(known, params.load(paper), game, "robust")
    of = {one.method: one.published for one in found["rows"]}
    # ResNet-18 at the top 30%: CAM at the input has both numbers of the poster, a control has none.
    assert of["gradcam"] == pytest.approx((0.86, 0.70), abs=0.006)
    assert of["cam"] == pytest.approx((0.25, 0.306), abs=0.0006)
    assert of["uniform"] is None
    assert found["published"]
    assert found["chart"].count("′") == len([one for one in of.values() if one])
    of_images = known._replace(metrics=[one for one in known.metrics if one.function != "grid_abstained"])
    assert not certificates.traded(of_images, params.load(paper), game, "robust")["published"]
    assert not certificates.traded(known, params.load(study), game, "robust")["published"]
    assert not certificates.traded(known, params.load(paper), game, "vanilla")["published"]
    strong = entry(known, game.name, tau=[0.6])
    assert published.places(known, params.load(paper), strong, "robust") == {}
    few = game._replace(options={**game.options, "level": 20})
    assert published.places(known, params.load(paper), few, "robust") == {}


def _public(family: str) -> list[str]:
    source = Path(params.__file__).parents[1] / "methods" / f"{family}.py"
    return re.findall(r"^def ([a-z]\w*)\(", source.read_text(), flags=re.MULTILINE)


# In a browser


@pytest.fixture
def page(browser, study):
    return visit(browser, study)


def test_the_pickers_choose_what_is_shown(page):
    from selenium.webdriver.support.select import Select

    def shown(selector: str, *names: str) -> list[tuple[str | None, ...]]:
        found = [one for one in find(page, selector) if one.is_displayed()]
        return [tuple(one.get_attribute(f"data-{name}") for name in names) for one in found]

    assert page.get_log("browser") == []
    assert shown("#certified .panel", "image") == [("vanilla/test_0000",)]
    assert len([one for one in find(page, "#certified .marked .none") if one.is_displayed()]) == 2 + len(LEVELS)
    classifier, image = (Select(one) for one in find(page, '#certified [data-picks$=".panel"] select'))
    classifier.select_by_visible_text("robust")
    image.select_by_value("robust/test_0002")
    assert shown("#certified .panel", "image") == [("robust/test_0002",)]
    pictures = [one for one in find(page, "#certified .panel img") if one.is_displayed()]
    assert len(pictures) == 1 + len(VOTED) * (2 + len(LEVELS))
    test, classifier, level = (Select(one) for one in find(page, '#certified [data-picks$=".numbers"] select'))
    classifier.select_by_visible_text("robust")
    level.select_by_value("10")
    assert shown("#certified .numbers", "classifier", "level") == [("robust", "10")]
    assert len(find(page, "#certified .numbers:not([hidden]) th.number")) == 8
    test.select_by_visible_text("noise_15, τ = 0.75, α = 0.05, holm")
    assert shown("#certified .numbers", "classifier", "level") == [("robust", "10")]
    assert len(find(page, "#certified .numbers:not([hidden]) th.number")) == 2
    assert shown("#certified .level", "entry") == [("certified_important",)]
    (swept,) = (Select(one) for one in find(page, '#certified [data-picks$=".level"] select'))
    swept.select_by_visible_text("sweep")
    assert shown("#certified .level", "entry") == [("sweep",)]
    # Where there is one entry there is nothing to choose.
    assert shown("#certified .sigma", "entry") == shown("#certified .tau", "entry") == [("sweep",)]
    assert not find(page, '#certified [data-picks$=".sigma"], #certified [data-picks$=".removal"]')


def test_every_mean_of_a_chart_has_its_count(page):
    page.execute_script('document.querySelectorAll("#certified details").forEach((one) => (one.open = true))')
    for selector, columns in ((".level .card table", 4 * len(LEVELS)), (".removal table", 2 * (1 + len(LEVELS)))):
        tables = [one for one in find(page, f"#certified {selector}") if one.is_displayed()]
        assert len(tables) == len(made_up.CLASSIFIERS)
        for one in tables:
            titles = [head.text for head in one.find_elements("css selector", "th.number")]
            assert len(titles) == columns
            assert set(titles[1::2]) == {"images"}
            cells = one.find_elements("css selector", "tbody tr")
            assert {row.find_elements("css selector", "td")[1].text for row in cells} <= {"0", "5"}


def test_no_picture_is_missing(page):
    page.execute_script("document.querySelectorAll('noscript').forEach(one => (one.outerHTML = one.textContent))")
    script = 'return [...document.querySelectorAll("#certified img")].map(one => [one.alt, one.naturalWidth])'
    found = page.execute_script(script)
    # An image each, and five pictures a method: one method is refused by the first classifier.
    assert len(found) == 2 * 3 + (2 * len(VOTED) - 1) * 3 * (2 + len(LEVELS))
    assert all(alt and width == made_up.SIDE for alt, width in found)
    assert all(one.get_attribute("aria-label") for one in find(page, "#certified svg[role=img]"))


@pytest.mark.parametrize("width", [1280, 390, 320])
def test_nothing_sticks_out(page, width):
    look(page, width=width)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width


def test_on_paper_no_table_is_cut_off(page):
    assert beyond(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(page, scheme):
    look(page, scheme=scheme)
    assert page.execute_script(CONTRAST) >= 4.5


@pytest.mark.parametrize(("sigma", "tau", "told"), [(0.25, 0.75, "0.168"), (0.15, 0.75, "0.101"), (0.15, 0.5, "0")])
def test_no_more_is_told_than_is_certified(known, sigma, tau, told):
    way = known.smoothings["noise_15"]
    test = certified_results.Test(way._replace(settings={**way.settings, "sigma": sigma}), tau, 0.001, "holm")
    assert test.reach == told
    assert float(test.reach) <= test.radius < float(test.reach) + 0.001
    assert test.place.endswith(f"radius {told}")
