"""Find the versions of installed packages, and of all that they require in turn."""

import json
from functools import cache
from hashlib import blake2b
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from atlas.study.errors import UserError

# Imported under another name than they are installed under. Any package may be looked up, which opens the files of all
# that is installed; a process of a stage does not wait for that for these few (a test compares the two).
INSTALLED = {"PIL": "pillow", "cv2": "opencv-python-headless", "skimage": "scikit-image", "yaml": "pyyaml"}
ABSENT = "not installed"
ANY = "*"  # instead of a package: all that are installed


def versions(packages: set[str] | frozenset[str]) -> dict[str, str]:
    """Return the version of each installed distribution that imported packages belong to or require, directly or not.

    Requirements are read off what is installed: those that an environment marker or an extra leaves out are not in it.
    An import that is tried and fails is told as such. One that is installed from a folder in which it is edited has the
    digest of its code beside its version.

    Raises:
        UserError: a package is there and belongs to nothing that is installed, so that nothing tells its edits.
    """
    found: dict[str, str] = {}
    if ANY in packages:
        found |= {name: version(name) for name in {name for names in _all_packages().values() for name in names}}
    for package in sorted(packages - {ANY}):
        own = distributions(package)
        if not own and find_spec(package) is not None:
            raise UserError(
                f"code of a stage imports {package} ({find_spec(package).origin}), which belongs to no installed "
                "package: no key would tell its edits; put it into a folder of atlas/, or install it"
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
            found[name] = version(name)
        except metadata.PackageNotFoundError:
            continue  # an optional one that is not there
        for text in metadata.requires(name) or []:
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append((canonicalize_name(needed.name), frozenset({"", *needed.extras})))
    return found


@cache
def version(distribution: str) -> str:
    """Return the version of an installed distribution, with the digest of its code where that can be edited.

    Raises:
        PackageNotFoundError: it is not installed.
    """
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
    """Return the folders that packages are installed from and edited in: of their modules `version` has the digest."""
    found = set()
    for installed in metadata.distributions():
        origin = json.loads(installed.read_text("direct_url.json") or "{}")
        if origin.get("dir_info", {}).get("editable"):
            found.add(str(Path(unquote(urlsplit(origin["url"]).path)).resolve()))
    return tuple(found)


@cache
def _all_packages() -> dict[str, list[str]]:
    return dict(metadata.packages_distributions())
