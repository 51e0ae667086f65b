"""Pages of the site that are made when it is built: texts of the root, a page for every family, and the notebook."""

import ast
import json
import re
from pathlib import Path
from typing import Any
from unicodedata import normalize

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from atlas.study.schema.ranges import accepted, description
from atlas.study.schema.signatures import signature

ROOT = Path(__file__).parent.parent
# Texts that stand elsewhere in the repository, by page.
TEXTS = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "glossary.md": "GLOSSARY.md",
    "changelog.md": "CHANGELOG.md",
    "measurements.md": "benchmarks/RESULTS.md",
}
# Run again by `make notebook`.
NOTEBOOK = "docs/notebook.ipynb"
# Packages whose modules are families, by section of params.yaml.
FAMILIES = {"methods": "atlas.methods", "metrics": "atlas.metrics"}
# As BibTeX writes them before a letter, and as Unicode does after it.
ACCENTS = {"'": "\u0301", '"': "\u0308", "v": "\u030c"}
LEADERBOARD = """# Leaderboard of the default study

What `make reproduce` writes into `data/report/leaderboard.md`: mean ranks of the methods, 1 is best, with their
intervals. What they claim is in [Read results](results.md#what-the-numbers-claim).

"""


def on_config(config: MkDocsConfig) -> None:
    """Add the pages of families to the navigation."""
    for section in config.nav:
        for kind in FAMILIES:
            if section.get(kind.capitalize()) == [f"{kind}.md"]:
                section[kind.capitalize()] += [f"{kind}/{name}.md" for name in modules(kind)]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add texts of the root, the notebook, and the pages of families."""
    for page, source in TEXTS.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    files.append(File.generated(config, "notebook.md", content=notebook((ROOT / NOTEBOOK).read_text())))
    for kind in FAMILIES:
        for name in modules(kind):
            files.append(File.generated(config, f"{kind}/{name}.md", content=family(kind, name)))
    return files


def on_page_markdown(text: str, page: Page, **_: Any) -> str:
    """Point links to where the pages of the site are, and name families as links to theirs."""
    here = page.file.src_uri
    text = re.sub(r"\]\(docs/", "](", text) if here in TEXTS else text
    for other, source in TEXTS.items():
        text = re.sub(rf"\]\((\.\./)?{re.escape(source)}\)", f"]({other})", text)
    text = text if here == "notebook.md" else text.replace("](notebook.ipynb)", "](notebook.md)")
    kind = here.removesuffix(".md")
    if kind in FAMILIES:
        text = re.sub(r"(?m)^\| (`(\w+)`) \|", rf"| [\1]({kind}/\2.md) |", text)
    return LEADERBOARD + text if here == "leaderboard.md" else text


def modules(kind: str) -> list[str]:
    """List the families of a kind."""
    folder = ROOT / FAMILIES[kind].replace(".", "/")
    return sorted(file.stem for file in folder.glob("[a-z]*.py"))


def family(kind: str, name: str) -> str:
    """Write the page of a family: its facts, its entries in the default study, docstrings and settings of functions."""
    package = FAMILIES[kind]
    source = f"{package.replace('.', '/')}/{name}.py"
    tree = ast.parse((ROOT / source).read_text())
    facts = next(
        (
            ast.literal_eval(one.value)
            for one in tree.body
            if isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == "ATTRS"
        ),
        {},
    )
    lines = [f"# {name}", "", ast.get_docstring(tree) or "", "", f"In `{source}`.", ""]
    # A metric has its direction in ATTRS; what else is public is a helper. A method may have no facts.
    public = [one.name for one in tree.body if isinstance(one, ast.FunctionDef) and not one.name.startswith("_")]
    functions = [one for one in public if kind == "methods" or one in facts]
    columns = ["long_name", "units", *(["better"] if kind == "metrics" else []), "reference"]
    heads = {"long_name": "name", "reference": "source"}
    lines += [
        "| function | " + " | ".join(heads.get(one, one) for one in columns) + " |",
        "| --- " * (len(columns) + 1) + "|",
    ]
    for function in functions:
        known = facts.get(function, {})
        cells = [papers(known.get(one, "")) if one == "reference" else known.get(one, "") for one in columns]
        lines.append(f"| [`{function}`](#{package}.{name}.{function}) | " + " | ".join(cells) + " |")
    lines += ["", *picture(kind, name), *entries(kind, name)]
    for function in functions:
        lines += [f"::: {package}.{name}.{function}", "", *settings(kind, name, function)]
    return "\n".join(lines)


def settings(kind: str, name: str, function: str) -> list[str]:
    """List which values each setting of a function accepts, and what its type says of it."""
    types = signature(kind, name, function).types
    if not types:
        return []
    rows = [f"| `{setting}` | {accepted(known)} | {description(known)} |" for setting, known in types.items()]
    return ["| setting | accepts | |", "| --- | --- | --- |", *rows, ""]


def picture(kind: str, name: str) -> list[str]:
    """Show a family's maps of one photograph, if the study of photographs has any."""
    if kind != "methods" or not (ROOT / "docs" / "pictures" / f"{name}.png").is_file():
        return []
    return [f"![Maps of one photograph by {name}, in the study of photographs](../pictures/{name}.png)", ""]


