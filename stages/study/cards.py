"""What is known of a trained classifier: its card."""

import json
from pathlib import Path
from typing import Any

from stages.study import params
from stages.study.problem import Problem

ACCURACIES = ("accuracy", "adversarial_accuracy")


def card(study: Path, classifier: str) -> dict[str, Any]:
    """Read a classifier's card.

    Raises:
        Problem: there is none.
    """
    path = params.path(study, "classifiers", classifier) / "card.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Problem(f"{path}: cannot be read ({error}); run stages.train again") from None


def accuracies(study: Path, classifier: str) -> dict[str, float]:
    """Give a classifier's accuracy, and that under attack, 0 to 1; NaN where it was not measured."""
    known = card(study, classifier)
    return {name: known.get(name, float("nan")) for name in ACCURACIES}
