"""Show one image with its maps, and their certified pixels, in one picture."""

from pathlib import Path

import numpy as np

from atlas.cache.stores import read, values
from atlas.report.certification import certified, certified_results
from atlas.report.images import gallery, image_sheet
from atlas.report.images.image_sheet import Marks
from atlas.study.errors import UserError
from atlas.study.study import Study
from stages import report

SOME = 5  # of the image names, in an error


def show(
    folder: Path,
    image: str,
    classifier: str | None,
    methods: list[str],
    *,
    marked: bool,
    metric: str | None,
    output: Path | None,
) -> Path:
    """Write the picture and return its path.

    Args:
        folder: The folder of params.yaml.
        image: Its name among the evaluation images of the classifier.
        classifier: A key of `classifiers` in params.yaml; None: the first.
        methods: Names of methods, in the order to show them; all if empty.
        marked: Whether to show the certified pixels below each map.
        metric: The metric of votes whose test is used; None: the first.
        output: The file to write; None: `<image>_<classifier>.png`.

    Raises:
        UserError: a name or a store does not exist, or a metric is given without `marked`.
    """
    if metric is not None and not marked:
        raise UserError(f"metric '{metric}' is for certified pixels only; expected --certified with it")
    study = Study(folder)
    classifier = classifier or next(iter(study.params["classifiers"]))
    known = list(study.all_methods)
    for kind, name, names in (
        ("classifier", classifier, list(study.params["classifiers"])),
        *(("method", name, known) for name in methods),
    ):
        if name not in names:
            raise UserError(f"{study.file} names no {kind} '{name}'; it names: {', '.join(names)}")
    row = _row(study, classifier, image)
    chosen = methods or known
    # A method is colored as in the report: diverging around 0 if one of its maps shown there has negative values.
    rows = np.array([row, *report.first_rows(study, classifier, study.params["report"]["images"])])
    listed = report.chosen(study, classifier, rows, chosen)
    marks = _marks(study, classifier, image, row, metric) if marked else None
    drawn = image_sheet.png(image_sheet.figure(listed[0], chosen, gallery.signed(listed, chosen), marks))
    output = output or Path(f"{image.replace('/', '_')}_{classifier}.png")
    try:
        output.write_bytes(drawn)
    except OSError as error:
        raise UserError(
            f"{output}: cannot be written ({error.strerror}); expected a file in a folder that is there"
        ) from None
    return output


def _row(study: Study, classifier: str, image: str) -> int:
    store = study.path("images", classifier) / "images"
    ids = values(read(store, "the evaluation images"), "image").tolist()
    if image not in ids:
        raise UserError(f"{classifier} has no image '{image}'; it has {len(ids)}: {_some(ids)}")
    return ids.index(image)


def _marks(study: Study, classifier: str, image: str, row: int, metric: str | None) -> Marks:
    """Label the image's pixels by the test of a metric of votes."""
    given = study.params
    test = certified_results.first_test(given) if metric is None else certified_results.test_of(given, metric)
    number = test.smoothing.pictures["images"]
    if row >= number:
        store = study.path("images", classifier) / "images"
        ids = values(read(store, "the evaluation images"), "image", slice(0, number)).tolist()
        others = f"it has those of {_some(ids)}" if number else "it has none of images"
        raise UserError(f"{test.smoothing.name} has no votes on image '{image}' of {classifier}; {others}")
    cast = report.votes(study, classifier, test.smoothing, np.array([row]))
    shown = {name: (test.labels(one)[0], certified.smoothed(one, 0, 0)) for name, one in cast.items()}
    votes = f"votes that certify: {test.votes(report.pixels_of(study, classifier))}"
    return Marks(f"{test.place}; {test.how}; {votes}", test.smoothing.settings["levels"], shown)


def _some(names: list[str]) -> str:
    return ", ".join(names[:SOME]) + (", …" if len(names) > SOME else "")
