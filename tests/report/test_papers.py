"""Leaderboards as tables for papers: every number is the summary's, every table is well-formed."""

import re

import numpy as np
import pytest
import xarray as xr

from atlas.report import papers
from atlas.report.sorting import ranking_metrics, shared
from atlas.study.schema import signatures
from stages import aggregate
from tests.support import made_up
from tests.support.results import opened

NUMBER = re.compile(r"−?\d+(?:\.\d+)?")
METHODS = [name for listed in made_up.METHODS.values() for name in listed]


@pytest.fixture(scope="module")
def summary(tmp_path_factory) -> xr.Dataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signatures, "HOUSE", made_up.house(tmp_path_factory.mktemp("house") / "atlas"))
        signatures.signature.cache_clear()
        folder = made_up.study(tmp_path_factory.mktemp("study"))
        aggregate.main(folder)
    signatures.signature.cache_clear()
    return opened(folder).load()


@pytest.fixture(scope="module")
def made(summary) -> dict[str, str]:
    return papers.tables(summary)


def rows(text: str) -> dict[str, list[str]]:
    """The cells of a table in LaTeX or Markdown by method, without what makes them bold or raised."""
    found = {}
    for line in text.splitlines():
        if (head := re.match(r"(?:\\texttt\{([^}]*)\}|\| `(\w+)`)", line.replace(r"\_", "_"))) is None:
            continue
        cells = re.split(r" & | \| ", line.removesuffix(r" \\").removesuffix(" |"))[1:]
        plain = [re.sub(r"\\textbf\{(.*?)\}|\*\*(.*?)\*\*", r"\1\2", cell) for cell in cells]
        plain = [re.sub(r"\\textsuperscript\{\w+\}|<sup>\w+</sup>", "", cell) for cell in plain]
        found[head[1] or head[2]] = [cell.replace("$-$", "−") for cell in plain]
    return found


def test_there_is_a_table_of_every_leaderboard(summary, made):
    names = {"overall_rank", *made_up.CLASSIFIERS}
    listed = [*ranking_metrics(summary), "mean_rank", *(f"family_{family}" for family in made_up.METRICS)]
    names |= {f"{one}/{name}" for one in made_up.CLASSIFIERS for name in listed}
    assert set(made) == {f"{name}.{end}" for name in names for end in ("tex", "md")}
    assert papers.tables(summary) == made


def test_environments_are_balanced_and_rows_have_all_columns(made):
    for name, text in made.items():
        if name.endswith(".md"):
            lines = [line for line in text.splitlines() if line.startswith("|")]
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1, name
            continue
        opened: list[str] = []
        for word, environment in re.findall(r"\\(begin|end)\{([a-z*]+)\}", text):
            if word == "begin":
                opened.append(environment)
            else:
                assert opened.pop() == environment, name
        assert not opened
        columns = len(re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)[1])
        lines = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert len(lines) == 1 + len(METHODS)
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {columns}, name
        body = re.sub(r"\\[#$%&_{}\\]", "", text)
        assert body.count("{") == body.count("}"), name
        assert body.count("$") % 2 == 0, name
        assert body.isascii(), name
        outside = re.sub(r"\$[^$]*\$|\\label\{[^}]*\}|^%.*", "", body, flags=re.MULTILINE)
        assert not re.search(r"[_^#%]", outside), name
        assert [word for word in ("toprule", "midrule", "bottomrule") if f"\\{word}" not in text] == []


@pytest.mark.parametrize("end", ["tex", "md"])
def test_numbers_are_those_of_the_summary(summary, made, end):
    for classifier in made_up.CLASSIFIERS:
        for metric in ranking_metrics(summary):
            told, one = rows(made[f"{classifier}/{metric}.{end}"]), summary.sel(classifier=classifier, metric=metric)
            assert set(told) == set(METHODS)
            ranks = []
            for method, (mean, count, rank, *letters) in told.items():
                cell = summary.sel({"classifier": classifier, "metric": metric, "method": method})
                agree(mean, [float(cell[name]) for name in ("mean", "low", "high")])
                agree(rank, [float(cell[name]) for name in ("rank", "rank_low", "rank_high")])
                assert letters == ([str(cell["letters"].values)] if (one["letters"] != "").any() else [])
                number, _, asked = count.partition(" of ")
                assert (int(number), int(asked or number)) == (int(cell["count"]), int(cell["asked"]))
                ranks.append(float(cell["rank"]))
            assert ranks == sorted(ranks, key=lambda rank: (np.isnan(rank), rank))
        for method, (mean, number) in rows(made[f"{classifier}/mean_rank.{end}"]).items():
            cell = summary.sel({"classifier": classifier, "method": method})
            agree(mean, [float(cell[f"mean_rank{name}"]) for name in ("", "_low", "_high")])
            assert int(number) == int(cell["mean_rank_metrics"])
        for family in made_up.METRICS:
            for method, (mean, number) in rows(made[f"{classifier}/family_{family}.{end}"]).items():
                cell = summary.sel({"classifier": classifier, "method": method, "family": family})
                agree(mean, [float(cell[f"family_rank{name}"]) for name in ("", "_low", "_high")])
                assert int(number) == int(cell["family_rank_metrics"])
        for method, cells in rows(made[f"{classifier}.{end}"]).items():
            one = summary.sel({"classifier": classifier, "method": method})
            values = [float(one["mean_rank"]), *one["mean"].sel(metric=ranking_metrics(summary)).values.tolist()]
            for text, value in zip(cells, values, strict=True):
                agree(text, [value])
    for method, (mean, number) in rows(made[f"overall_rank.{end}"]).items():
        cell = summary.sel({"method": method})
        agree(mean, [float(cell[f"overall_rank{name}"]) for name in ("", "_low", "_high")])
        assert int(number) == int(cell["overall_rank_metrics"])


