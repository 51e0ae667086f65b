"""Metrics that do what they must not, or look as if they did: each a module of its own in a copy of the project.

Run in that copy: `python forms.py` calls them all, one after another, and prints what is told of each.
"""

import json
import sys
import textwrap
from importlib import import_module
from pathlib import Path

HEAD = """
import os
import random
import sys
import threading
import warnings

import numpy as np
import torch

ATTRS = {"form": {"better": "higher"}}
"""
SUM = "return maps.flatten(1).sum(dim=1)"

# What they do; the module's top level stands before a line of dashes.
FAULTS = {
    # writes into what it was given
    "abs_": ("maps.abs_()", "writes into maps"),
    "item": ("maps[0, 3, 4] = 7", "writes into maps"),
    "nan_item": ("maps.data[1, 2, 2] = float('nan')", "writes into maps"),
    "view": ("maps.view(-1)[5:9].zero_()", "writes into maps"),
    "data": ("maps.data.mul_(2)", "writes into maps"),
    "numpy": ("maps.numpy()[0] += 1", "writes into maps"),
    "detached_numpy": ("maps.detach().numpy()[-1, -1, -1] = 3", "writes into maps"),
    "sorted_numpy": ("maps.numpy().sort(axis=-1)", "writes into maps"),
    "dlpack": ("np.from_dlpack(maps)[0, 0, 0] = 9", "writes into maps"),
    "set_data": ("maps.data = maps * 2", "writes into maps"),
    "shape_": ("maps.unsqueeze_(1)", "writes into maps"),
    "grad_": ("maps.requires_grad_()", "writes into maps"),
    "out": ("torch.add(images, 1, out=images)", "writes into images"),
    "masks": ("masks.logical_not_()", "writes into masks"),
    "raises_after": ("maps.abs_(); raise ValueError('no')", "writes into maps"),
    "back": ("maps.add_(1); maps.sub_(1)", "writes into maps"),
    "seeds": ("seeds.append(3)", "writes into seeds"),
    "votes": ("votes[0].counts0[0, 0] = 1", "writes into votes"),
    "settings": ("shares.pop()", "writes into settings"),
    "shared_with_others": (
        "order.ranking(maps, seeds).zero_()\n-----\nfrom atlas.metrics.shared import order",
        "writes into what ranking returned",
    ),
    "shared_numpy": (
        "order.ranking(maps, seeds).numpy()[0] = 0\n-----\nfrom atlas.metrics.shared import order",
        "writes into what ranking returned",
    ),
    # writes into the network
    "weights": ("next(classifier.graph('input').parameters()).data.zero_()", "writes into classifier"),
    "new_cut": ("next(classifier.graph('features.block').parameters()).data.zero_()", None),
    "buffer": ("classifier._network.features.norm.running_mean.add_(1)", "writes into classifier"),
    "training": ("classifier._network.train()", "writes into classifier"),
    "unfrozen": ("classifier._network.requires_grad_(True)", "writes into classifier"),
    "hook": ("classifier._network.head.register_forward_hook(print)", "writes into classifier"),
    "pre_hook": ("classifier._network.head.register_forward_pre_hook(print)", "writes into classifier"),
    "backward_hook": ("classifier._network.head.register_full_backward_hook(print)", "writes into classifier"),
    "forward": ("classifier._network.features.act.forward = torch.nn.functional.elu", "writes into classifier"),
    "replaced": ("classifier._network.features.act = torch.nn.ELU()", "writes into classifier"),
    "eps": ("classifier._network.features.norm.eps = 1.0", "writes into classifier"),
    "mean": ("classifier.mean.zero_()", "writes into classifier"),
    "batch": ("classifier.batch = 3", "writes into classifier"),
    "logits_of_instance": ("classifier.logits = lambda images: images", "writes into classifier"),
    "logits_of_class": ("type(classifier).logits = lambda self, images: images", "changes what Classifier holds"),
    "forward_of_class": (
        "torch.nn.BatchNorm2d.forward = lambda self, x: x",
        "torch.nn.modules.batchnorm.BatchNorm2d holds",
    ),
    "part_of_class": (
        "torch.nn.Conv2d._conv_forward = lambda self, x, *_: x[:, :1].repeat(1, 4, 1, 1)",
        "changes what torch.nn.modules.conv.Conv2d holds",
    ),
    "base_of_class": (
        "torch.nn.modules.batchnorm._NormBase.eps = 1.0",
        "changes what torch.nn.modules.batchnorm._NormBase holds",
    ),
    "part_of_kernel": (
        "setattr(layers, [n for n in dir(layers) if n[0] != '_'][0], 1)\n-----\nfrom atlas.model import layers",
        "changes what atlas.model.layers holds",
    ),
    # leaves the process changed
    "cudnn_sdp": ("torch.backends.cuda.enable_cudnn_sdp(False)", "changes torch's attention (cudnn_sdp)"),
    "mkldnn": ("torch._C._set_mkldnn_enabled(False)", "changes torch.backends.mkldnn.enabled"),
    "mkldnn_deterministic": (
        "torch.backends.mkldnn.deterministic = True",
        "changes torch.backends.mkldnn.deterministic",
    ),
    "einsum": ("torch.backends.opt_einsum.strategy = 'greedy'", "changes torch.backends.opt_einsum.strategy"),
    "cv2_threads": ("cv2.setNumThreads(3)\n-----\nimport cv2", "changes cv2's number of threads"),
    "threads": ("torch.set_num_threads(3)", "changes torch's number of threads"),
    "dtype": ("torch.set_default_dtype(torch.float64)", "changes torch's default dtype"),
    "grad_mode": ("torch.set_grad_enabled(False)", "changes torch's gradient mode"),
    "autocast": ("torch.set_autocast_enabled('cpu', True)", "changes torch's autocast"),
    "deterministic": ("torch.set_deterministic_debug_mode(1)", "changes torch's algorithms"),
    "precision": ("torch.set_float32_matmul_precision('medium')", "changes torch's precision"),
    "benchmark": ("torch.backends.cudnn.benchmark = True", "changes torch.backends.cudnn.benchmark"),
    "denormal": ("torch.set_flush_denormal(True)", "changes torch's treatment of denormal numbers"),
    "device": ("torch.set_default_device('meta')", "changes torch's default device"),
    "torch_random": ("torch.rand(3)", "changes torch's random numbers"),
    "torch_seed": ("torch.manual_seed(0)", "changes torch's random numbers"),
    "numpy_random": ("np.random.rand()", "changes NumPy's random numbers"),
    "numpy_seed": ("np.random.seed(1)", "changes NumPy's random numbers"),
    "python_random": ("random.shuffle([1, 2, 3])", "changes Python's random numbers"),
    "errstate": ("np.seterr(all='ignore')", "changes NumPy's treatment of errors"),
    "environ": ("os.environ['OMP_NUM_THREADS'] = '1'", "changes the environment"),
    "putenv": ("os.environ.pop('HOME', None)", "environment"),
    "cwd": ("os.chdir('/')", "changes the working directory"),
    "path": ("sys.path.insert(0, '/nowhere')", "changes sys.path"),
    "filters": ("warnings.simplefilter('error')", "changes the filters of warnings"),
    "stdout": ("sys.stdout = None", "changes the standard streams"),
    "global_hook": (
        "torch.nn.modules.module.register_module_forward_hook(lambda *a: None)",
        "changes torch's hooks of all layers",
    ),
    "signal": ("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)", "changes the handlers of signals"),
    "profile": ("sys.setprofile(lambda *_: None)", "changes what traces calls"),
    "excepthook": ("sys.excepthook = print", "changes what traces calls"),
    "umask": ("os.umask(0o77)", "changes the permissions of new files"),
    "affinity": ("os.sched_setaffinity(0, [0])", "changes its processors"),
    "alarm": ("import signal; signal.alarm(1000)", "changes its alarm"),
    "nnpack": (
        "torch._C._set_nnpack_enabled(not torch._C._get_nnpack_enabled())",
        "changes torch.backends.nnpack",
    ),
    "thread": ("threading.Thread(target=threading.Event().wait, daemon=True).start()", "leaves a thread running"),
    # reads what no key holds
    "open": ("open('table.npy', 'rb').read()", "reads table.npy, which its key does not hold"),
    "np_load": ("np.load('table.npy')", "reads table.npy, which its key does not hold"),
    "np_beside": ("np.load(os.path.join(os.path.dirname(__file__), 'beside.npy'))", 'FILES = ["beside.npy"]'),
    "memmap": ("np.memmap('table.npy')", "reads table.npy"),
    "fromfile": ("np.fromfile('table.npy')", "reads table.npy"),
    "os_open": ("os.read(os.open('table.npy', os.O_RDONLY), 10)", "reads table.npy"),
    "torch_load": ("torch.load('table.pt')", "reads table.pt"),
    "pathlib": ("__import__('pathlib').Path('table.npy').read_bytes()", "reads table.npy"),
    "caught": ("try:\n    np.load('table.npy')\nexcept Exception:\n    pass", "reads table.npy"),
    "zarr": ("import zarr; zarr.open_group('table.zarr', mode='r')['x'][:]", "table.zarr"),
    "sqlite": ("import sqlite3; sqlite3.connect('table.db').close()", "reads table.db"),
    "pillow": ("from PIL import Image; Image.open('table.png').load()", "reads table.png"),
    "in_thread": (
        "one = threading.Thread(target=lambda: open('table.npy', 'rb').read()); one.start(); one.join()",
        "reads table.npy",
    ),
    "at_import": ("TABLE\n-----\nTABLE = np.load('table.npy')", "reads table.npy"),
    "source": ("open(os.path.join(os.path.dirname(__file__), 'recovery.py')).read()", "a module that its key does not"),
    "listing": ("os.listdir('atlas')", "lists the folder atlas"),
    "globbing": ("__import__('glob').glob('*.npy')", "lists the folder"),
    "import_module": (
        "import_module('atlas.metrics.' + 'recovery')\n-----\nfrom importlib import import_module",
        "imports atlas.metrics.recovery, which its key does not hold",
    ),
    "dunder_import": ("__import__('atlas.metrics.' + 'recovery')", "imports atlas.metrics.recovery"),
    "fromlist": (
        "__import__('atlas.metrics', fromlist=['recov' + 'ery']).recovery",
        "imports atlas.metrics.recovery",
    ),
    "sys_modules": ("sys.modules['atlas.metrics.' + 'grid'].ATTRS", None),
    "find": (
        "find('metrics', 'recov' + 'ery', 'ATTRS')\n-----\nfrom atlas.study.params import find",
        "imports atlas",
    ),
    "spec": (
        "from importlib import util\nspec = util.spec_from_file_location('x', 'beside.py')\n"
        "spec.loader.exec_module(util.module_from_spec(spec))",
        "reads beside.py",
    ),
    "beside": ("sys.path.append('elsewhere'); import apart", "reads elsewhere/apart.py"),
    "getenv": ("os.getenv('SCALE')", "reads the environment (SCALE)"),
    "environ_get": ("os.environ.get('SCALE', '1')", "reads the environment (SCALE)"),
    "environ_in": ("'SCALE' in os.environ", "reads the environment (SCALE)"),
    "environ_dict": ("dict(os.environ)", "reads the environment"),
    "environ_name": ("environ['SCALE']\n-----\nfrom os import environ", "reads the environment (SCALE)"),
    "environb": ("os.environb.get(b'SCALE')", "reads the environment"),
    "expandvars": ("os.path.expandvars('$SCALE')", "reads the environment (SCALE)"),
    "proc_environ": ("open('/proc/self/environ', 'rb').read()", "reads the environment"),
    "ctypes_getenv": ("import ctypes; ctypes.CDLL(None).getenv(b'SCALE')", "calls getenv of the C library"),
    "env_at_import": ("SCALE\n-----\nSCALE = os.environ.get('SCALE', '1')", "reads the environment (SCALE)"),
    "popen": ("import subprocess; subprocess.run(['true'])", "starts a process"),
    "system": ("os.system('true')", "starts a process"),
    "fork": ("os.fork() or os._exit(0)", "starts a process"),
    "socket": ("import socket; socket.create_connection(('127.0.0.1', 9), 1)", "uses the network"),
    "writes": ("np.save('kept.npy', maps.numpy())", "writes kept.npy"),
    "removes": ("os.remove('table.npy')", "writes table.npy"),
}

