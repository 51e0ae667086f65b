"""The documentation: it builds without a warning, loads nothing from elsewhere, and what it names is there."""

import ast
import os
import re
import runpy
import subprocess
import sys
import tomllib

import pytest
import typer
import yaml

import atlas
from atlas.datasets.shared.source import Source
from atlas.study.schema import ranges, types
from flows.cli import app
from tests.support.study import ROOT

PAGES = {
    file.relative_to(ROOT).as_posix(): file.read_text()
    for file in [*map(ROOT.joinpath, ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")), *sorted(ROOT.glob("docs/*.md"))]
}
FAMILIES = {"methods": "atlas/methods", "metrics": "atlas/metrics"}
CODE = "(?:atlas|stages|flows)"
FOLDERS = "(?:atlas|stages|flows|tests|benchmarks|studies)"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `make docs` does it."""
    place = tmp_path_factory.mktemp("site")
    command = re.search(r"(?m)^\t\$\(UV\) run --no-sync (mkdocs build .*)$", (ROOT / "Makefile").read_text())[1]
    done = subprocess.run(
        [sys.executable, "-m", *command.split(), "--site-dir", str(place)],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return place


def known_by(kind: str, family: str) -> set[str]:
    """The methods or metrics of a family, by the page that lists them."""
    (names,) = re.findall(rf"(?m)^\| `{family}` \| (`[^|]*`) \|", PAGES[f"docs/{kind}.md"])
    return set(re.findall(r"`(\w+)`", names))


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_function_has_its_docstring_on_its_familys_page(site, kind):
    for file in sorted((ROOT / FAMILIES[kind]).glob("[a-z]*.py")):
        page = (site / kind / f"{file.stem}.html").read_text()
        known = re.sub(r"<[^>]+>", "", page)
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name in known_by(kind, file.stem):
                assert f'id="{FAMILIES[kind].replace("/", ".")}.{file.stem}.{node.name}"' in page, node.name
                first = re.match(r"[^.`<>&'\"\n]*", ast.get_docstring(node))[0]
                assert first in known, node.name


def test_a_familys_page_shows_its_maps_of_one_photograph(site):
    """Each family of the study of photographs: `make pictures` writes them."""
    families = list(yaml.safe_load((ROOT / "studies/photographs/params.yaml").read_text())["methods"])
    assert families
    for family in families:
        source = f"pictures/{family}.png"
        assert f'src="../{source}"' in (site / f"methods/{family}.html").read_text()
        assert (site / source).read_bytes() == (ROOT / "docs" / source).read_bytes()


def test_a_familys_page_says_what_settings_accept_and_mean(site):
    page = re.sub(r"<[^>]+>", "", (site / "methods/noise.html").read_text())
    assert "at least 1" in page
    assert "at least 2" in page  # of VarGrad
    assert "logit, probability, loss" in page
    assert ranges.description(types.Extent).partition("`")[0] in page
    assert "and less than 1" in (site / "metrics/certified.html").read_text()


def test_the_notebook_is_a_page_with_what_it_showed(site):
    page = (site / "notebook.html").read_text()
    assert (site / "notebook.ipynb").is_file()
    assert page.count("data:image/png;base64,") >= 3
    assert "mean rank" in page
    assert 'href="methods.html"' in page


def test_no_page_loads_anything_from_elsewhere(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        text = page.read_text()
        loaded = re.findall(r"<(?:script|img|iframe|source|link)\b[^>]*?(?:src|href)=\"([^\"]+)\"", text)
        assert loaded
        assert [one for one in loaded if one.startswith(("http:", "https:", "//"))] == [], page
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )[\"']?(?:https?:)?//", style.read_text()), style


def test_the_pages_of_the_root_are_on_the_site(site):
    for page in ("index", "contributing", "glossary", "changelog", "measurements", "leaderboard", "architecture"):
        assert "<h1" in (site / f"{page}.html").read_text()
    assert "guided_gradcam" in (site / "leaderboard.html").read_text()


def test_the_picture_of_the_layers_is_of_these_packages_and_folders():
    made = runpy.run_path(str(ROOT / "docs/layers.py"))
    assert made["PICTURE"].read_text() == made["drawn"](), "`make layers` draws it anew"
    for package in made["PURPOSES"]:
        place = ROOT / package.replace(".", "/")
        assert place.is_dir() or place.with_suffix(".py").is_file(), package


@pytest.mark.parametrize("page", PAGES)
def test_its_links_are_there(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL))
    for link in links:
        if not link.startswith("https://"):
            assert (ROOT / page).parent.joinpath(link).is_file(), link


@pytest.mark.parametrize("page", PAGES)
def test_the_code_it_names_is_there(page):
    for file in re.findall(rf"\b{FOLDERS}/[\w/]+\.(?:py|yaml|csv)\b", PAGES[page]):
        assert (ROOT / file).is_file() or file.startswith("studies/mine/"), file
    for folder in re.findall(rf"`({FOLDERS}(?:/(?!data)\w+)*/)`", PAGES[page]):
        assert (ROOT / folder).is_dir(), folder
    for module in re.findall(rf"(?m)(?:-m|from|import|`)\s?({CODE}(?:\.\w+)+)", PAGES[page]):
        public = module.startswith("atlas.") and module.split(".")[1] in atlas.PUBLIC
        assert public or (ROOT / module.replace(".", "/")).with_suffix(".py").is_file(), module


@pytest.mark.parametrize("page", PAGES)
def test_the_functions_it_places_are_there(page):
    """`plan` of `stages/attribute.py`, and `RowStore.missing` of `atlas/cache/rows.py`."""
    for name, file in re.findall(rf"`([\w.]+)` of `({CODE}/[\w/]+\.py)`", PAGES[page]):
        tree: ast.AST = ast.parse((ROOT / file).read_text())
        for part in name.split("."):
            defined = {one.name: one for one in tree.body if isinstance(one, ast.FunctionDef | ast.ClassDef)}
            assert part in defined, f"{file}: {name}"
            tree = defined[part]


@pytest.mark.parametrize("page", PAGES)
def test_its_commands_are_there(page):
    known = typer.main.get_command(app).commands
    asked = re.findall(r"(?:uv run |`)atlas ((?!--)[a-z]+)([^\n`#]*)", PAGES[page])
    for name, rest in asked:
        assert name in known, name
        options = {option for one in known[name].params for option in one.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= options, f"{name}{rest}"


def test_the_example_of_a_dataset_reads_pictures(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", PAGES["docs/add-a-dataset.md"], re.DOTALL)
    own: dict = {}
    exec(code, own)
    for name in ("cat-1", "dog-2"):
        (tmp_path / f"{name}.jpg").touch()
    source = own["pairs"](tmp_path, suffix=".jpg")
    assert isinstance(source, Source)
    assert [(one.id, one.label) for one in source.pictures] == [("cat-1", "cat"), ("dog-2", "dog")]


def test_the_versions_of_python_are_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [one.rpartition(" ")[2] for one in project["classifiers"] if one.startswith("Programming Language")]
    least, most = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", project["requires-python"]).groups()
    assert named == [f"3.{minor}" for minor in range(int(least), int(most))]
    assert f"Python {', '.join(named[:-1])} or {named[-1]}" in PAGES["docs/api.md"]


def test_continuous_integration_runs_the_commands_of_the_makefile():
    known = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    run = {step["run"] for job in known["jobs"].values() for step in job["steps"] if "run" in step}
    assert run == {"make test", "make docs"}


def test_before_a_commit_runs_what_the_tests_begin_with():
    makefile = (ROOT / "Makefile").read_text()
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    ours = [hook["entry"].removeprefix(".venv/bin/") for hook in hooks]
    recipe = re.search(r"(?m)^lint: setup\n((?:\t.*\n)+)", makefile)[1]
    assert ours == [line.partition("run --no-sync ")[2] for line in recipe.splitlines()]
    assert len(ours) == 4
    assert re.search(r"(?m)^test: lint$", makefile)
