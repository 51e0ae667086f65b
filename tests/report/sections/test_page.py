"""The report as a reader meets it: in a browser, wide, on a phone, in the dark, on paper."""

import re
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import yaml

from atlas.report import sorting
from atlas.report.charts.theme import SMALL, breadth
from atlas.report.charts.tradeoff import LINE, box, free
from atlas.report.sections import costs, sample_size
from atlas.report.sections.costs import Costly
from atlas.study import params
from atlas.study.errors import UserError
from stages import aggregate, report
from tests.support import made_up, reported, scores
from tests.support.reported import CONTRAST, beyond, find, housed, look, visit
from tests.support.results import opened
from tests.support.study import files

browser = reported.browser


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    with housed(tmp_path_factory, made_up) as folder:
        aggregate.main(folder)
        report.main(folder)
        yield folder


@pytest.fixture(scope="module")
def text(study) -> str:
    return (study / "data/report/index.html").read_text()


def test_the_page_needs_nothing_but_itself(text):
    assert re.findall(r'(?:<a )?(?:src|href)="(?!data:|#)[^"]*"', text) == ['<a href="tables.zip"']  # nothing is loaded
    assert "@import" not in text
    assert not re.findall(r"url\((?!#)", text)


def test_what_does_not_apply_is_told_with_its_reason(text):
    assert "n/a" in text
    assert (
        "Striped: not ranked, as fewer than 1 images, or grids, have a score, or share one with all that are ranked, "
        "or as all tie." in text
    )
    assert "and so none is ranked" not in text
    assert text.count(made_up.UNSUPPORTED["vanilla", "cam"]) == 1
    assert (
        "a method that lacks more rankings than it has is not called best: cam (7 of 14 rankings), "
        "uniform (12 of 14 rankings)." in text
    )
    assert '<span class="name">max_sensitivity</span> does not score <span class="name">uniform</span>' in text