SOUND = {
    "declared": ("np.load(os.path.join(os.path.dirname(__file__), 'beside.npy'))\n-----\nFILES = ['beside.npy']", ""),
    "follows": ("order.ranking(maps, seeds)\n-----\nfrom atlas.metrics.shared import order", ""),
    "imports_late": ("from atlas.metrics.shared.order import ranking", ""),
    "package_late": ("import scipy.signal, xml.dom.minidom; scipy.signal.hann if 0 else 0", ""),
    "scratch": (
        "import tempfile\nwith tempfile.TemporaryFile() as f:\n    f.write(b'1'); f.seek(0); assert f.read() == b'1'\n"
        "with tempfile.TemporaryDirectory() as d:\n    np.save(d + '/x.npy', 1); assert np.load(d + '/x.npy') == 1",
        "",
    ),
    "own_random": (
        "torch.rand(3, generator=torch.Generator().manual_seed(seeds[0])); np.random.default_rng(3).random()",
        "",
    ),
    "forked": ("with torch.random.fork_rng(devices=[]):\n    torch.manual_seed(1); torch.rand(3)", ""),
    "contexts": (
        "with torch.no_grad(), np.errstate(all='ignore'), warnings.catch_warnings():\n"
        "    warnings.simplefilter('ignore'); np.log(np.zeros(2))",
        "",
    ),
    "copies": ("maps = maps.clone().abs_(); images.numpy().copy()[0] = 1; list(seeds).append(1)", ""),
    "altered": ("classifier.altered(lambda network: network.head.linear.weight.data.zero_()).logits(images)", ""),
    "gradients": ("classifier.gradient(images, targets, 'logit')", ""),
    "cuts": ("classifier.features(images, 'features.block')", ""),
    "rectified": (
        "with classifier.rectified('positive', 'input'):\n    classifier.gradient(images, targets, 'logit')",
        "",
    ),
    "shows_source": ("import inspect, traceback; inspect.getsource(form); traceback.extract_stack()", ""),
    "joined": ("one = threading.Thread(target=print); one.start(); one.join()", ""),
    "system_files": ("open('/proc/cpuinfo').read(); import torch.utils.cpp_extension if 0 else os", ""),
    "home": ("os.path.expanduser('~')", ""),
    "memory": ("import sqlite3; sqlite3.connect(':memory:').close()", ""),
    "explains": ("explain(classifier, images, targets, seeds)", ""),
}
SOUND["system_files"] = ("open('/proc/cpuinfo').read()", "")

