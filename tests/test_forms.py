"""Ways by which a value depends on what stands elsewhere: an edit changes the key, or the call is told as a fault."""

import pytest
from test_keys import forget, house

from stages.cache import keys, packages

__all__ = ["house"]

HELPER = ("methods/_helper.py", "2 * x", "3 * x")
KERNEL = ("kernel.py", "return 1", "return 2")
# By form: what stands in place of family.py, the edit that must change the key of `first`, and what is edited before.
STATIC = {
    "a name that a module has imported, by getattr": (
        "from stages.methods import _helper\n\ndef first(images):\n    return getattr(_helper, 'Ba' + 'se')().run()\n",
        KERNEL,
        ("methods/_helper.py", "\ndef double", "from stages.kernel import Base\n\n\ndef double"),
    ),
    "a name imported twice inside a function": (
        "def first(images):\n    if images is None:\n        from stages.methods._helper import double as times\n"
        "    else:\n        from stages.methods._helper import triple as times\n    return times(images)\n",
        HELPER,
    ),
    "an import that is tried inside a function": (
        "def first(images):\n    try:\n        from stages.methods._helper import double as times\n"
        "    except ImportError:\n        from numpy import abs as times\n    return times(images)\n",
        HELPER,
    ),
    "a name imported twice at the top level": (
        "from functools import partial\nfrom stages.methods._helper import double as times\n\n"
        "TIMES = partial(times)\n\nfrom stages.methods._helper import triple as times\n\n"
        "def first(images):\n    return TIMES(images) + times(images)\n",
        HELPER,
    ),
    "a module that a class imports in its body": (
        "class Tool:\n    from stages.methods import _helper\n\n    def run(self, x):\n"
        "        return self._helper.double(x)\n\ndef first(images):\n    return Tool().run(images)\n",
        HELPER,
    ),
    "a dotted import inside a function": (
        "def first(images):\n    import stages.methods._helper\n\n    return stages.methods._helper.double(images)\n",
        HELPER,
    ),
    "sys.modules by getattr": (
        "import sys\nfrom stages.methods._helper import triple\n\n"
        "def first(images):\n    return getattr(sys, 'mod' + 'ules')['stages.methods._helper'].double(images)\n",
        HELPER,
    ),
    "__globals__ by getattr": (
        "from stages.methods._helper import triple\n\n"
        "def first(images):\n    return getattr(triple, '__globals__')['double'](images)\n",
        HELPER,
    ),
    "operator.attrgetter": (
        "from operator import attrgetter\nfrom stages.methods._helper import triple\n\n"
        "def first(images):\n    return attrgetter('__globals__')(triple)['double'](images)\n",
        HELPER,
    ),
    "pydoc.locate": (
        "import pydoc\nfrom stages.methods._helper import triple\n\n"
        "def first(images):\n    return pydoc.locate('stages.methods._helper.double')(images)\n",
        HELPER,
    ),
    "an entry point made by hand": (
        "from importlib.metadata import EntryPoint\nfrom stages.methods._helper import triple\n\n"
        "def first(images):\n    return EntryPoint('a', 'stages.methods._helper:double', 'b').load()(images)\n",
        HELPER,
    ),
    "unpickled by name": (
        "import pickle\nfrom stages.methods._helper import triple\n\n"
        "def first(images):\n    return pickle.loads(b'cstages.methods._helper\\ndouble\\n.')(images)\n",
        HELPER,
    ),
    "unittest.mock.patch": (
        "from unittest import mock\nfrom stages.methods._helper import triple\n\ndef _half(x):\n    return x / 2\n\n"
        "def first(images):\n    with mock.patch('stages.methods._helper.triple', "
        "__import__('stages.methods._helper').methods._helper.double):\n        return triple(images)\n",
        HELPER,
    ),
    "the source's text by linecache": (
        "import linecache\n\ndef first(images):\n    return len(linecache.getline(__file__, 4)) * images  # ab\n",
        ("methods/family.py", "# ab", "# abc"),
    ),
    "what an annotation does when it is read": (
        "KNOWN = {}\n\ndef twice(x):\n    return 2 * x\n\ndef other(x: KNOWN.setdefault('twice', twice)):\n"
        "    return x\n\ndef first(images):\n    return KNOWN['twice'](images)\n",
        ("methods/family.py", "2 * x", "3 * x"),
    ),
    "what the annotation of a variable does": (
        "KNOWN = {}\n\ndef twice(x):\n    return 2 * x\n\nOTHER: KNOWN.setdefault('twice', twice) = 1\n\n"
        "def first(images):\n    return KNOWN['twice'](images)\n",
        ("methods/family.py", "2 * x", "3 * x"),
    ),
    "functools.singledispatch": (
        "from functools import singledispatch\n\n@singledispatch\ndef run(x):\n    return x\n\n"
        "@run.register\ndef _(x: list):\n    return 2 * x\n\ndef first(images):\n    return run(images)\n",
        ("methods/family.py", "2 * x", "3 * x"),
    ),
    "functools.singledispatch that a helper adds to": (
        "from stages.kernel import run\nfrom stages.methods import _helper\n\ndef first(images):\n    return run(images)\n",
        HELPER,
        ("kernel.py", "class Base", "from functools import singledispatch\n\n\nrun = singledispatch(abs)\n\n\nclass Base"),
        ("methods/_helper.py", "\ndef double", "from stages.kernel import run\n\n\n@run.register(list)\ndef double"),
    ),
    "a descriptor": (
        "class By:\n    def __get__(self, one, kind):\n        return 2\n\nclass Tool:\n    by = By()\n\n"
        "def first(images):\n    return Tool().by * images\n",
        ("methods/family.py", "return 2", "return 3"),
    ),
    "__set_name__": (
        "KNOWN = {}\n\nclass By:\n    def __set_name__(self, kind, name):\n        KNOWN[name] = 2\n\n"
        "class Tool:\n    by = By()\n\ndef first(images):\n    return KNOWN['by'] * images\n",
        ("methods/family.py", "= 2", "= 3"),
    ),
    "a property that a base class elsewhere has": (
        "from stages.kernel import Base\n\nclass Tool(Base):\n    pass\n\n"
        "def first(images):\n    return Tool().by * images\n",
        ("kernel.py", "return 5", "return 6"),
        ("kernel.py", "class Base:\n", "class Base:\n    @property\n    def by(self):\n        return 5\n\n"),
    ),
    "super() in a class that is made in a function": (
        "from stages.kernel import Base\n\ndef first(images):\n    class Tool(Base):\n        def run(self):\n"
        "            return super().run() * 2\n    return Tool().run() * images\n",
        KERNEL,
    ),
    "the class of a class cell": (
        "class Tool:\n    def run(self):\n        return __class__.by\n    by = 2\n\n"
        "def first(images):\n    return Tool().run() * images\n",
        ("methods/family.py", "by = 2", "by = 3"),
    ),
    "a class pattern of match": (
        "from stages.kernel import Classifier\n\ndef first(images):\n    match images:\n"
        "        case Classifier():\n            return images\n    return 2 * images\n",
        ("kernel.py", "(Base)", "(Base, list)"),
    ),
    "a value pattern of match": (
        "from stages.methods import _helper\n\ndef first(images):\n    match images:\n"
        "        case _helper.LEVEL:\n            return images\n    return 2 * images\n",
        ("methods/_helper.py", "LEVEL = 1", "LEVEL = 2"),
        ("methods/_helper.py", "\ndef double", "LEVEL = 1\n\n\ndef double"),
    ),
    "match at the top level": (
        "match 1:\n    case 1:\n        FACTOR = 2\n\ndef first(images):\n    return FACTOR * images\n",
        ("methods/family.py", "FACTOR = 2", "FACTOR = 3"),
    ),
    "a walrus at the top level": (
        "TABLE = [FACTOR := 2]\n\ndef first(images):\n    return FACTOR * images\n",
        ("methods/family.py", ":= 2", ":= 3"),
    ),
    "del at the top level": (
        "from numpy import sign as abs\n\ndel abs\n\ndef first(images):\n    return abs(images)\n",
        ("methods/family.py", "\ndel abs\n", "\n"),
    ),
    "with at the top level": (
        "from contextlib import nullcontext\n\nwith nullcontext(2) as FACTOR:\n    pass\n\n"
        "def first(images):\n    return FACTOR * images\n",
        ("methods/family.py", "(2)", "(3)"),
    ),
    "what is unpacked with a star": (
        "FACTOR, *REST = [1, 2, 3]\n\ndef first(images):\n    return REST[0] * images\n",
        ("methods/family.py", "1, 2, 3", "1, 4, 3"),
    ),
    "arguments that are handed on with a star": (
        "from stages.methods._helper import double\n\ndef _run(*what):\n    return what[0](what[1])\n\n"
        "def first(images):\n    return _run(*(double, images))\n",
        HELPER,
    ),
    "a generator that another function makes": (
        "from stages.methods._helper import double\n\ndef _parts(x):\n    yield from map(double, x)\n\n"
        "def first(images):\n    return sum(_parts(images))\n",
        HELPER,
    ),
    "a coroutine": (
        "import asyncio\nfrom stages.methods._helper import double\n\nasync def _run(x):\n    return double(x)\n\n"
        "def first(images):\n    return asyncio.run(_run(images))\n",
        HELPER,
    ),
    "a closure over what is defined later": (
        "def _outer():\n    return lambda x: LATER(x)\n\ndef first(images):\n    return _outer()(images)\n\n"
        "def _twice(x):\n    return 2 * x\n\nLATER = _twice\n",
        ("methods/family.py", "2 * x", "3 * x"),
    ),
    "a function defined on a condition": (
        "import sys\n\nif sys.maxsize > 1:\n    def twice(x):\n        return 2 * x\n\n"
        "def first(images):\n    return twice(images)\n",
        ("methods/family.py", "2 * x", "3 * x"),
    ),
    "a star import that __all__ widens": (
        "from stages.methods._helper import *\n\ndef first(images):\n    return _half(images)\n",
        ("methods/_helper.py", "x / 2", "x / 3"),
        ("methods/_helper.py", "\ndef double", "__all__ = ['_half']\n\n\ndef _half(x):\n    return x / 2\n\n\ndef double"),
    ),
    "a subpackage of a subpackage": (
        "from stages.methods.one.two import three\n\ndef first(images):\n    return three.FACTOR * images\n",
        ("methods/one/__init__.py", "FACTOR = 2", "FACTOR = 3"),
        ("methods/one/__init__.py", "", "FACTOR = 2\n"),
        ("methods/one/two/__init__.py", "", ""),
        ("methods/one/two/three.py", "", "from stages.methods.one import FACTOR\n"),
    ),
    "__path__ that a package changes": (
        "from stages.methods.one import three\n\ndef first(images):\n    return three.FACTOR * images\n",
        ("methods/one/__init__.py", "_a", "_b"),
        ("methods/one/__init__.py", "", "__path__ = [__path__[0] + '/_a']\n"),
        ("methods/one/three.py", "", "FACTOR = 2\n"),
    ),
    "a file of another encoding": (
        "# -*- coding: latin-1 -*-\ndef first(images):\n    return len('\\u00e9') * images\n",
        ("methods/family.py", "\u00e9", "\u00e9\u00e9"),
        ("methods/family.py", "\\u00e9", "\u00e9"),
    ),
    "a custom operator that a helper registers": (
        "import torch\nfrom stages.methods import _helper\n\ndef first(images):\n    return torch.ops.forms.twice(images)\n",
        HELPER,
        ("methods/_helper.py", "\ndef double", "import torch\n\n\n@torch.library.custom_op('forms::twice', mutates_args=())\ndef double"),
    ),
    "a helper that patches torch when it is imported": (
        "import torch\nfrom stages.methods import _helper\n\ndef first(images):\n    return torch.relu(images)\n",
        HELPER,
        ("methods/_helper.py", "def triple", "import torch\n\ntorch.relu = double\n\n\ndef triple"),
    ),
    "a symbolic link to a module": (
        "from stages.methods._linked import double\n\ndef first(images):\n    return double(images)\n",
        HELPER,
        ("methods/_linked.py", "->", "_helper.py"),
    ),
    "a symbolic link to a data file": (
        "FILES = ['linked.txt']\n\ndef first(images):\n    return images\n",
        ("methods/table.txt", "1", "2"),
        ("methods/table.txt", "", "1"),
        ("methods/linked.txt", "->", "table.txt"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", STATIC)
def test_an_edit_of_what_a_value_depends_on_changes_its_key(house, tmp_path, form):
    text, edit, *before = STATIC[form]
    (tmp_path / "stages/methods/family.py").write_text(text)
    for name, old, new in before:
        place = tmp_path / "stages" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if old == "->":
            place.symlink_to(new)
        else:
            known = place.read_text() if place.is_file() else ""
            place.write_text(known.replace(old, new, 1) if old else new)
    forget()
    digest = house()
    assert house(*edit) != digest


