"""Ways by which a value depends on what stands elsewhere: an edit changes the key, or the call is told as a fault."""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version

import pytest

from atlas.cache.fingerprint import packages
from tests.support.house import forget, house
from tests.support.study import ROOT, environment

__all__ = ["house"]

SUPPORT = ROOT / "tests/support"

HELPER = ("methods/_helper.py", "2 * x", "3 * x")
KERNEL = ("kernel.py", "return 1", "return 2")
# By form: what stands in place of family.py, the edit that must change the key of `first`, and what is edited before.
STATIC = {
    "a name that a module has imported, by getattr": (
        "from atlas.methods import _helper\n\ndef first(images):\n    return getattr(_helper, 'Ba' + 'se')().run()\n",
        KERNEL,
        ("methods/_helper.py", "\ndef double", "from atlas.kernel import Base\n\n\ndef double"),
    ),
    "a name imported twice inside a function": (
        "def first(images):\n    if images is None:\n        from atlas.methods._helper import double as times\n"
        "    else:\n        from atlas.methods._helper import triple as times\n    return times(images)\n",
        HELPER,
    ),
    "an import that is tried inside a function": (
        "def first(images):\n    try:\n        from atlas.methods._helper import double as times\n"
        "    except ImportError:\n        from numpy import abs as times\n    return times(images)\n",
        HELPER,
    ),
    "a name imported twice at the top level": (
        "from functools import partial\nfrom atlas.methods._helper import double as times\n\n"
        "TIMES = partial(times)\n\nfrom atlas.methods._helper import triple as times\n\n"
        "def first(images):\n    return TIMES(images) + times(images)\n",
        HELPER,
    ),
    "a module that a class imports in its body": (
        "class Tool:\n    from atlas.methods import _helper\n\n    def run(self, x):\n"
        "        return self._helper.double(x)\n\ndef first(images):\n    return Tool().run(images)\n",
        HELPER,
    ),
    "a dotted import inside a function": (
        "def first(images):\n    import atlas.methods._helper\n\n    return atlas.methods._helper.double(images)\n",
        HELPER,
    ),
    "sys.modules by getattr": (
        "import sys\nfrom atlas.methods._helper import triple\n\n"
        "def first(images):\n    return getattr(sys, 'mod' + 'ules')['atlas.methods._helper'].double(images)\n",
        HELPER,
    ),
    "__globals__ by getattr": (
        "from atlas.methods._helper import triple\n\n"
        "def first(images):\n    return getattr(triple, '__globals__')['double'](images)\n",
        HELPER,
    ),
    "operator.attrgetter": (
        "from operator import attrgetter\nfrom atlas.methods._helper import triple\n\n"
        "def first(images):\n    return attrgetter('__globals__')(triple)['double'](images)\n",
        HELPER,
    ),
    "pydoc.locate": (
        "import pydoc\nfrom atlas.methods._helper import triple\n\n"
        "def first(images):\n    return pydoc.locate('atlas.methods._helper.double')(images)\n",
        HELPER,
    ),
    "an entry point made by hand": (
        "from importlib.metadata import EntryPoint\nfrom atlas.methods._helper import triple\n\n"
        "def first(images):\n    return EntryPoint('a', 'atlas.methods._helper:double', 'b').load()(images)\n",
        HELPER,
    ),
    "unpickled by name": (
        "import pickle\nfrom atlas.methods._helper import triple\n\n"
        "def first(images):\n    return pickle.loads(b'catlas.methods._helper\\ndouble\\n.')(images)\n",
        HELPER,
    ),
    "unittest.mock.patch": (
        "from unittest import mock\nfrom atlas.methods._helper import triple\n\ndef _half(x):\n    return x / 2\n\n"
        "def first(images):\n    with mock.patch('atlas.methods._helper.triple', "
        "__import__('atlas.methods._helper').methods._helper.double):\n        return triple(images)\n",
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
        "from atlas.kernel import run\nfrom atlas.methods import _helper\n\n"
        "def first(images):\n    return run(images)\n",
        HELPER,
        ("kernel.py", "class Base", "from functools import singledispatch\n\nrun = singledispatch(abs)\n\nclass Base"),
        ("methods/_helper.py", "\ndef double", "from atlas.kernel import run\n\n\n@run.register(list)\ndef double"),
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
        "from atlas.kernel import Base\n\nclass Tool(Base):\n    pass\n\n"
        "def first(images):\n    return Tool().by * images\n",
        ("kernel.py", "return 5", "return 6"),
        ("kernel.py", "class Base:\n", "class Base:\n    @property\n    def by(self):\n        return 5\n\n"),
    ),
    "super() in a class that is made in a function": (
        "from atlas.kernel import Base\n\ndef first(images):\n    class Tool(Base):\n        def run(self):\n"
        "            return super().run() * 2\n    return Tool().run() * images\n",
        KERNEL,
    ),
    "the class of a class cell": (
        "class Tool:\n    def run(self):\n        return __class__.by\n    by = 2\n\n"
        "def first(images):\n    return Tool().run() * images\n",
        ("methods/family.py", "by = 2", "by = 3"),
    ),
    "a class pattern of match": (
        "from atlas.kernel import Classifier\n\ndef first(images):\n    match images:\n"
        "        case Classifier():\n            return images\n    return 2 * images\n",
        ("kernel.py", "(Base)", "(Base, list)"),
    ),
    "a value pattern of match": (
        "from atlas.methods import _helper\n\ndef first(images):\n    match images:\n"
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
        "from atlas.methods._helper import double\n\ndef _run(*what):\n    return what[0](what[1])\n\n"
        "def first(images):\n    return _run(*(double, images))\n",
        HELPER,
    ),
    "a generator that another function makes": (
        "from atlas.methods._helper import double\n\ndef _parts(x):\n    yield from map(double, x)\n\n"
        "def first(images):\n    return sum(_parts(images))\n",
        HELPER,
    ),
    "a coroutine": (
        "import asyncio\nfrom atlas.methods._helper import double\n\nasync def _run(x):\n    return double(x)\n\n"
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
        "from atlas.methods._helper import *\n\ndef first(images):\n    return _half(images)\n",
        ("methods/_helper.py", "x / 2", "x / 3"),
        ("methods/_helper.py", "\ndef double", "__all__ = ['_half']\n\ndef _half(x):\n    return x / 2\n\ndef double"),
    ),
    "a subpackage of a subpackage": (
        "from atlas.methods.one.two import three\n\ndef first(images):\n    return three.FACTOR * images\n",
        ("methods/one/__init__.py", "FACTOR = 2", "FACTOR = 3"),
        ("methods/one/__init__.py", "", "FACTOR = 2\n"),
        ("methods/one/two/__init__.py", "", ""),
        ("methods/one/two/three.py", "", "from atlas.methods.one import FACTOR\n"),
    ),
    "__path__ that a package changes": (
        "from atlas.methods.one import three\n\ndef first(images):\n    return three.FACTOR * images\n",
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
        "import torch\nfrom atlas.methods import _helper\n\n"
        "def first(images):\n    return torch.ops.a.b(images)\n",
        HELPER,
        ("methods/_helper.py", "\ndef double", "import torch\n\n@torch.library.custom_op('a::b')\ndef double"),
    ),
    "a helper that patches torch when it is imported": (
        "import torch\nfrom atlas.methods import _helper\n\ndef first(images):\n    return torch.relu(images)\n",
        HELPER,
        ("methods/_helper.py", "def triple", "import torch\n\ntorch.relu = double\n\n\ndef triple"),
    ),
    "a symbolic link to a module": (
        "from atlas.methods._linked import double\n\ndef first(images):\n    return double(images)\n",
        HELPER,
        ("methods/_linked.py", "->", "_helper.py"),
    ),
    "a symbolic link to a data file": (
        "FILES = ['linked.txt']\n\ndef first(images):\n    return images\n",
        ("methods/table.txt", "1", "2"),
        ("methods/table.txt", "", "1"),
        ("methods/linked.txt", "->", "table.txt"),
    ),
    "sys.modules through another module": (
        "import os\nfrom atlas.methods._helper import triple\n\n"
        "def first(images):\n    return os.sys.modules['atlas.methods._helper'].double(images)\n",
        HELPER,
    ),
    "sys that another module has imported": (
        "from os import sys\nfrom atlas.methods._helper import triple\n\n"
        "def first(images):\n    return sys.modules['atlas.methods._helper'].double(images)\n",
        HELPER,
    ),
    "sys under a name of another module's own": (
        "import threading\nfrom atlas.methods._helper import triple\n\n"
        "def first(images):\n    return threading._sys.modules['atlas.methods._helper'].double(images)\n",
        HELPER,
    ),
    "__globals__ in two parts": (
        "from atlas.methods._helper import triple\n\n"
        "def first(images):\n    return getattr(triple, '__glo' + 'bals__')['double'](images)\n",
        HELPER,
    ),
    "getattr that is handed on": (
        "from functools import reduce\nfrom atlas.methods._helper import triple\n\n"
        "def first(images):\n    return reduce(getattr, ['__glo' + 'bals__'], triple)['double'](images)\n",
        HELPER,
    ),
    "attrgetter of a name that is made": (
        "from operator import attrgetter\nfrom atlas.methods._helper import triple\n\n"
        "def first(images):\n    return attrgetter('__glo' + 'bals__')(triple)['double'](images)\n",
        HELPER,
    ),
    "__globals__ in a text that is formatted": (
        "from atlas.methods._helper import triple\n\n"
        "def first(images):\n    return float('{0.__globals__[LEVEL]}'.format(triple)) * images\n",
        ("methods/_helper.py", "LEVEL = 1", "LEVEL = 2"),
        ("methods/_helper.py", "\ndef double", "LEVEL = 1\n\n\ndef double"),
    ),
    "the builtins by a function's __self__": (
        "from atlas.methods._helper import triple\n\n"
        "def first(images):\n    atlas = len.__self__.__import__('atlas.methods._helper')\n"
        "    return atlas.methods._helper.double(images)\n",
        HELPER,
    ),
    "a name in an expression of pandas": (
        "import pandas\n\nFACTOR = 2\n\n"
        "def first(images):\n    return pandas.DataFrame({'a': [1]}).eval('a * @FACTOR')['a'] * images\n",
        ("methods/family.py", "FACTOR = 2", "FACTOR = 3"),
    ),
    "pandas.eval": (
        "import pandas\n\nFACTOR = 2\n\ndef first(images):\n    return pandas.eval('FACTOR * 2') * images\n",
        ("methods/family.py", "FACTOR = 2", "FACTOR = 3"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", STATIC)
def test_an_edit_of_what_a_value_depends_on_changes_its_key(house, tmp_path, form):
    text, edit, *before = STATIC[form]
    (tmp_path / "atlas/methods/family.py").write_text(text)
    for name, old, new in before:
        place = tmp_path / "atlas" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if old == "->":
            place.symlink_to(new)
        else:
            known = place.read_text() if place.is_file() else ""
            place.write_text(known.replace(old, new, 1) if old else new)
    forget()
    digest = house()
    assert house(*edit) != digest


def test_what_is_imported_by_a_name_made_up_may_be_any_package(house, tmp_path, monkeypatch):
    (tmp_path / "atlas/methods/family.py").write_text(
        "from importlib import import_module\n\ndef first(images, *, by: str):\n    return import_module(by)\n"
    )
    before = house()
    assert packages.versions({packages.ANY})["rich"] == version("rich")
    real = packages.version
    monkeypatch.setattr(packages, "version", lambda name: "99" if name == "rich" else real(name))
    assert house() != before


# By form: the body of a metric (its module's top level after a line of dashes), and what is told of it.
TOLD = {
    # what compiled code opens by itself
    "imread": ("import cv2; cv2.imread('table.png')", "reads files by cv2.imread"),
    "safe_open": (
        "safe_open('table.safetensors', 'pt')\n-----\nfrom safetensors import safe_open",
        "reads files by safetensors.safe_open",
    ),
    "from_file": ("torch.from_file('table.npy', size=1)", "reads files by torch.from_file"),
    "arrow": ("import pyarrow.parquet as pq; pq.read_table('x.parquet')", "reads files by pyarrow.parquet.read_table"),
    "vision": ("import torchvision; torchvision.io.read_file('x')", "reads files by torchvision.io.read_file"),
    "by_getattr": ("import cv2; getattr(cv2, 'imread')('table.png')", "reads files by cv2.imread"),
    "cascade": ("import cv2; cv2.CascadeClassifier('table.xml')", "reads files by cv2.CascadeClassifier"),
    "network": ("import cv2; cv2.dnn.readNet('table.onnx')", "reads files by cv2.dnn.readNet"),
    "storage": ("torch.UntypedStorage.from_file('table.npy')", "reads files by torch.UntypedStorage.from_file"),
    # what Python opens
    "csv": ("import pandas; pandas.read_csv('table.csv')", "reads table.csv"),
    "parquet": ("import pandas; pandas.read_parquet('table.parquet')", "reads files by pandas.read_parquet"),
    "linecache": ("import linecache; linecache.getline('table.csv', 1)", "reads table.csv"),
    "tokenize": ("import tokenize; tokenize.open('table.csv').close()", "reads table.csv"),
    "zipimport": ("sys.path.insert(0, 'table.zip'); import zipped", "reads table.zip"),
    "runpy": ("import runpy; runpy.run_path('beside.py')", "reads beside.py"),
    "get_data": ("import pkgutil; pkgutil.get_data('atlas.metrics', 'beside.npy')", "beside.npy"),
    "resources": (
        "from importlib import resources; resources.files('atlas.metrics').joinpath('beside.npy').read_bytes()",
        "beside.npy",
    ),
    "mmap": ("import mmap; mmap.mmap(os.open('table.npy', os.O_RDONLY), 0, prot=mmap.PROT_READ)", "reads table.npy"),
    "linked": ("np.load(os.path.join(os.path.dirname(__file__), 'linked.npy'))", "reads table.npy"),
    "compiled": ("_heapq.heapify([])\n-----\nfrom atlas.metrics import _heapq", "_heapq"),
    "fwalk": ("[*os.fwalk('atlas/metrics')]", "lists the folder atlas/metrics"),
    "iterdir": ("from pathlib import Path; [*Path().iterdir()]", "lists the folder"),
    "rglob": ("from pathlib import Path; [*Path('atlas').rglob('*.npy')]", "lists the folder"),
    "edited_data": ("mine.table()\n-----\nimport mine", "table.txt, which its key does not hold"),
    # whether a file is there, how large and how old it is
    "exists": ("os.path.exists('table.npy')", "asks about table.npy"),
    "absent": ("from pathlib import Path; Path('nowhere.npy').exists()", "asks about nowhere.npy"),
    "getsize": ("os.path.getsize('table.npy')", "asks about table.npy"),
    "mtime": ("os.stat('table.npy').st_mtime", "asks about table.npy"),
    "access": ("os.access('table.npy', os.R_OK)", "asks about table.npy"),
    # the environment, past os.environ
    "posix": ("import posix; posix.environ[b'SCALE']", "asks about the machine or the process (posix.environ)"),
    "env_data": ("os.environ._data[b'SCALE']", "asks about the machine or the process (os.environ._data)"),
    "env_repr": ("repr(os.environ)", "reads the environment (all of it)"),
    # the clock, entropy, the machine, the process
    "time": ("import time; time.time()", "asks the clock (time.time)"),
    "timer": ("perf_counter()\n-----\nfrom time import perf_counter", "asks the clock (time.perf_counter)"),
    "clock": ("import time; time.clock_gettime(0)", "asks the clock (time.clock_gettime)"),
    "timeit": ("import timeit; timeit.default_timer()", "asks the clock (timeit.default_timer)"),
    "time_by_getattr": ("import time; getattr(time, 'time')()", "asks the clock (time.time)"),
    "now": ("from datetime import datetime as d; d.now()", "asks the clock (datetime.datetime.now)"),
    "uuid": ("import uuid; uuid.uuid4()", "draws random numbers that no key holds (uuid.uuid4)"),
    "urandom": ("os.urandom(4)", "draws random numbers that no key holds (os.urandom)"),
    "secrets": ("import secrets; secrets.randbits(4)", "draws random numbers that no key holds (secrets.randbits)"),
    "unseeded": ("np.random.default_rng()", "(np.random.default_rng() without a seed)"),
    "unseeded_none": ("np.random.default_rng(seed=None)", "(np.random.default_rng() without a seed)"),
    "unseeded_random": ("random.Random().random()", "(random.Random() without a seed)"),
    "generator_seed": ("torch.Generator().seed()", "(torch.Generator().seed() without a seed)"),
    "time_at_import": ("SEED\n-----\nimport time\nSEED = time.time()", "asks the clock (time.time)"),
    "hash": ("hash('a') % 7", "uses hash of a text"),
    "hostname": ("import socket; socket.gethostname()", "asks about the machine or the process (socket.gethostname)"),
    "platform": ("import platform; platform.node()", "asks about the machine or the process (platform.node)"),
    "argv": ("sys.argv[0]", "asks about the machine or the process (sys.argv)"),
    "flags": ("sys.flags.optimize", "asks about the machine or the process (sys.flags)"),
    "getcwd": ("os.getcwd()", "asks about the machine or the process (os.getcwd)"),
    "cpu_count": ("os.cpu_count()", "asks about the machine or the process (os.cpu_count)"),
    "spawn": (
        "import multiprocessing as m; m.get_context('spawn').Process(target=print).start()",
        "starts a process (multiprocessing.get_context)",
    ),
    "processes": (
        "ProcessPoolExecutor(1).submit(len, []).result()\n-----\nfrom concurrent.futures import ProcessPoolExecutor",
        "starts a process (concurrent.futures.ProcessPoolExecutor)",
    ),
    # what is found by unpickling
    "unpickled": (
        "import io; torch.load(io.BytesIO(KEPT), weights_only=False)\n-----\n"
        "KEPT = b'catlas.metrics.recovery\\nATTRS\\n.'",
        "finds atlas.metrics.recovery.ATTRS by unpickling",
    ),
    "unpickled_held": (
        "np.load(os.path.join(os.path.dirname(__file__), 'pickled.npy'), allow_pickle=True)\n-----\n"
        "FILES = ['pickled.npy']",
        "finds atlas.study.seeds.normal by unpickling",
    ),
    # what is left for the next call
    "counter": ("next(COUNT)\n-----\nfrom itertools import count\nCOUNT = count()", "leaves something in "),
    "iterator": ("next(PARTS)\n-----\nPARTS = iter([1, 2, 3])", "leaves something in atlas.metrics.iterator.PARTS"),
    "generator": ("next(PARTS)\n-----\nPARTS = (one for one in [1, 2, 3])", "in atlas.metrics.generator.PARTS"),
    "cached": ("KNOWN.setdefault('x', maps)\n-----\nKNOWN = {}", "leaves something in atlas.metrics.cached.KNOWN"),
    "listed": ("SEEN[0].append(1)\n-----\nSEEN = [[]]", "leaves something in atlas.metrics.listed.SEEN"),
    "global_": ("global N; N += 1\n-----\nN = 1", "leaves something in atlas.metrics.global_.N"),
    "array": ("TABLE[0] += 1\n-----\nTABLE = np.zeros(2)", "leaves something in atlas.metrics.array.TABLE"),
    "running": ("MEAN.add_(1)\n-----\nMEAN = torch.zeros(2)", "leaves something in atlas.metrics.running.MEAN"),
    "default": ("_add(1)\n-----\ndef _add(x, to=[]):\n    to.append(x)", "in atlas.metrics.default._add"),
    "closure": (
        "COUNT()\n-----\ndef _made():\n    n = []\n    def more():\n        n.append(1)\n    return more\n"
        "COUNT = _made()",
        "leaves something in atlas.metrics.closure.COUNT",
    ),
    "on_function": ("_f.calls = 1\n-----\ndef _f(): pass", "leaves something in atlas.metrics.on_function._f"),
    "on_class": ("Tool.known.append(1)\n-----\nclass Tool:\n    known = []", "in atlas.metrics.on_class.Tool"),
    "on_instance": (
        "TOOL.seen += 1\n-----\nclass Tool:\n    seen = 0\nTOOL = Tool()",
        "leaves something in atlas.metrics.on_instance.TOOL",
    ),
    "context": (
        "LAST.set(1)\n-----\nfrom contextvars import ContextVar\nLAST = ContextVar('last', default=0)",
        "leaves something in atlas.metrics.context.LAST",
    ),
    "numpy_generator": (
        "RNG.random()\n-----\nRNG = np.random.default_rng(0)",
        "leaves something in atlas.metrics.numpy_generator.RNG",
    ),
    "torch_generator": (
        "torch.rand(1, generator=RNG)\n-----\nRNG = torch.Generator().manual_seed(0)",
        "leaves something in atlas.metrics.torch_generator.RNG",
    ),
    "python_generator": ("RNG.random()\n-----\nRNG = random.Random(0)", "in atlas.metrics.python_generator.RNG"),
    "on_classifier": ("classifier.seen = 1", "writes into classifier"),
    "on_tensor": ("images.seen = 1", "writes into images"),
    # what other functions would run
    "patched": ("torch.nn.functional.relu = torch.abs", "changes what torch.nn.functional holds"),
    "patched_class": ("torch.Tensor.sum = torch.Tensor.mean", "changes what Tensor holds"),
    "patched_at_import": (
        "pass\n-----\nimport torch.nn.functional\ndef _half(x): return x / 2\ntorch.nn.functional.gelu = _half",
        "changes what torch.nn.functional holds",
    ),
    "patched_project": (
        "setattr(order, 'ranking', len)\n-----\nfrom atlas.metrics.shared import order",
        "leaves something in atlas.metrics.shared.order.ranking",
    ),
    "builtin": ("import builtins; builtins.sum = max", "changes what builtins holds"),
    "finder": ("sys.meta_path.insert(0, type('F', (), {'find_spec': lambda *a: None}))", "changes what finds modules"),
    "decimals": ("import decimal; decimal.getcontext().prec = 3", "changes the precision of decimal numbers"),
}
SOUND = {
    "asks_itself": ("from pathlib import Path; Path(__file__).resolve().parent.is_dir(); os.path.isfile(__file__)", ""),
    "asks_declared": (
        "assert os.path.exists(os.path.join(os.path.dirname(__file__), 'beside.npy'))\n-----\nFILES = ['beside.npy']",
        "",
    ),
    "asks_scratch": (
        "import tempfile\nwith tempfile.NamedTemporaryFile() as f:\n    assert os.path.exists(f.name)",
        "",
    ),
    "decodes": (
        "import cv2\nfrom pathlib import Path\n"
        "cv2.imdecode(np.frombuffer(Path(__file__).with_name('beside.npy').read_bytes(), 'uint8'), 0)\n-----\n"
        "FILES = ['beside.npy']",
        "",
    ),
    "edited": ("assert mine.FACTOR == 2\n-----\nimport mine", ""),
    "remembers": (
        "_twice(3); _twice(4)\n-----\nfrom functools import cache\n@cache\ndef _twice(x): return 2 * x",
        "",
    ),
    "patches_and_restores": (
        "from unittest import mock\nwith mock.patch.object(torch.nn.functional, 'relu', torch.abs):\n    pass",
        "",
    ),
    "seeded": ("random.Random(seeds[0]).random(); np.random.default_rng(seeds[0]).random()", ""),
    "tables": ("TABLE[1][0]; WAYS['a'](maps)\n-----\nTABLE = [[1], [np.nan]]\nWAYS = {'a': lambda x: x}", ""),
    "warns": ("import warnings\nwith warnings.catch_warnings(record=True):\n    warnings.warn('a', stacklevel=1)", ""),
    "progress": ("from tqdm import tqdm\n[*tqdm([1, 2], file=open(os.devnull, 'w'))]", ""),
    "twice": ("maps.sum()\n-----\nLEVELS = torch.tensor([1.0, 2.0])", ""),
}
PREPARED = """
import shutil, zipfile, _heapq, numpy as np
from pathlib import Path
from PIL import Image
import pandas
Path("table.csv").write_text("a,b\\n1,2\\n")
pandas.DataFrame({"a": [1]}).to_parquet("table.parquet")
with zipfile.ZipFile("table.zip", "w") as file:
    file.writestr("zipped.py", "X = 1")
Path("atlas/metrics/linked.npy").symlink_to("../../table.npy")
if getattr(_heapq, "__file__", None):
    shutil.copy(_heapq.__file__, "atlas/metrics")
from atlas.study import seeds
code, info = Path("../code").resolve(), Path("../code/mine-1.0.dist-info")
info.mkdir(parents=True)
(code / "mine.py").write_text(
    "from pathlib import Path\\nFACTOR = 2\\ntable = Path(__file__).with_name('table.txt').read_text\\n"
)
(code / "table.txt").write_text("1")
(info / "METADATA").write_text("Metadata-Version: 2.1\\nName: mine\\nVersion: 1.0\\n")
(info / "RECORD").write_text("mine.py,,\\n")
(info / "direct_url.json").write_text('{"url": "%s", "dir_info": {"editable": true}}' % code.as_uri())
for place in ("pickled.npy", "atlas/metrics/pickled.npy"):
    np.save(place, np.array(seeds.normal, dtype=object), allow_pickle=True)
"""
RUN = """
import json, sys
from tests.support import forms
forms.FAULTS, forms.SOUND, forms.RESULTS = *json.loads(open("tables.json").read()), {}
forms.write(__import__("pathlib").Path()) if sys.argv[1:] else forms.main()
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What is told of every form, each called once in one process, on a copy of the project."""
    here = tmp_path_factory.mktemp("forms") / "house"
    for name in ("atlas", "stages"):
        shutil.copytree(ROOT / name, here / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("forms.py", "forms_inputs.py"):
        shutil.copy(SUPPORT / name, here)
    (here / "tables.json").write_text(json.dumps([TOLD, SOUND]))
    (here / "run.py").write_text(RUN)
    (here / "more.py").write_text(PREPARED)
    known = {**environment(here), "SCALE": "2"}
    for script in (["run.py", "write"], ["prepare.py"], ["more.py"], ["run.py"]):
        done = subprocess.run(
            [sys.executable, *script],
            cwd=here,
            env={**known, "PYTHONPATH": os.pathsep.join([str(here.parent / "code"), known.get("PYTHONPATH", "")])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((here / "told.json").read_text())


@pytest.mark.parametrize("form", TOLD)
def test_what_no_key_holds_is_told(told, form):
    assert told[form].startswith(f"Fault: form: atlas/metrics/{form}.py: form ")
    assert TOLD[form][1] in told[form]
    assert "\n" not in told[form]
    assert "AFTERWARDS" not in told[form]


@pytest.mark.parametrize("form", SOUND)
def test_what_only_looks_like_it_is_not(told, form):
    assert told[form] == ""
