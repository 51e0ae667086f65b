"""A project of three modules, each test's own, whose edits change the digest of a function or leave it."""

import pytest

from atlas.cache import keys
from atlas.cache.fingerprint import modules, source
from atlas.study import unedited
from atlas.study.schema import signatures

METHOD = '''
"""A family."""
import numpy as np
from atlas.methods._helper import double
from atlas.kernel import Classifier

FACTOR = 2
OTHER = 3
ATTRS = {"first": {"long_name": "First"}}


def first(classifier: Classifier, images, *, steps: int):
    """Explain."""
    return _inner(images) * FACTOR


def _inner(images):
    # a comment
    return double(np.abs(images))


def second(images):
    return images * OTHER
'''
HELPER = """
def double(x):
    return 2 * x


def triple(x):
    return 3 * x
"""
KERNEL = """
class Base:
    def run(self):
        return 1


class Classifier(Base):
    def go(self):
        return self.run()
"""


def forget():
    source.forget()
    modules.forget()
    keys._code.cache_clear()


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A project of three modules; calling it edits one and gives the digest of `first`."""
    atlas = tmp_path / "atlas"
    (atlas / "methods").mkdir(parents=True)
    files = {"methods/family.py": METHOD, "methods/_helper.py": HELPER, "kernel.py": KERNEL}
    for name, text in files.items():
        (atlas / name).write_text(text)
    for package in (atlas, atlas / "methods"):
        (package / "__init__.py").write_text("")
    monkeypatch.setattr(signatures, "HOUSE", atlas)
    monkeypatch.setattr(modules, "HOUSE", atlas)
    monkeypatch.setattr(unedited, "HOUSE", atlas)

    def edited(name: str | None = None, old: str = "", new: str = "") -> bytes:
        if name:
            text = (atlas / name).read_text()
            assert old in text
            (atlas / name).write_text(text.replace(old, new))
        forget()
        return keys.code(("atlas.methods.family", "first"))

    yield edited
    forget()
