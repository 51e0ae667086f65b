"""Draft a report from what there is when cells have failed: outside DVC's outputs, and marked as a draft."""

import json
import shutil
from pathlib import Path

import yaml

from atlas.study.errors import UserError
from atlas.study.params import entries, load, path
from atlas.study.study import MISSING
from stages import aggregate, report, score

# The stages without which a classifier cannot be shown.
NEEDED = ("collect", "prepare", "predict", "select", "tile")


def draft(study: Path, missing: dict[str, str]) -> Path:
    """Write a draft report into .atlas/draft and return the path of its page.

    Args:
        study: The folder of params.yaml.
        missing: The cells that were not made, each with its reason. Their earlier outputs are not used.

    Raises:
        UserError: there is nothing to report on.
    """
    given = load(study)
    place = study / ".atlas" / "draft"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for name, entry in list(given["classifiers"].items()):
        needs = [f"{one}@{entry['dataset'] if one == 'collect' else name}" for one in NEEDED]
        if any(cell in missing for cell in needs):
            del given["classifiers"][name]
    if not given["classifiers"]:
        raise UserError(f"there is nothing to draft a report from: {'; '.join(missing.values())}")
    (place / "params.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
    (place / "data").mkdir()
    for kind in ("datasets", "classifiers", "images", "grids", "maps", "votes", "similarity", "cost"):
        if (study / "data" / kind).is_dir():
            (place / "data" / kind).symlink_to((study / "data" / kind).resolve())
    shown = dict(missing)
    for classifier in given["classifiers"]:
        for family in entries(given, "methods"):
            cell = f"score@{classifier}-{family}"
            output = path(place, "scores", classifier, family)
            output.parent.mkdir(parents=True, exist_ok=True)
            if cell not in missing:
                output.symlink_to(path(study, "scores", classifier, family).resolve())
            elif f"attribute@{classifier}-{family}" not in missing:
                unvoted = missing.get(f"certify@{classifier}-{family}")
                score.draft(study, classifier, family, output, missing[cell], unvoted)
                del shown[cell]  # what is missing is recorded in the store
        if not path(study, "cost", classifier).is_dir():
            shown.setdefault(f"cost@{classifier}", "is not there")
    (place / MISSING).write_text(json.dumps(shown, indent=1))
    aggregate.main(place)
    report.main(place)
    return place / "data" / "report" / "index.html"


def why_missing(failed: dict[str, str], needs: dict[str, list[str]]) -> dict[str, str]:
    """Return a reason for every cell that was not made: its own failure, or that of a cell it needs.

    Args:
        failed: The reasons of failed cells.
        needs: The cells that each cell needs, in topological order.
    """
    reasons: dict[str, str] = {}
    for cell, inputs in needs.items():
        first = next((needed for needed in inputs if needed in reasons), None)
        if cell in failed:
            reasons[cell] = failed[cell]
        elif first is not None:
            reasons[cell] = f"it needs {first}, which was not made"
    return reasons
