"""Find which cells of a study are missing, and why: none, except in the draft of a study that failed.

A stage that reads the outputs of many cells skips those that are known to be missing, and says so; any other missing
output is an error.
"""

import json
from pathlib import Path

FILE = "missing.json"


def is_draft(study: Path) -> bool:
    """Return whether a study is the draft of a failed one."""
    return (study / FILE).is_file()


def missing(study: Path) -> dict[str, str]:
    """Return the reason for every missing cell."""
    return json.loads((study / FILE).read_text()) if is_draft(study) else {}