RESULTS = {
    "gives_numpy": ("return maps.numpy().sum((1, 2))", "TypeError: scores that are a numpy.ndarray"),
    "gives_none": ("return None", "TypeError: scores that are a NoneType"),
    "gives_list": ("return [1.0] * len(maps)", "TypeError: scores that are a list"),
    "too_few": ("return maps.flatten(1).sum(dim=1)[1:]", "ValueError: scores of the shape (5,); expected (6,)"),
    "too_many": ("return maps.flatten(1)", "ValueError: scores of the shape (6, 192); expected (6,)"),
    "a_number": ("return maps.sum()", "ValueError: scores of the shape (); expected (6,)"),
    "whole_numbers": ("return torch.arange(6)", "TypeError: scores of torch.int64"),
    "yes_or_no": ("return torch.ones(6, dtype=torch.bool)", "TypeError: scores of torch.bool"),
    "imaginary": ("return torch.ones(6, dtype=torch.complex64)", "TypeError: scores of torch.complex64"),
    "sparse": ("return torch.ones(6).to_sparse()", "TypeError: scores of torch.float32, torch.sparse_coo"),
    "infinite": ("return maps.flatten(1).sum(dim=1) / 0", "ValueError: an infinite score"),
    "raises": ("raise KeyError('x')", "KeyError: 'x'"),
    "exits": ("sys.exit(3)", "RuntimeError: raised SystemExit(3)"),
    "no_exception": ("raise Odd()\n-----\nclass Odd(BaseException): pass", "RuntimeError: raised Odd()"),
    "recursion": (
        "form(maps, images, targets, seeds, masks, votes, classifier, explain, shares=shares)",
        "RecursionError",
    ),
    "with_gradient": ("return maps.flatten(1).sum(dim=1) * torch.ones(1, requires_grad=True)", ""),
    "undefined": ("return maps.flatten(1).sum(dim=1) * float('nan')", ""),
    "doubles": ("return maps.flatten(1).sum(dim=1).double()", ""),
}


