"""Tell the versions of installed packages, and of all that they require in turn."""

from functools import cache
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# Imported under another name than they are installed under; others are looked up, which takes longer.
INSTALLED = {"cv2": "opencv-python-headless", "skimage": "scikit-image", "yaml": "pyyaml"}
ABSENT = "not installed"


def versions(packages: set[str] | frozenset[str]) -> dict[str, str]:
    """Give the version of each installed distribution that imported packages belong to or require, directly or not.

    Requirements are read off what is installed: those that an environment marker or an extra leaves out are not in it.
    A package that is imported and not installed is told as such.
    """
    found: dict[str, str] = {}
    for package in sorted(packages):
        own = distributions(package)
        found |= dict.fromkeys([] if own else [package], ABSENT)
        for name in own:
            found |= _required(name)
    return dict(sorted(found.items()))


@cache
def distributions(package: str) -> tuple[str, ...]:
    """Name the installed distributions that an imported package comes from."""
    try:
        return (canonicalize_name(metadata.distribution(INSTALLED.get(package, package)).metadata["Name"]),)
    except metadata.PackageNotFoundError:
        return tuple(sorted({canonicalize_name(name) for name in _all_packages().get(package, [])}))


@cache
def _required(distribution: str) -> dict[str, str]:
    """Walk from a distribution to all that it requires; give their versions."""
    found: dict[str, str] = {}
    waiting = [(distribution, frozenset({""}))]
    seen = set()
    while waiting:
        at = waiting.pop()
        if at in seen:
            continue
        seen.add(at)
        name, extras = at
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # an optional one that is not there
        for text in metadata.requires(name) or []:
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append((canonicalize_name(needed.name), frozenset({"", *needed.extras})))
    return found


@cache
def _all_packages() -> dict[str, list[str]]:
    return dict(metadata.packages_distributions())
