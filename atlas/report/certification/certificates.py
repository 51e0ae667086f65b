"""The report's contents on certified maps, as plain values for its template."""

from concurrent.futures import Executor
from typing import Any

import numpy as np

from atlas.inputs.certification import Votes
from atlas.report.certification import certified, certified_curves, grid_localization, published
from atlas.report.certification.certified_results import Found, Test, first_test, group, on_grids
from atlas.report.certification.grid_localization import GAME, GRIDS, NOTHING, TIES
from atlas.report.charts import tradeoff
from atlas.report.charts.theme import keys
from atlas.report.charts.tradeoff import Point, Traded
from atlas.report.images.gallery import FINE, Shown
from atlas.report.images.pictures import image
from atlas.study.schema.settings import Entry

ABSTAINED = "abstained"
# Headings of columns.
COLUMNS = {
    certified_curves.IMPORTANT: "important, %",
    certified_curves.UNIMPORTANT: "unimportant, %",
    ABSTAINED: "abstained, %",
    "certified_localization": "localization",
    "certified_consistency": "as in the clean map",
    "parted_ties": "samples with ties",
}
NOTES = {
    "certified_localization": "Localization: over only those images with a pixel certified important, so that a "
    "method that certifies little is scored on its surest images.",
    "certified_consistency": "As in the clean map: over only those images with a certified pixel; at a small K "
    "most of these are unimportant, so that it is high (1 − 2 K / 100 or more where all are certified) whatever the "
    "important ones do.",
    "parted_ties": grid_localization.TIED,
}


def section(known: Found, given: dict, processes: Executor) -> dict[str, Any]:
    """Return the contents of the section; charts are drawn in other processes."""
    test, table = first_test(given), known.table
    classifiers, methods = (table[name].values.tolist() for name in ("classifier", "method"))
    smoothings = {name: known.voted(name) for name in methods}
    return {
        "test": test.text(),
        "tests": tested(known, test),
        "levels": legend(test.smoothing.settings["levels"]),
        "tradeoffs": [
            one
            for game in known.of(GAME)
            for name in known.classifiers(game)
            if (one := traded(known, given, game, name))
        ],
        "sweeps": certified_curves.sweep_charts(known, processes),
        "games": grid_localization.sweep_charts(known, given, processes),
        "removals": certified_curves.removed(known, processes),
        "numbers": [one for test in tests(known) for name in classifiers for one in numbers(known, name, test)],
        "on_grids": [
            one
            for test, tile in grid_localization.tests(known)
            for name in classifiers
            if "grids" in known.pixels[name]
            for one in grid_localization.numbers(known, name, test, tile)
        ],
        "families": keys(families(known)),
        "partly": [(name, of) for name, of in smoothings.items() if 0 < len(of) < len(known.smoothings)],
        "uncertified": [name for name, of in smoothings.items() if not of],
    }


def tested(known: Found, first: Test) -> list[dict[str, Any]]:
    """Return every test that the section uses, and how many votes certify a pixel by it.

    Args:
        known: The results.
        first: The test to list first.

    Returns:
        The test; and by kind of picture that it is used on, the pixels of a map, the votes, and the classifiers.
    """
    found: dict[str, dict[str, Any]] = {first.name: {"test": first, "images": {}, "grids": {}}}
    for metric in known.metrics:
        of = group(metric)
        for test in known.tests(metric):
            row = found.setdefault(test.name, {"test": test, "images": {}, "grids": {}})
            for name in known.classifiers(metric):
                pixels = known.pixels[name][of]
                row[of].setdefault((pixels, test.votes(pixels)), {})[name] = None
    for row in found.values():
        row |= {of: [(*key, list(names)) for key, names in row[of].items()] for of in ("images", "grids")}
    return list(found.values())


def legend(levels: list[int]) -> list[tuple[int, str]]:
    """Return each level's color in the pictures."""
    return [
        (level, certified.formatted(color)) for level, color in zip(levels, certified.colors(len(levels)), strict=True)
    ]


def families(known: Found) -> list[str]:
    """Return the families of methods with votes, each a color and a marker; controls are hollow and need none."""
    methods = [name for name in known.table["method"].values.tolist() if known.voted(name)]
    return list(dict.fromkeys(known.family(name) for name in methods if not known.control(name)))