def write(house: Path) -> None:
    """Write the metrics into a copy of the project, and what they read."""
    for name, (body, _) in {**FAULTS, **SOUND, **RESULTS}.items():
        body, _, top = body.partition("\n-----\n")
        names = "maps, images, targets, seeds, masks, votes, classifier, explain"
        text = f"{HEAD}\n{top}\n\n\ndef form({names}, *, shares: list[float]):\n"
        text += textwrap.indent(f"{body}\n{SUM}", "    ") + "\n"
        (house / f"atlas/metrics/{name}.py").write_text(text)
    code = """
        import numpy as np, torch, zarr, sqlite3
        from PIL import Image
        np.save("table.npy", np.ones(4)); np.save("atlas/metrics/beside.npy", np.ones(4))
        torch.save(torch.ones(3), "table.pt")
        zarr.open_group("table.zarr", mode="w").create_array("x", data=np.ones(3))
        sqlite3.connect("table.db").execute("create table x (y)")
        Image.new("L", (2, 2)).save("table.png")
    """
    (house / "prepare.py").write_text(textwrap.dedent(code))
    (house / "beside.py").write_text("X = 1\n")
    (house / "elsewhere").mkdir()
    (house / "elsewhere/apart.py").write_text("X = 1\n")


def main() -> None:
    """Call every form on the same inputs; after each fault the inputs are made anew."""
    import cv2  # noqa: F401 - what changes while it is first imported is no fault
    import torch
    from forms_inputs import given, wrote

    from atlas.inputs import calls
    from atlas.study.errors import Fault
    from atlas.study.schema.settings import Entry

    stderr, told = sys.stderr, {}
    inputs, settings = given(), {"shares": [0.5, 0.7]}
    for name in {**FAULTS, **SOUND, **RESULTS}:
        bound = Entry("metrics", name, "form", "form", settings, {})
        try:
            calls.scores(bound, inputs, (6,))
            told[name] = ""
        except Fault as fault:
            told[name] = f"Fault: {fault}"
            calls.forget()
            import_module("atlas.metrics.recovery"), import_module("atlas.metrics.grid")
            inputs, settings = given(), {"shares": [0.5, 0.7]}
        except Exception as error:
            told[name] = f"{type(error).__name__}: {error}"
        if after := wrote(inputs):
            told[name] += f" AND AFTERWARDS {after}"
        print(name, told[name][:150], file=stderr, flush=True)
    torch.set_num_threads(1)
    Path("told.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main()
