"""Find the versions of Python, of installed packages, and of all their requirements, direct and indirect."""

import json
import sys
from functools import cache
from hashlib import blake2b
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from atlas.study.errors import UserError

# Packages whose import name differs from the distribution's. A general lookup opens the metadata of everything
# installed; this table spares stages that wait (a test compares the two).
INSTALLED = {"PIL": "pillow", "cv2": "opencv-python-headless", "skimage": "scikit-image", "yaml": "pyyaml"}
ABSENT = "not installed"
ANY = "*"  # in place of a package name: everything installed
PYTHON = "python"


def versions(packages: set[str] | frozenset[str]) -> dict[str, str]:
    """Return the versions of Python, of the distributions that packages belong to, and of all they require.

    Of Python, it is the minor version: sums of floats, for example, differ between 3.11 and 3.12.
    Requirements are read from what is installed: those excluded by an environment marker or an extra are not included.
    An optional import that is not installed is recorded as absent. An editable installation has the digest of its code
    beside its version.

    Raises:
        UserError: a package belongs to no installed distribution, so that edits of it would go unnoticed.
    """
    found = {PYTHON: version(PYTHON)}
    if ANY in packages:
        found |= {name: version(name) for name in {name for names in _all_packages().values() for name in names}}
    for package in sorted(packages - {ANY}):
        own = distributions(package)
        if not own and (spec := find_spec(package)) is not None:
            raise UserError(
                f"code of a stage imports {package} ({spec.origin}), which belongs to no installed "
                "package: no key would show its edits; put it into a folder of atlas/, or install it"
            )
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
    """Return the versions of a distribution and of everything it requires, directly or not."""
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
            found[name] = version(name)
        except metadata.PackageNotFoundError:
            continue  # optional and not installed
        for text in metadata.requires(name) or []:
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append((canonicalize_name(needed.name), frozenset({"", *needed.extras})))
    return found


@cache
def version(distribution: str) -> str:
    """Return the version of Python, or of an installed distribution, with a digest of its code if that is editable.

    Raises:
        PackageNotFoundError: it is not installed.
    """
    if distribution == PYTHON:
        return f"{sys.version_info.major}.{sys.version_info.minor}"
    installed = metadata.distribution(distribution)
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    if not origin.get("dir_info", {}).get("editable"):
        return installed.version
    total = blake2b(digest_size=16)
    folder = Path(unquote(urlsplit(origin["url"]).path))
    for file in sorted(folder.rglob("*.py")):
        if not any(part.startswith(".") or part == "site-packages" for part in file.relative_to(folder).parts):
            total.update(f"{file.relative_to(folder)} {file.stat().st_size} ".encode() + file.read_bytes())
    return f"{installed.version}+{total.hexdigest()}"


@cache
def edited() -> tuple[str, ...]:
    """Return the folders of editable installations; `version` digests the modules in them."""
    found = set()
    for installed in metadata.distributions():
        origin = json.loads(installed.read_text("direct_url.json") or "{}")
        if origin.get("dir_info", {}).get("editable"):
            found.add(str(Path(unquote(urlsplit(origin["url"]).path)).resolve()))
    return tuple(found)


@cache
def _all_packages() -> dict[str, list[str]]:
    return dict(metadata.packages_distributions())
