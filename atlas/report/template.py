"""The language of the page's templates: how numbers and names are spelled, everything escaped."""

from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from atlas.report import sorting

FOLDER = Path(__file__).parent / "templates"
LETTERS = 40  # of a name; the whole is shown where one points at it


def environment() -> Environment:
    """Prepare the template's language."""
    found = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.tests["undefined_number"] = lambda value: bool(np.isnan(value))
    found.filters["breakable"] = lambda name: Markup("_<wbr>").join(escape(part) for part in name.split("_"))
    found.filters["digits"] = sorting.digits
    found.filters["share"] = lambda value: "n/a" if np.isnan(value) else f"{100 * value:.1f}%"
    found.filters["blank"] = lambda value: "" if np.isnan(value) else value
    found.filters["cut"] = cut
    found.filters["short"] = short
    return found


def cut(text: str, letters: int = LETTERS) -> str:
    """Cut the middle out of a text of more letters than that."""
    if len(text) <= letters:
        return text
    return f"{text[: letters - letters // 2]}…{text[len(text) - letters // 2 + 1 :]}"


def short(text: str, letters: int = LETTERS) -> Markup:
    """Show a text, or one that is too long shortened, with the whole as its title."""
    if len(text) <= letters:
        return escape(text)
    return Markup('<span title="{}">{}</span>').format(text, cut(text, letters))
