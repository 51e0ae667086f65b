"""Draw docs/layers.svg, the layers of the code: `make layers`.

Packages and their order are those of .importlinter, folders those of the tree, stages those of dvc.yaml. What each is
for is written here.
"""

import textwrap
from configparser import ConfigParser
from html import escape
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
PICTURE = Path(__file__).with_suffix(".svg")
PURPOSES = {
    "flows": "Orchestration: the Prefect flow, workers, schedules, the command line. Needs DVC and Prefect.",
    "stages": "One module for each DVC stage: which rows there are, and how one batch of them is made.",
    "atlas.classifiers": "Train classifiers, or take their weights.",
    "atlas.in_memory": "Maps and scores without a study.",
    "atlas.results": "Scores as datasets and tables.",
    "atlas.share": "Open what a study made.",
    "atlas.datasets": "Read pictures.",
    "atlas.networks": "Build networks.",
    "atlas.methods": "Make attributions.",
    "atlas.metrics": "Score maps.",
    "atlas.statistics": "Ranks, intervals, tests.",
    "atlas.report": "The report.",
    "atlas.inputs": "What methods and metrics are given: images, masks, boxes, votes, the method; every call of them.",
    "atlas.model": "Classifier: a network with its preprocessing, cut at layers, run in batches of one shape.",
    "atlas.cache": "Keys: digests of code, settings and data. Rows by key: looked up, journaled, assembled.",
    "atlas.study": "params.yaml: its entries, paths, random seeds, errors.",
    "flows.commands": "atlas compare, pull and show",
    "flows.dvc_patches": "functions of DVC that are replaced for safety",
    "flows.dvc_speedups": "functions of DVC that are replaced to save time",
    "atlas.inputs.audit": "notices what a method or metric reads that its key does not hold",
    "atlas.model.graph": "networks traced, cut at a layer, made faster",
    "atlas.cache.fingerprint": "digests of code and of the packages it imports",
    "atlas.study.schema": "which values settings accept: types, ranges, the signatures of functions",
}
# Of flows, stages, and each layer of atlas.
COLORS = ["#e8e4f5", "#dcebf9", "#e2f3ea", "#fdf1d6", "#f9e4de", "#f9e4de", "#e6e9ec", "#e6e9ec"]
INK, LINE = "#1b2733", "#5c6b7a"
LEFT, WIDTH, GAP, PAD, TOP = 64, 920, 8, 12, 16
ROW = 17  # of a line of text
NAME, TEXT, FOLDERS = 12.5, 13, 11.5  # sizes of letters
PER_LETTER = 0.62  # of its size: the width of a letter, as the widest of the usual fonts have it


def layers() -> list[list[str]]:
    """Return the packages of each layer, from the top."""
    contracts = ConfigParser()
    contracts.read(ROOT / ".importlinter")
    lines = contracts["importlinter:contract:layers"]["layers"].split("\n")
    return [[name.strip() for name in line.split("|")] for line in lines if line.strip()]


def contents(package: str) -> list[str]:
    """Name the folders of a package, with what they are for, and of `stages` the stages."""
    if package == "stages":
        return ["  ".join(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])]
    found = sorted(one.parent.name for one in (ROOT / package.replace(".", "/")).glob("*/__init__.py"))
    said = {name: PURPOSES.get(f"{package}.{name}", "") for name in found}
    return [f"{name}/: {text}" if text else f"{name}/" for name, text in said.items()]


def drawn() -> str:
    """Return the picture."""
    top, boxes = TOP, []
    for names, color in zip(layers(), COLORS, strict=True):
        width = (WIDTH - GAP * (len(names) - 1)) / len(names)
        texts = [_lines(name, width - 2 * PAD) for name in names]
        height = max(map(len, texts)) * ROW + 2 * PAD - 4
        for place, lines in enumerate(texts):
            left = LEFT + place * (width + GAP)
            boxes.append(
                f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{height}" rx="6" fill="{color}" '
                f'stroke="{LINE}"/>'
            )
            for row, (text, look) in enumerate(lines):
                boxes.append(
                    f'<text x="{left + PAD:.1f}" y="{top + PAD + 10 + row * ROW}" {look}>{escape(text)}</text>'
                )
        top += height + GAP
    bottom, middle = top - GAP, (top - GAP + TOP) / 2
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + TOP} {bottom + TOP}" role="img" '
            f'aria-label="The layers of the code, from flows above to atlas.study below; imports run down only" '
            f'fill="{INK}">',
            f'<rect width="{LEFT + WIDTH + TOP}" height="{bottom + TOP}" fill="#ffffff"/>',
            *boxes,
            f'<path d="M44 {TOP} V{bottom - 14}" stroke="{LINE}" stroke-width="2"/>',
            f'<path d="M38 {bottom - 14} L44 {bottom} L50 {bottom - 14} Z" fill="{LINE}"/>',
            f'<text transform="translate(30 {middle}) rotate(-90)" text-anchor="middle" {_look(TEXT)}>'
            "imports run down only</text>",
            "</svg>",
            "",
        ]
    )


def _lines(package: str, width: float) -> list[tuple[str, str]]:
    """Return the lines of a package's box with their looks: its name, what it is for, what is in it."""
    place = package.replace(".", "/")
    name = place if (ROOT / place).is_dir() else f"{place}.py"
    wrapped = textwrap.wrap(PURPOSES[package], int(width / (TEXT * PER_LETTER * 0.8)))
    listed = [part for line in contents(package) for part in textwrap.wrap(line, int(width / (FOLDERS * PER_LETTER)))]
    bold = _look(NAME, "monospace") + ' font-weight="bold"'
    looks = [(name, bold), *((line, _look(TEXT)) for line in wrapped)]
    return looks + [(line, _look(FOLDERS, "monospace")) for line in listed]


def _look(size: float, family: str = "sans-serif") -> str:
    return f'font-size="{size}" font-family="{family}"'


if __name__ == "__main__":
    PICTURE.write_text(drawn())
