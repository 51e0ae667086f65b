"""The environment of the page's templates: formats of numbers and names, with everything escaped."""

from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from atlas.report import sorting

FOLDER = Path(__file__).parent / "templates"
LETTERS = 40  # letters of a name; a tooltip shows all of it


def environment() -> Environment:
    """Create the template environment."""
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
    """Cut the middle out of a text of more than a number of letters."""
    if len(text) <= letters:
        return text
    return f"{text[: letters - letters // 2]}…{text[len(text) - letters // 2 + 1 :]}"


def short(text: str, letters: int = LETTERS) -> Markup:
    """Show a text, shortened if it is too long, with all of it as the tooltip."""
    if len(text) <= letters:
        return escape(text)
    return Markup('<span title="{}">{}</span>').format(text, cut(text, letters))