def entries(kind: str, name: str) -> list[str]:
    """Show what the default study's params.yaml says of a family."""
    listed = yaml.safe_load((ROOT / "params.yaml").read_text())[kind].get(name, {})
    if not listed:
        return ["The default study has none of them.", ""]
    shown = [
        f"    {entry}: " + yaml.safe_dump(given or {}, default_flow_style=True, sort_keys=False, width=10**6).strip()
        for entry, given in listed.items()
    ]
    return ["In the default study:", "", "```yaml", f"{kind}:", f"  {name}:", *shown, "```", ""]


def notebook(content: str) -> str:
    """Write the page of a notebook: its texts, its code, and what each cell showed when it was run."""
    lines = []
    for cell in json.loads(content)["cells"]:
        source = "".join(cell["source"])
        lines += [source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```", ""]
        for output in cell.get("outputs", []):
            lines += [shown(output.get("data") or {"text/plain": output["text"]}), ""]
    return "\n".join([*lines, f"This page is `{NOTEBOOK}`: [download it](notebook.ipynb)."])


def shown(data: dict[str, Any]) -> str:
    """Write one output of a cell: a picture, a table, or text."""
    if "image/png" in data:
        return f'<img alt="What the cell above draws" src="data:image/png;base64,{data["image/png"].strip()}">'
    if "text/html" in data:
        table = re.search(r"<table[^>]*>(.*)</table>", "".join(data["text/html"]), re.DOTALL)
        return f"<table>{table[1]}</table>"  # without the class and the style that pandas gives it
    return f"```text\n{''.join(data['text/plain']).rstrip()}\n```"


def papers(references: str) -> str:
    """Name the papers of keys of REFERENCES.bib: who, title, year."""
    known = (ROOT / "REFERENCES.bib").read_text()
    named = []
    for key in re.split(r"[ ,]+", references):
        found = re.search(
            rf"(?m)^@\w+\{{{key}, author = \{{(.*?)\}}, title = \{{(.*?)\}}, \w+ = .*year = \{{(\d+)\}}", known
        )
        if found:
            authors, title, year = found.groups()
            first, *others = [author.split(",")[0] for author in authors.split(" and ")]
            named.append(plain(f"{first}{' et al.' if others else ''}, {title}, {year}"))
    return "; ".join(named)


def plain(text: str) -> str:
    """Take BibTeX's braces off a text, and make letters of its accents."""
    text = re.sub(r"\{\\(['\"v])\{?(\w)\}?\}", lambda one: normalize("NFC", one[2] + ACCENTS[one[1]]), text)
    return text.replace("{", "").replace("}", "")