def agree(text: str, values: list[float]) -> None:
    """Numbers are the values to half a unit of their last place; n/a stands for what is undefined."""
    if np.isnan(values[0]):
        assert text == "n/a"
        return
    texts = NUMBER.findall(text)
    assert len(texts) == len(values)
    for one, value in zip(texts, values, strict=True):
        half = 0.5 * 10.0 ** -len(one.partition(".")[2])
        assert float(one.replace("−", "-")) == pytest.approx(value, abs=half * (1 + 1e-6))


def test_the_best_is_bold_and_it_alone(summary, made):
    for classifier in made_up.CLASSIFIERS:
        for metric in ranking_metrics(summary):
            ranks = summary["rank"].sel({"classifier": classifier, "metric": metric})
            best = set(summary["method"].values[ranks.values == 1])
            lines = made[f"{classifier}/{metric}.md"].splitlines()
            assert {re.match(r"\| `(\w+)`", line)[1] for line in lines if "**" in line} == best
            text = made[f"{classifier}/{metric}.tex"]
            assert text.count(r"\textbf{") == 2 * len(best)


def test_controls_are_marked_and_directions_shown(made):
    text = made["vanilla/max_sensitivity.tex"]
    assert r"\texttt{center}$^\dagger$ & " in text
    assert r"\texttt{rise} & " in text
    assert r"method & mean $\downarrow$ & defined & rank $\downarrow$ \\" in text
    assert r"method & mean $\downarrow$ & defined & rank $\downarrow$ & alike \\" in made["vanilla/deletion.tex"]
    assert r"$^\dagger$ a control: it knows nothing of the classifier" in text
    assert "lower is better" in text
    assert "| method | mean ↑ |" in made["vanilla/insertion.md"]
    assert "| `center` † |" in made["vanilla/insertion.md"]
    assert r"\texttt{input\_x\_gradient}" in text


def test_what_is_undefined_has_a_note_that_says_why(made):
    text = made["vanilla/max_sensitivity.tex"]
    refused, excluded = made_up.UNSUPPORTED["vanilla", "cam"], "not scored by this metric"
    cells = {name: re.search(rf"texttt{{{name}}}.*", text)[0] for name in ("cam", "uniform")}
    for name, reason in (("cam", refused), ("uniform", excluded)):
        (mark,) = set(re.findall(r"n/a\\textsuperscript\{(\w)\}", cells[name]))
        assert rf"\textsuperscript{{{mark}}} {reason}" in text
    assert f"<sup>a</sup> {refused}" in made["vanilla/deletion.md"]
    assert refused not in made["robust/deletion.tex"]


def test_too_few_scores_are_told(summary):
    few = summary.copy(deep=True)
    at = {"classifier": "robust", "metric": "deletion", "method": "rise"}
    few["count"].loc[at] = 3
    few["rank"].loc[at] = np.nan
    made = papers.tables(few.assign_attrs(min_count=10))
    line = next(line for line in made["robust/deletion.md"].splitlines() if "`rise`" in line)
    alike = str(few["letters"].sel(at).values)
    assert line.endswith(f"<sup>a</sup> | 3 of 24 | n/a<sup>a</sup> | {alike} |")
    line = next(line for line in made["robust.md"].splitlines() if "`rise`" in line)
    (mark,) = re.findall(r"\d<sup>(\w)</sup>", line)
    assert f"<sup>{mark}</sup> fewer than 10 images or grids have a score" in made["robust.md"]
    assert "<sup>a</sup> fewer than 10 images or grids have a score" in made["robust/deletion.md"]
    few["mean"].loc[at], few["count"].loc[at] = np.nan, 0
    assert "no score is defined" in papers.tables(few)["robust/deletion.md"]