def test_equal_results_give_equal_bytes_and_one_classifier_is_enough(study, tmp_path):
    before = files(study / "data/report")
    assert set(before) == {"index.html", "atlas.png", "leaderboard.md", "tables.zip"}
    file, told = re.search(
        '<a href="(tables[^"]*)">.*?<code>(tables/[^<]*)</code>', before["index.html"].decode()
    ).groups()
    with zipfile.ZipFile(study / "data/report" / file) as packed:
        assert packed.read(told).startswith(b"% \\usepackage{booktabs}")
    report.main(study)
    assert before == files(study / "data/report")
    alone = Path(shutil.copytree(study, tmp_path / "study"))
    given = yaml.safe_load((alone / "params.yaml").read_text())
    del given["classifiers"]["vanilla"], given["metrics"]["faithfulness"]
    given["report"]["title"] = "<Alone> & well"
    given["aggregate"] |= {"weights": "metrics", "min_count": 2}
    for family in made_up.METHODS:
        store = params.path(alone, "scores", "robust", family)
        scores.change(store, "grid_pointing_game", "score", (slice(None), slice(4, None)), float("nan"))
        scores.change(store, "max_sensitivity", "score", (slice(None), slice(1, None)), float("nan"))
    (alone / "params.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
    aggregate.main(alone)
    report.main(alone)
    page = (alone / "data/report/index.html").read_text()
    assert "<h1>&lt;Alone&gt; &amp; well</h1>" in page
    assert "Every method could serve every classifier.</p>" in page
    few = "none is ranked, as all tie, or as methods have no scores on 2 or more images, or grids, or not on the same "
    few += 'ones, by <span class="name">max_sensitivity</span> (at most 1 image has a score).</p>'
    assert f'On <span class="name">robust</span> {few}' in page
    assert 'data-value="1">1 image</td>' in page
    assert 'id="curves"' not in page
    assert 'id="pairs"' not in page
    assert "boxes_" not in page
    assert 'n/a <span class="soft">fewer than 5 grids have a score</span>' in page
    assert "lines are 95% intervals of the mean, Hall’s" in page
    assert "resamples of the images (or whole grids), for intervals of ranks at 95%" in page
    packed = zipfile.Path(alone / "data/report/tables.zip", "tables/")
    told = (packed / "robust" / "sparseness.md").read_text()
    assert "95 % intervals (means: Hall’s for skewed scores, Agresti and Coull’s for hits)" in told
    assert "In a mean rank all single metrics count the same" in page
    assert "1 is best of 14; metrics count the same" in (packed / "overall_rank.md").read_text()


def test_cost_is_set_against_quality(study, text):
    cost = opened(study, "cost")
    section = text[text.index('<section id="cost"') : text.index('<section id="pairs"')]
    alts = re.findall(r'aria-label="(Mean rank against passes [^"]*)"', section)
    assert len(alts) == 2
    for classifier, alt in zip(made_up.CLASSIFIERS, alts, strict=True):
        assert f"on {classifier}; on the front, the fewest passes first: " in alt
        front = cost["front"].sel(classifier=classifier)
        told = re.findall(r"(\w+) \(([\d]+) pass(?:es)?, mean rank", alt)
        assert {name for name, _ in told} == set(front["method"].values[front.values == 1])
        assert [int(passes) for _, passes in told] == sorted(sum(made_up.cost(name)[:2]) for name, _ in told)
    assert section.count('<span class="chip">front</span>') == int(cost["front"].sum())
    row = (
        '<span class="name">occlusion</span>.*?data-value="2049.0">2,049</td><td class="number" data-value="0.0">0</td>'
    )
    assert re.search(row, section)
    row = '<span class="name">max_sensitivity</span></th>(?:<td class="number" data-value="0.0">0</td>){3}'
    assert re.search(row + '<td class="number" data-value="10.0">10</td>', section)
    assert re.search('<span class="name">cam</span></th>(?:<td class="number" data-value="">n/a</td>){4}', section)
    assert '<a href="#cost">' in text


def test_the_noise_that_belongs_last_is_called_noise(text):
    section = text[text.index('<section id="sanity"') : text.index('<section id="agreement"')]
    assert "puts a map of noise last, and edges, which know the image alone, before it." in section
    assert "uniform</span> is last in" in section


def test_who_is_not_in_a_chart_is_told_and_who_has_no_dot_has_a_word(text):
    assert "Not in the chart, without a cost or a mean rank: cam." in text
    card = text[text.index('id="metric_max_sensitivity"') :]
    (uniform,) = re.findall("<text[^>]*>n/a</text>", card[: card.index("</article>")])
    assert uniform
    assert "they are not adjusted across metrics and classifiers" in text


def test_families_of_metrics_have_a_table_of_mean_ranks(study, text):
    summary = opened(study, "summary").sel(classifier="robust")
    for family in made_up.METRICS:
        start = text.index(f'<details id="family_{family}">')
        table = text[start : text.index("</details>", start)]
        for method in (name for listed in made_up.METHODS.values() for name in listed):
            (row,) = re.findall(rf'<tr[^>]*><th scope="row" data-value="{method}">.*?</tr>', table, re.DOTALL)
            *_, rank, number = re.findall(r'<td class="number" data-value="([^"]*)">', row)
            cell = summary.sel({"method": method, "family": family})
            if np.isnan(cell["family_rank"]):
                assert rank == ""
            else:
                assert float(rank) == float(cell["family_rank"])
            assert int(number) == int(cell["family_rank_metrics"])
    assert "0 of 1</td>" in text[text.index('id="family_robustness"') :]


def test_numbers_can_be_traced_to_the_keys_of_their_scores(study, text, tmp_path):
    trace, summary = text[text.index('<section id="trace"') :], opened(study, "summary")
    assert '<span class="name">deletion_smoothness</span>' in trace
    digests = summary["key_digest"].sel(metric="deletion").values.tolist()
    assert len(set(digests)) == 2
    for classifier, digest in zip(made_up.CLASSIFIERS, digests, strict=True):
        assert f'<span class="name">{classifier}</span> <code>{digest[:12]}</code>' in trace
    other = Path(shutil.copytree(study, tmp_path / "study"))
    scores.change(params.path(other, "scores", "robust", "cam"), "deletion", "key", (0, 0, 0), 7)
    aggregate.main(other)
    changed = opened(other, "summary")["key_digest"] != summary["key_digest"]
    assert changed.sel(classifier="robust").values.tolist() == [
        name.startswith("deletion") for name in summary["metric"].values.tolist()
    ]
    assert not changed.sel(classifier="vanilla").any()


def test_what_takes_no_pass_stands_apart_from_the_scale_and_names_lie_inside():
    numbers = [0, 1, 2, 3, 10, 5000]
    listed = [
        Costly(f"a_method_of_{n}", "one", n == 0, n, 0, 0, rank, rank - 1, rank + 1, n > 0)
        for rank, n in zip(range(6, 0, -1), numbers, strict=True)
    ]
    listed.append(Costly("unknown", "one", False, *[np.nan] * 6, False))
    drawn = costs.chart(listed, ["one"], "vanilla")
    assert costs.place(0) < costs.BEGINS < costs.place(1) == 0 < costs.place(10) == 1
    texts = re.findall(r'<text[^>]* x="([-\d.]+)" y="([-\d.]+)"[^>]*>([^<]*)</text>', drawn)
    at = {text: float(x) for x, _, text in texts if re.fullmatch(r"[\d,]+", text) and float(x) > 72 * costs.LEFT}
    assert list(at) == ["0", "1", "10", "100", "1,000"]
    assert np.diff(list(at.values())[1:]) == pytest.approx(at["10"] - at["1"])
    names = {text: (float(x), float(y)) for x, y, text in texts if text.startswith("a_method")}
    assert set(names) == {f"a_method_of_{number}" for number in numbers[1:]}, "those of the front"
    boxes = [box(np.array(center), 36 * breadth(name, SMALL), LINE / 2) for name, center in names.items()]
    apart = [free(one, boxes[:place], (72 * costs.WIDTH, 72 * costs.HEIGHT)) for place, one in enumerate(boxes)]
    assert all(apart)


def test_what_costs_nothing_known_has_no_chart(study):
    tables = [opened(study, name).load() for name in ("cost", "summary")]
    tables[0] = tables[0].where(tables[0]["classifier"] == "robust").assign(front=tables[0]["front"])
    with ThreadPoolExecutor(1) as processes:
        shown = costs.section(*tables, processes)["shown"]
    assert [one["classifier"] for one in shown] == ["robust"]
    assert [name for name, _ in shown[0]["metrics"]] == [name for one in made_up.METRICS.values() for name in one]


@pytest.mark.parametrize(
    ("section", "name", "kind"),
    [("methods", "perturbation", "method"), ("classifiers", "robust", "classifier"), ("metrics", "grid", "metric")],
)
def test_results_of_other_names_are_not_reported(study, tmp_path, section, name, kind):
    other = Path(shutil.copytree(study, tmp_path / "study"))
    given = yaml.safe_load((other / "params.yaml").read_text())
    del given[section][name]
    (other / "params.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
    with pytest.raises(UserError, match=rf"made for other {kind}s than params\.yaml's; run stages\.aggregate"):
        report.main(other)
    file = other / "data/results/results.zarr.zip"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"results\.zarr\.zip: cannot be read .*; run stages\.aggregate again"):
        report.main(other)


def test_the_leaderboard_for_a_readme(study):
    lines = (study / "data/report/leaderboard.md").read_text().splitlines()
    assert lines[0] == "|  | method | family | mean rank | of rankings | on vanilla | on robust |"
    assert len(lines) == 2 + 14
    assert lines[-2].startswith("| 13 | `canny` | control |")
    assert lines[-1].startswith("| 14 | `uniform` | control |")
    (cam,) = (line for line in lines if "`cam`" in line)
    assert cam.split(" | ")[4:6] == ["7 of 14", "n/a"]


def test_neither_verb_imports_torch():
    code = "import sys, stages.aggregate, stages.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=False).returncode == 0


# In a browser


@pytest.fixture
def page(browser, study):
    return visit(browser, study)


def test_the_browser_has_no_complaints(page):
    assert page.get_log("browser") == []
    assert page.title == "Made up"
    assert len(find(page, "svg[role=img]")) > 10


def test_the_answer_comes_first_and_controls_are_marked(page):
    said = page.find_element("css selector", ".answer li").text
    assert re.match(
        r"\w+ has the best mean rank: [\d.]+ of 14 methods over 14 rankings by 7 metrics on 2 classifiers", said
    )
    page.find_element("css selector", "#metric_insertion summary").click()
    marked = {row.find_element("css selector", "th").get_attribute("data-value") for row in find(page, "tr.control")}
    assert marked == set(made_up.METHODS["control"])


def test_counts_of_defined_scores_are_shown(page):
    card = page.find_element("css selector", "#metric_pointing_game")
    card.find_element("css selector", "summary").click()
    (row,) = (row for row in card.find_elements("css selector", "tbody tr") if row.text.startswith("rise"))
    assert "23 of 24" in row.text
    (row,) = (row for row in card.find_elements("css selector", "tbody tr") if row.text.startswith("cam"))
    assert row.text.split()[1:5] == ["n/a", "n/a", "n/a", "0"]


@pytest.mark.parametrize("metric", ["deletion", "sparseness"])
def test_a_leaderboard_says_how_far_behind_the_best_methods_are(page, study, metric):
    card = page.find_element("css selector", f"#metric_{metric}")
    card.find_element("css selector", "summary").click()
    summary, contrasts = (opened(study, name).sel(metric=metric) for name in ("summary", "contrasts"))
    sign = 1 if metric == "deletion" else -1
    for place, classifier in enumerate(made_up.CLASSIFIERS):
        here, pairs = summary.sel(classifier=classifier), contrasts.sel(classifier=classifier)
        best = str(here["method"].values[np.nanargmin(here["rank"])])
        for row in card.find_elements("css selector", "tbody tr"):
            name, *cells = row.find_elements("css selector", "th, td")
            method, cell = name.get_attribute("data-value"), cells[5 * place + 1]
            if method == best:
                assert cell.text == "best"
                continue
            if np.isnan(here["rank"].sel({"method": method})):
                assert cell.text == "n/a"
                continue
            pair = pairs.sel({"method": method, "method_other": best})
            value = float(cell.get_attribute("data-value"))
            assert value == pytest.approx(sign * float(pair["difference"]))
            assert value > 0
            told, low, high = (float(text) for text in cell.text.replace("−", "-").replace(" to ", " ").split())
            ends = sorted(sign * float(pair[f"difference_{end}"]) for end in ("low", "high"))
            assert [told, low, high] == pytest.approx([value, *ends], rel=0.06)


def test_agreement_between_images_is_shown(page, study):
    agreement = opened(study, "agreement")
    (table,) = (one for one in find(page, "#agreement table.heat.wide") if one.is_displayed())
    columns = [one.text for one in table.find_elements("css selector", "thead th")]
    assert columns == made_up.CLASSIFIERS
    rows = {row.text.split()[0]: row.text.split()[1:] for row in table.find_elements("css selector", "tbody tr")}
    assert list(rows) == agreement["metric"].values.tolist()
    for metric, told in rows.items():
        alpha = agreement["krippendorff"].sel(metric=metric).values
        np.testing.assert_allclose([float(text.replace("−", "-")) for text in told], alpha, atol=0.0051)
    (cell, *_) = table.find_elements("css selector", "td[title]")
    assert re.fullmatch(r"pointing_game and vanilla: 0\.\d{3} over 299 ranks", cell.get_attribute("title"))
    (details,) = (one for one in find(page, "#agreement details") if "over the images of a method" in one.text)
    details.find_element("css selector", "summary").click()
    (figure,) = (one for one in details.find_elements("css selector", "figure") if one.is_displayed())
    assert figure.get_attribute("data-classifier") == "vanilla"
    titles = [one.get_attribute("title") for one in figure.find_elements("css selector", "td[title]")]
    found = agreement.sel(classifier="vanilla", metric="deletion", metric_other="sparseness")
    assert f"deletion and sparseness: {float(found['spearman_images']):.3f} over 13 methods" in titles
    assert "wsl and grid_pointing_game: undefined (0 methods)" in titles


def test_how_many_images_are_enough_is_shown(page, study):
    precision = opened(study, "precision").sel(classifier="vanilla")
    (table,) = (one for one in find(page, "#enough table") if one.is_displayed())
    for row in table.find_elements("css selector", "tbody tr"):
        name, scored, width, spread, share, number = (one.text for one in row.find_elements("css selector", "th, td"))
        here = precision.sel(metric=name)
        unit = "grids" if name == "grid_pointing_game" else "images"
        assert scored == f"{int(here['units'])} {unit}"
        wanted = [float(here[variable]) for variable in ("width_now", "spread")]
        assert [float(width), float(spread)] == pytest.approx(wanted, rel=0.006)
        assert float(share) == pytest.approx(wanted[0] / wanted[1], rel=0.06)
        assert float(number) == float(here["sample_size"])
    said = page.find_element("css selector", "#enough .chosen p").text
    reached = int((precision["sample_size"] <= precision["units"]).sum())
    assert said == f"On vanilla {reached} of 7 metrics have enough images, or grids."


def test_why_no_number_is_enough_is_told(study):
    precision, summary = opened(study, "precision"), opened(study, "summary")
    at = {"classifier": "robust", "metric": "deletion"}

    def told(**numbers: float) -> dict:
        other = precision.copy(deep=True)
        for name, value in {"sample_size": np.nan, **numbers}.items():
            other[name].loc[at] = value
        (rows,) = (one["rows"] for one in sample_size.sample_sizes(other, summary) if one["classifier"] == "robust")
        (row,) = (row for row in rows if row["metric"] == "deletion")
        return row

    assert told(sample_size=50)["reason"] == ""
    assert told()["reason"] == "more than 5000"
    assert told(width_count=0, width_now=np.nan)["reason"] == "fewer than 5 images have a score"
    assert told(width_now=0.0)["reason"] == "most methods have one score everywhere"
    assert told(spread=0)["reason"] == "there is one method, or all means are equal"
    assert np.isnan(told(spread=0)["share"])
    assert told(spread=np.nan, spread_count=1)["reason"] == told(spread=0)["reason"]
    none = {"spread": np.nan, "spread_count": 0, "width_count": 0, "units": 0}
    assert told(**none)["reason"] == "it ranks no method but controls"
    summary["rank"].loc[at] = np.nan
    assert told(**none)["reason"] == "it ranks no method: no method is before another"
    summary["rank_count"].loc[at] = 0
    for number, words in ((24, "at most 24 images have"), (1, "at most 1 image has"), (0, "no image has")):
        summary["count"].loc[at] = number
        assert told(**none)["reason"] == f"it ranks no method: {words} a score"
        assert told(**none)["units"] == number


def test_metrics_that_rank_nobody_are_told_with_the_number_of_their_scores(study):
    summary = opened(study, "summary")
    assert sorting.unranked(summary) == {}
    for metric in ("deletion", "grid_pointing_game"):
        summary["rank"].loc[{"classifier": "robust", "metric": metric}] = np.nan
    tied = dict.fromkeys(("deletion", "grid_pointing_game"), "no method is before another")
    assert sorting.unranked(summary) == {"robust": tied}
    for metric in tied:
        summary["rank_count"].loc[{"classifier": "robust", "metric": metric}] = 0
    told = {"deletion": "at most 24 images have a score", "grid_pointing_game": "at most 24 tiles have a score"}
    assert sorting.unranked(summary) == {"robust": told}
    summary["asked"].loc[{"classifier": "robust", "metric": "deletion"}] = 0
    assert list(sorting.unranked(summary)["robust"]) == ["grid_pointing_game"]


@pytest.mark.parametrize("column", [0, 1])
def test_tables_are_sorted_by_a_click_and_empty_cells_stay_last(page, column):
    card = page.find_element("css selector", "#metric_insertion")
    card.find_element("css selector", "summary").click()

    def cells() -> list[str]:
        rows = card.find_elements("css selector", "tbody tr")
        return [row.find_elements("css selector", "th, td")[column].get_attribute("data-value") for row in rows]

    for direction in ("ascending", "descending"):
        card.find_element("css selector", f'th[data-column="{column}"] button').click()
        head = card.find_element("css selector", f'th[data-column="{column}"]')
        assert head.get_attribute("aria-sort") == direction
        found = cells()
        known = [value for value in found if value]
        assert len(known) == 14 - column  # cam has no mean on the first classifier
        key = float if column else str
        assert known == sorted(known, key=key, reverse=direction == "descending")
        assert found[: len(known)] == known


def test_the_gallery_shows_the_chosen_image_and_classifier(page):
    from selenium.webdriver.support.select import Select

    def shown() -> list[str]:
        return [one.get_attribute("data-image") for one in find(page, "#gallery .panel") if one.is_displayed()]

    assert shown() == ["vanilla/test_0000"]
    classifier, image = (Select(one) for one in find(page, "#gallery select"))
    image.select_by_value("vanilla/test_0002")
    assert shown() == ["vanilla/test_0002"]
    classifier.select_by_visible_text("robust")
    assert shown() == ["robust/test_0000"]
    assert len([one for one in find(page, "#gallery .panel img") if one.is_displayed()]) == 15
    classifier.select_by_visible_text("vanilla")
    assert len([one for one in find(page, "#gallery .panel img") if one.is_displayed()]) == 14
    assert len([one for one in find(page, "#gallery .none") if one.is_displayed()]) == 1


def test_what_is_not_shown_is_text_until_it_is_chosen(page):
    from selenium.webdriver.support.select import Select

    assert not find(page, "#metric_insertion td")
    page.find_element("css selector", "#metric_insertion summary").click()
    assert len(find(page, "#metric_insertion td")) > 14
    _, image = (Select(one) for one in find(page, "#gallery select"))
    assert len(find(page, "#gallery img")) == 14
    image.select_by_value("vanilla/test_0001")
    assert len(find(page, "#gallery img")) == 2 * 14
    kept = page.execute_script("return [...document.querySelectorAll('noscript')].map(one => one.parentElement)")
    assert kept
    assert not any(part.is_displayed() for part in kept if part.tag_name != "details")


def test_pictures_have_words_and_pixels(page):
    page.execute_script("document.querySelectorAll('noscript').forEach(one => (one.outerHTML = one.textContent))")
    script = "return [...document.images].map(one => [one.alt, one.naturalWidth])"
    found = page.execute_script(script)
    assert len(found) == 2 * 3 * 15 - 3
    assert all(alt and width == made_up.SIDE for alt, width in found)
    assert all(one.get_attribute("aria-label") for one in find(page, "svg[role=img]"))
    assert not find(page, "svg:not([role=img]):not([aria-hidden])")


@pytest.mark.parametrize("width", [1280, 768, 390, 320])
def test_nothing_sticks_out_at_any_width(page, width):
    look(page, width=width)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(page, scheme):
    """WCAG AA asks for a contrast of 4.5; shaded cells are the hard ones."""
    look(page, scheme=scheme)
    paper = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") is (scheme == "light")
    assert page.execute_script(CONTRAST) >= 4.5


def test_charts_follow_the_dark(page):
    script = """const text = document.querySelector("#answer svg[role=img] text");
    return getComputedStyle(text).fill"""
    fills = []
    for scheme in ("light", "dark"):
        look(page, scheme=scheme)
        fills.append(page.execute_script(script))
    assert fills[0] != fills[1]


def test_paper_has_no_controls_to_click(page):
    look(page, media="print")
    assert not any(one.is_displayed() for one in find(page, "nav, .bar"))
    assert page.find_element("css selector", "#answer svg[role=img]").is_displayed()
    assert all(one.is_displayed() for one in find(page, "#pairs .boxes"))


def test_on_paper_no_table_is_cut_off_however_many_metrics_there_are(page):
    assert beyond(page) == []
    counts = """return [...document.querySelectorAll("table.heat")].map((one) =>
      [Number(one.style.getPropertyValue("--n")), one.rows[0].cells.length - 1])"""
    told = page.execute_script(counts)
    assert told
    assert all(number == columns for number, columns in told)
    page.execute_script("""for (const one of document.querySelectorAll("#agreement table.heat:not(.wide)")) {
      for (const row of one.rows) for (let i = 0; i < 40; i++) row.append(row.lastElementChild.cloneNode(true));
      one.style.setProperty("--n", one.rows[0].cells.length - 1); }""")
    assert beyond(page) == []


@pytest.mark.parametrize("width", [1280, 1024, 768, 660])
def test_every_section_is_named_above_and_a_click_shows_its_heading(page, width):
    look(page, width=width)
    script = "return [...document.querySelectorAll('nav a')].map(one => one.getBoundingClientRect().right)"
    assert max(page.execute_script(script)) <= width
    page.find_element("css selector", 'nav a[href="#similarity"]').click()
    script = "return ['nav', '#similarity_h'].map(one => document.querySelector(one).getBoundingClientRect())"
    bar, heading = page.execute_script(script)
    assert bar["top"] == 0
    assert bar["bottom"] <= heading["top"]


def test_boxes_of_the_chosen_family_of_metrics_are_shown_with_what_is_left_out(page):
    from selenium.webdriver.support.select import Select

    def shown() -> list[str]:
        return [one.get_attribute("id") for one in find(page, "#pairs .boxes") if one.is_displayed()]

    assert len(find(page, "#pairs .boxes")) == 7
    assert shown() == ["boxes_pointing_game", "boxes_wsl"]
    (family,) = (Select(one) for one in find(page, "#pairs select"))
    family.select_by_visible_text("faithfulness")
    assert shown() == ["boxes_deletion", "boxes_insertion"]
    card = page.find_element("css selector", "#boxes_deletion")
    assert len(card.find_elements("css selector", "svg[role=img]")) == 1  # no front of two classifiers
    assert "1 left out on vanilla" in card.text
    card.find_element("css selector", "summary").click()
    assert "Not ranked on vanilla, and left out: cam." in card.text
    boxes, standings = card.find_elements("css selector", "table")
    rows = [row.text for row in boxes.find_elements("css selector", "tbody tr")]
    assert [row.split()[0] for row in rows] == ["all", "gradient", "cam", "perturbation"]
    assert " 10 of 11 " in rows[0]
    assert " 3 of 4 " in rows[2]
    known = [row.text.split()[:3] for row in standings.find_elements("css selector", "tbody tr")]
    assert known == [["vanilla", "97.0%", "4.0%"], ["robust", "91.0%", "66.0%"]]
