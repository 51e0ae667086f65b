"""Check a classifier's entry in params.yaml, and fill in what it leaves out."""

from typing import Any

from atlas.study.errors import UserError
from atlas.study.schema.settings import mapping, settings

REQUIRED = {"dataset", "network"}
# Where a classifier's weights come from: exactly one of these.
SOURCES = ("train", "weights")
OPTIONAL = {*SOURCES, "preprocess", "images", "grids"}


def completed(params: dict, name: str) -> dict[str, Any]:
    """Return a classifier's entry, checked except for its network, with defaults filled in.

    For sections that are null or left out: `grids` and `preprocess` are None, `images` has its defaults, and of `train`
    and `weights` the one that the entry does not have is None.

    Raises:
        UserError: a section is missing, unknown or wrong, or there is not exactly one of `train` and `weights`.
    """
    where = f"classifiers.{name}"
    spec = mapping(params["classifiers"][name], where)
    if not REQUIRED <= set(spec) <= REQUIRED | OPTIONAL:
        missing = ", ".join(sorted(REQUIRED - set(spec))) or "nothing"
        unknown = ", ".join(sorted(set(spec) - REQUIRED - OPTIONAL)) or "nothing"
        known = ", ".join(sorted(REQUIRED | OPTIONAL))
        raise UserError(f"params.yaml: {where}: missing: {missing}; unknown: {unknown}; expected: {known}")
    if not isinstance(spec["dataset"], str) or spec["dataset"] not in params["datasets"]:
        known = ", ".join(params["datasets"])
        raise UserError(f"params.yaml: {where}.dataset: no dataset '{spec['dataset']}'; known: {known}")
    found = {**dict.fromkeys(sorted(OPTIONAL)), **spec}
    given = [source for source in SOURCES if found[source] is not None]
    if len(given) != 1:
        got = " and ".join(given) or "neither"
        raise UserError(f"params.yaml: {where}: expected exactly one of {' and '.join(SOURCES)}, got {got}")
    found["images"] = _images(params, found, where)
    if found["grids"] is not None:
        found["grids"] = settings(f"{where}.grids", found["grids"], "stages/tile", "members")
    if found["preprocess"] is not None:
        if found["weights"] is None:
            message = "a classifier trained here is normalized by statistics of its training images; leave it out"
            raise UserError(f"params.yaml: {where}.preprocess = {found['preprocess']}: {message}")
        found["preprocess"] = settings(
            f"{where}.preprocess", found["preprocess"], "atlas/classifiers/adopting", "normalization"
        )
    if found["train"] is not None:
        found["train"] = settings(f"{where}.train", found["train"], "atlas/classifiers/training", "fit")
        if found["train"]["adversary"] is not None:
            settings(f"{where}.train.adversary", found["train"]["adversary"], "atlas/model/attacks", "attack")
    if found["weights"] is not None:
        found["weights"] = _weights(found["weights"], f"{where}.weights")
    return found


def _images(params: dict, spec: dict, where: str) -> dict[str, Any]:
    rules = settings(f"{where}.images", {} if spec["images"] is None else spec["images"], "stages/select", "eligible")
    for other in rules["correct_by"]:
        if other not in params["classifiers"]:
            known = ", ".join(params["classifiers"])
            message = f"correct_by names '{other}', which is no classifier; known: {known}"
            raise UserError(f"params.yaml: {where}.images: {message}")
        about = params["classifiers"][other]
        if isinstance(about, dict) and about.get("dataset") in params["datasets"].keys() - {spec["dataset"]}:
            message = f"correct_by names '{other}', which is of the dataset {about.get('dataset')}"
            raise UserError(f"params.yaml: {where}.images: {message}; expected classifiers of {spec['dataset']}")
    return rules


def _weights(given: object, where: str) -> dict[str, Any]:
    found = settings(where, mapping(given, where), "atlas/classifiers/adopting", "adopted")
    named = [source for source in ("file", "tag") if found[source] is not None]
    if len(named) != 1:
        raise UserError(
            f"params.yaml: {where}: expected exactly one of file and tag, got {' and '.join(named) or 'none'}"
        )
    digest = found["sha256"]
    if digest is not None and (len(digest) != 64 or set(digest) - set("0123456789abcdef")):
        raise UserError(
            f"params.yaml: {where}.sha256 = {digest!r:.80}: expected 64 hexadecimal digits, a-f in lower case"
        )
    return found