def test_a_metric_on_which_all_tie_says_so(summary):
    tied = summary.copy(deep=True)
    tied["rank"].loc[{"classifier": "robust", "metric": "deletion"}] = np.nan
    made = papers.tables(tied)
    assert "<sup>a</sup> no method is before another" in made["robust/deletion.md"]
    assert "no method is before another" not in made["vanilla/deletion.md"]


def test_letters_are_left_out_where_a_method_has_many(summary):
    many = summary.assign_coords(letters=summary["letters"].copy(deep=True))
    many["letters"].loc[{"classifier": "robust", "metric": "deletion", "method": "rise"}] = "abcdefghijklm"
    made = papers.tables(many)
    assert "alike" not in made["robust/deletion.md"]
    assert "not across metrics and classifiers" in made["vanilla/deletion.md"]
    assert "not across metrics and classifiers" in made["vanilla/deletion.tex"]


def test_a_method_that_lacks_most_rankings_is_not_the_best_by_mean_rank(summary):
    few = summary.copy(deep=True)
    for name in ("overall_rank", "mean_rank", "family_rank"):
        few[name].loc[{"method": "cam"}] = 0.5
    for name in ("overall_rank", "robust/mean_rank"):  # half of the rankings are enough
        assert re.search(r"`cam` \| \*\*0\.5\*\*", papers.tables(few)[f"{name}.md"])
    for name in ("overall_rank", "mean_rank", "family_rank"):
        few[f"{name}_mostly"].loc[{"method": "cam"}] = 0
    made = papers.tables(few)
    for name in ("overall_rank", "robust/mean_rank", "robust/family_faithfulness", "robust"):
        lines = made[f"{name}.md"].splitlines()
        (line,) = (line for line in lines if "`cam`" in line)
        first = line.split(" | ")[1]
        assert "**" not in first
        mark = re.search(r"<sup>(\w)</sup>$", first)[1]
        assert f"<sup>{mark}</sup> {papers.PARTLY}" in made[f"{name}.md"]
        best = [line for line in lines if line.startswith("| `") and line.split(" | ")[1].startswith("**")]
        assert best


def test_letters_with_a_meaning_are_escaped(summary):
    reason = "50% of {a_b} & c#d ~ ^ \\ $ < 3σ, 2⁻³ | *x*"
    other = summary.copy(deep=True)
    other.attrs = {**summary.attrs, "unsupported": {"vanilla": {"cam": {"deletion": reason}}}}
    made = papers.tables(other)
    assert (
        r"50\% of \{a\_b\} \& c\#d \textasciitilde{} \textasciicircum{} \textbackslash{} \$ $<$ 3$\sigma$, 2$^{-3}$"
    ) in made["vanilla/deletion.tex"]
    assert r"&lt; 3σ, 2⁻³ \| \*x\*" in made["vanilla/deletion.md"]


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ((0.15377, 0.12223, 0.18892), ("0.154", "[0.122, 0.189]")),
        ((0.15377, 0.10223, 0.20892), ("0.15", "[0.10, 0.21]")),
        ((-0.5, -1.2, 0.1), ("−0.5", "[−1.2, 0.1]")),
        ((1234.5, 1100.2, 1399.9), ("1234", "[1100, 1400]")),
        ((0.25, 0.25, 0.25), ("0.250", "[0.250, 0.250]")),
        ((0.25, np.nan, np.nan), ("0.250", "")),
        ((0.0, 0.0, 0.0), ("0.00", "[0.00, 0.00]")),
        ((-0.0001, -0.1, 0.1), ("0.00", "[−0.10, 0.10]")),
        ((4.31e-8, 4.2e-8, 4.45e-8), ("4.31", "[4.20, 4.45] × 10⁻⁸")),
        ((4.31e8, np.nan, np.nan), ("4.31 × 10⁸", "")),
    ],
)
def test_the_width_of_the_interval_decides_the_digits(numbers, told):
    assert papers.formatted(*numbers) == told


def test_ranks_over_fewer_scores_than_means_are_told(summary):
    at = {"classifier": "robust", "metric": "deletion"}
    told = "ranks are over the 20 images on which all ranked methods have a score"
    few = summary.copy(deep=True)
    few["count"].loc[at] = few["count"].loc[at].clip(max=20)
    few["rank_count"].loc[at] = 20
    assert told not in papers.tables(few)["robust/deletion.md"]
    few["count"].loc[{**at, "method": "rise"}] = 24
    assert shared(few.sel(at)) == 20
    made = papers.tables(few)
    assert told in made["robust/deletion.md"]
    assert told in made["robust/deletion.tex"]
    assert told not in made["vanilla/deletion.md"]
    few["rank"].loc[{**at, "method": "rise"}] = np.nan
    assert shared(few.sel(at)) == 0
