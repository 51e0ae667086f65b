"""A study: the folder of a params.yaml, its checked content, and where the data made from it lie."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from atlas.study import cards, params
from atlas.study.errors import UserError
from atlas.study.schema.settings import Entry
from atlas.study.schema.smoothing import Smoothing, read_smoothings

# In the folder of the draft of a study that failed: the reason for every missing cell.
MISSING = "missing.json"
ACCURACIES = ("accuracy", "adversarial_accuracy")
# Where params.yaml has what cells are named after.
SECTIONS = {"dataset": "datasets", "classifier": "classifiers", "family": "methods"}


class Study:
    """A study.

    Args:
        folder: The folder of params.yaml.
        content: The content of params.yaml as `atlas.study.params.load` returns it; None reads it from the folder.

    Attributes:
        folder: The same, as a `Path`.
        params: The content of params.yaml, checked, with what was left out filled in (`atlas.study.params.load`).

    Raises:
        UserError: the file is missing or no YAML mapping, or an entry is wrong.
    """

    def __init__(self, folder: Path | str = ".", content: dict[str, Any] | None = None):
        self.folder = Path(folder)
        self.params = params.load(self.folder) if content is None else content

    def check_names(self, **names: str) -> None:
        """Check that params.yaml has the dataset, classifier or family of methods that a cell is named after.

        Raises:
            UserError: it does not have one.
        """
        for kind, name in names.items():
            if name not in self.params[SECTIONS[kind]]:
                known = ", ".join(self.params[SECTIONS[kind]])
                raise UserError(f"{self.file} names no {kind} '{name}'; it names: {known}")

    @property
    def file(self) -> Path:
        """The path of params.yaml."""
        return self.folder / "params.yaml"

    @property
    def seed(self) -> int:
        """The seed of all random choices."""
        return self.params["seed"]

    @property
    def engine(self) -> dict[str, Any]:
        """Device, precision, threads and batch."""
        return self.params["engine"]

    @property
    def dtype(self) -> str:
        """The dtype of stored maps."""
        return self.params["stores"]["dtype"]

    @cached_property
    def methods(self) -> dict[str, dict[str, Entry]]:
        """The methods, by family and name."""
        return params.entries(self.params, "methods")

    @cached_property
    def metrics(self) -> dict[str, dict[str, Entry]]:
        """The metrics, by family and name."""
        return params.entries(self.params, "metrics")

    @cached_property
    def all_methods(self) -> dict[str, Entry]:
        """The methods of all families, by name."""
        return {name: entry for listed in self.methods.values() for name, entry in listed.items()}

    @cached_property
    def all_metrics(self) -> dict[str, Entry]:
        """The metrics of all families, by name."""
        return {name: entry for listed in self.metrics.values() for name, entry in listed.items()}

    @cached_property
    def smoothings(self) -> dict[str, Smoothing]:
        """The entries of `certify`, by name."""
        return read_smoothings(self.params, set(self.all_methods))

    def dataset(self, name: str) -> Entry:
        """Return a dataset's entry."""
        return params.dataset(self.params, name)

    def network(self, classifier: str) -> Entry:
        """Return the entry of a classifier's network."""
        return params.network(self.params, classifier)

    def classifier(self, name: str) -> dict[str, Any]:
        """Return a classifier's sections, as completed."""
        return self.params["classifiers"][name]

    def path(self, kind: str, *names: str) -> Path:
        """Return where data of a kind lie, `maps` of a classifier and family for example."""
        return params.path(self.folder, kind, *names)

    def card(self, classifier: str) -> dict[str, Any]:
        """Read what is known of a prepared classifier.

        Raises:
            UserError: there is no card, or it is not valid.
        """
        return cards.read(self.path("classifiers", classifier))

    def accuracies(self, classifier: str) -> dict[str, float]:
        """Return a classifier's accuracy, clean and under attack, from 0 to 1; NaN if it was not measured."""
        known = self.card(classifier)
        return {name: known.get(name, float("nan")) for name in ACCURACIES}

    @property
    def is_draft(self) -> bool:
        """Whether this is the draft of a study that failed: stages that read many cells skip the missing ones."""
        return (self.folder / MISSING).is_file()

    @cached_property
    def missing(self) -> dict[str, str]:
        """The reason for every missing cell of a draft; empty otherwise."""
        return json.loads((self.folder / MISSING).read_text()) if self.is_draft else {}