def traded(known: Found, given: dict, game: Entry, classifier: str) -> dict[str, Any] | None:
    """Return the chart and table of certified share on grids against localization in the explained tile.

    The certified share is that of grids, or of images if that was not measured; published values are for grids.

    Args:
        known: The results.
        given: The content of params.yaml.
        game: An entry of the certified grid pointing game.
        classifier: The classifier's name.
    """
    test = known.test(game)
    share = known.alike(GRIDS, test, game.options["tile"]) or known.alike(ABSTAINED, test)
    if share is None:
        return None
    level, radius = game.options["level"], known.where(test)
    nothing, parted = (known.alike(function, test, game.options["tile"]) for function in (NOTHING, TIES))
    counted = nothing is not None and nothing.options["count"] == game.options["count"]
    theirs = published.places(known, given, game, classifier) if share.function == GRIDS else {}
    listed = []
    for method in known.scored(game):
        left = known.point(share, classifier, method, radius, level)
        mean, low, high = (1 - one / 100 for one in (left.mean, left.high, left.low))
        certain = Point(mean, low, high, left.count)
        place = known.point(game, classifier, method, radius, level)
        empty = known.point(nothing, classifier, method, radius, level)
        filled = (round(empty.count * (1 - empty.mean)), empty.count) if counted and empty.known else None
        about = method, known.family(method), known.control(method)
        ties = known.point(parted, classifier, method, radius, level)
        listed.append(Traded(*about, place, certain, ties, filled, theirs.get(method)))
    listed.sort(key=lambda one: np.hypot(1 - one.game.mean, 1 - one.share.mean) if one.known else np.inf)
    chance = grid_localization.chance(given, classifier)
    return {
        "entry": game.name,
        "classifier": classifier,
        "chart": tradeoff.chart(listed, [*families(known), "control"], chance, classifier, game.name),
        "rows": listed,
        "level": level,
        "at": test.place,
        "how": test.how,
        "tile": game.options["tile"],
        "chance": chance,
        "grids": share.function == GRIDS,
        "ties": parted is not None,
        "published": bool(theirs),
    }


def tests(known: Found) -> list[Test]:
    """Return the tests by which metrics of votes on images rank, without repetition."""
    found = [known.test(one) for one in known.metrics if one.options["smoothings"] and not on_grids(one)]
    return list({one.name: one for one in found}.values())


def columns(known: Found, test: Test) -> list[Entry]:
    """Return the metrics of single images that use a test."""
    return [one for one in (known.alike(function, test) for function in COLUMNS) if one is not None]


def numbers(known: Found, classifier: str, test: Test) -> list[dict[str, Any]]:
    """Return a table per level of the certified results by a test."""
    listed, methods = columns(known, test), test.smoothing.methods
    heads = [(one.name, COLUMNS[one.function]) for one in listed]
    about = {"test": test.name, "at": test.place, "how": test.how, "classifier": classifier, "heads": heads}
    about["notes"] = [NOTES[one.function] for one in listed if one.function in NOTES]
    found = []
    radius = known.where(test)
    for level in test.smoothing.settings["levels"] if listed else []:
        rows = [
            (name, known.control(name), [known.point(one, classifier, name, radius, level) for one in listed])
            for name in methods
        ]
        found.append({**about, "level": level, "rows": rows})
    return found


def panels(shown: dict[str, list[Shown]], votes: dict[str, dict[str, Votes]], test: Test, *, side: int) -> list[dict]:
    """Return the pictures of each image: the certified pixels of every certified method's map, None if there are none.

    Args:
        shown: The first images by classifier.
        votes: Votes by classifier and method, on the maps of these images.
        test: How labels are derived from votes.
        side: The largest side of a picture in pixels.
    """
    levels, found = test.smoothing.settings["levels"], []
    for classifier, listed in shown.items():
        marks = {method: test.labels(cast) for method, cast in votes[classifier].items()}
        for row, one in enumerate(listed if marks else []):
            what = f"{one.target}, image {one.image}"
            rows = []
            for method in test.smoothing.methods:
                drawn = []
                if method in marks:
                    own, named = marks[method][row], f"of {method}: {what}"
                    drawn = [certified.overlay(own, f"Certified important at all levels {named}", side=side)]
                    drawn += [
                        certified.panel(own, place, f"Certified of the top {level}% {named}", side=side)
                        for place, level in enumerate(levels)
                    ]
                    cast = votes[classifier][method]
                    drawn.append(certified.average(cast, row, 0, f"Smoothed top {levels[0]}% {named}", side=side))
                rows.append((method, drawn))
            picture = image(one.pixels, f"The image: {what}", side=side)
            known = {"classifier": classifier, "image": one.image, "target": one.target}
            fine = max(picture.width, picture.height) > FINE
            found.append({**known, "picture": picture, "fine": fine, "rows": rows})
    return found
