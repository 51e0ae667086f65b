"""Texts that come from a user, in titles, classes, reasons and names of any length, are shown as they are."""

import json
import re
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure

from atlas.report.charts import curve_plot, dot_plot, theme
from atlas.report.images import image_sheet
from atlas.report.images.gallery import Shown
from atlas.study import params
from stages import aggregate, report
from tests.support import made_up
from tests.support.reported import browser, find, housed, look, visit  # noqa: F401

# What Matplotlib takes for mathematics and cannot read, and what has a meaning in HTML, LaTeX and Markdown.
STRANGE = "A $5^{ of <b>$_\\frac{ & \"quotes\" 'too' 100% #1 ~ ^ \\ | `code` *stars* {x}"
LONG = "method_" + "of_a_name_that_never_ends_" * 3
CLASSIFIER = "classifier_" + "x" * 69
WIDE = """
return [...document.querySelectorAll("body *")].filter((one) => one.getBoundingClientRect().right > arguments[0] + 1
  && !one.closest(".scroll") && !one.closest("nav")).slice(0, 12).map((one) => one.outerHTML.slice(0, 120));
"""
REASON = f"it cannot: {STRANGE}"


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        listed = {family: list(names) for family, names in made_up.METHODS.items()}
        listed["gradient"][0], listed["cam"][1], listed["control"][2] = (f"{LONG}{end}" for end in "abc")
        patch.setattr(made_up, "METHODS", listed)
        patch.setattr(made_up, "CLASSIFIERS", [CLASSIFIER, "robust"])
        patch.setattr(made_up, "UNSUPPORTED", {(CLASSIFIER, "layercam"): REASON})
        patch.setattr(made_up, "_similarity", _similarity(listed["gradient"][0]))
        with housed(tmp_path_factory, made_up) as folder:
            given = yaml.safe_load((folder / "params.yaml").read_text())
            given["report"] |= {"title": STRANGE, "question": f"Why {STRANGE}?"}
            (folder / "params.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
            for name in made_up.CLASSIFIERS:
                card = params.path(folder, "classifiers", name) / "card.json"
                known = json.loads(card.read_text())
                known["classes"] = [f"{STRANGE} {number}" if number else "y" * 80 for number in range(8)]
                card.write_text(json.dumps(known))
            aggregate.main(folder)
            report.main(folder)
            yield folder


def _similarity(first: str):
    """Write similarities as the made-up study does, of a study whose first method has another name."""
    written = made_up._similarity

    def write(folder, classifier, images, rng):
        names = made_up.METHODS
        made_up.METHODS = {**names, "gradient": ["saliency", *names["gradient"][1:]]}
        try:
            written(folder, classifier, images, rng)
        finally:
            made_up.METHODS = names
        import zarr

        group = zarr.open_group(params.path(folder, "similarity", classifier), mode="r+")
        for dim in ("method", "other"):
            kept = [first if name == "saliency" else str(name) for name in group[dim][:]]
            from atlas.cache.stores import array

            del group[dim]
            array(group, dim, np.array(kept), (dim,), {})

    return write


@pytest.fixture(scope="module")
def text(study) -> str:
    return (study / "data/report/index.html").read_text()


def test_strange_texts_are_escaped_on_the_page(text):
    escaped = STRANGE.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = escaped.replace('"', "&#34;").replace("'", "&#39;")
    assert f"<h1>{escaped}</h1>" in text
    assert f'<p class="question">Why {escaped}?</p>' in text
    assert f"<td>it cannot: {escaped}</td>" in text
    assert f'<strong><span title="{escaped} 1">' in text  # longer than there is room for
    assert "<b>" not in text


def test_every_chart_is_well_formed_and_no_dollar_sign_is_mathematics(text):
    charts = re.findall(r"<svg role.*?</svg>", text, flags=re.DOTALL)
    assert len(charts) > 20
    for chart in charts:
        ET.fromstring(chart.replace("xlink:href", "href"))


def test_strange_texts_are_escaped_in_tables_for_papers(study):
    folder = zipfile.Path(study / "data/report/tables.zip", "tables/")
    tex = (folder / CLASSIFIER / "insertion.tex").read_text()
    told = (
        r"A \$5\textasciicircum{}\{ of $<$b$>$\$\_\textbackslash{}frac\{ \& ''quotes'' 'too' 100\% \#1 "
        r"\textasciitilde{} \textasciicircum{} \textbackslash{} \textbar{} `code` *stars* \{x\}"
    )
    assert f"it cannot: {told}" in tex
    assert LONG.replace("_", r"\_") in tex
    markdown = (folder / CLASSIFIER / "insertion.md").read_text()
    assert (
        r"it cannot: A \$5^{ of &lt;b>\$\_\\frac{ &amp; "
        "\"quotes\" 'too' 100% #1 \\~ ^ \\\\ \\| \\`code\\` \\*stars\\* {x}"
    ) in markdown


def test_names_of_any_length_leave_room_for_what_they_name(text):
    chart = text[text.index('id="metric_insertion"') :]
    chart = chart[chart.index("<svg") : chart.index("</svg>")]
    assert float(re.search(r'viewBox="0 0 ([\d.]+)', chart)[1]) / 72 < 5
    names = [name for name in re.findall(">([^<]+)</text>", chart) if name.startswith("method_")]
    assert {name[-1] for name in names} == set("abc")
    assert all("…" in name and theme.breadth(name, theme.TEXT) <= theme.LONGEST for name in names)
    line = curve_plot.Line(LONG, *np.tile([0.2, 0.4, 0.3], (3, 1)))
    frame = curve_plot.Frame(np.array([0, 0.5, 1]), [], "x", "", 0, 1)
    drawn = curve_plot.chart(frame, [line, line._replace(name=f"{LONG}b")], [], "long", "alt")
    assert float(re.search(r'viewBox="0 0 ([\d.]+)', drawn)[1]) / 72 == pytest.approx(curve_plot.WIDTH)
    assert theme.shortened("short", theme.TEXT, 2) == "short"
    cut = theme.shortened(LONG, theme.TEXT, 2)
    assert theme.breadth(cut, theme.TEXT) <= 2
    assert re.fullmatch("method_.*….*ends_", cut)


def test_powers_of_ten_on_an_axis_are_no_mathematics_either():
    with theme.style("powers"):
        axes = Figure().add_subplot()
        axes.plot([1e-3, 10.0], [0, 1])
        dot_plot.scale(axes, np.array([1e-3, 10.0]))
        told = theme.ticks(axes.xaxis)
    assert {"10⁻³", "10⁰", "10¹"} <= set(told)
    assert not any("$" in one for one in told)


def test_a_sheet_of_maps_bears_a_strange_class_and_long_names():
    shown = Shown("y" * 80, STRANGE, np.zeros((3, 8, 8), np.uint8), {LONG: np.eye(8)})
    assert image_sheet.png(image_sheet.figure(shown, [LONG, "x" * 80], set(), None)).startswith(b"\x89PNG")


def test_long_names_do_not_break_the_page(browser, study):  # noqa: F811
    for width in (1280, 400):
        page = visit(browser, study)
        look(page, width=width)
        across = page.execute_script("return document.documentElement.scrollWidth")
        wide = page.execute_script(WIDE, width)
        assert across <= width, (width, wide)
    look(browser)
    assert find(browser, ".answer li")
    assert browser.get_log("browser") == []
