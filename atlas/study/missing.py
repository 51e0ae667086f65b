"""Which cells of a study are missing, and why: none, unless it is the draft of one that failed.

A verb that reads many cells' outputs goes on without those that are known to be missing, and says so; any other that
it does not find is an error.
"""

import json
from pathlib import Path

FILE = "missing.json"


def is_draft(study: Path) -> bool:
    """Return whether a study is the draft of one that failed."""
    return (study / FILE).is_file()


def missing(study: Path) -> dict[str, str]:
    """Return the reason for every cell that is not there."""
    return json.loads((study / FILE).read_text()) if is_draft(study) else {}
