"""Find code that depends on what no key can hold and Python's audit events do not report.

These are the clock, entropy, the machine, the process, and files that compiled code opens by itself.
"""

import ast
from functools import cache

from atlas.cache.fingerprint.inert import dotted
from atlas.cache.fingerprint.syntax import nodes

# The names, by the message about them; a name that ends with a dot stands for everything in a module.
NAMES = {
    "asks the clock ({}), which no key holds": (
        "datetime.date.today datetime.datetime.now datetime.datetime.today datetime.datetime.utcnow time.ctime "
        "time.gmtime time.localtime time.monotonic time.monotonic_ns time.perf_counter time.perf_counter_ns "
        "time.process_time time.process_time_ns time.strftime time.thread_time time.thread_time_ns time.time "
        "time.time_ns time.clock_gettime time.clock_gettime_ns timeit."
    ),
    "draws random numbers that no key holds ({}): take them from the images' seeds": (
        "os.getrandom os.urandom random.SystemRandom secrets. uuid.uuid1 uuid.uuid4 cv2.kmeans cv2.randn cv2.randu "
        "cv2.randShuffle cv2.setRNGSeed"
    ),
    "asks about the machine or the process ({}), which no key holds: make it a setting in params.yaml": (
        "ctypes.PyDLL ctypes.pydll ctypes.pythonapi getpass.getuser locale.getlocale locale.localeconv os.cpu_count "
        "os.environ._data os.getcwd os.getcwdb os.process_cpu_count os.sched_getaffinity "
        "os.getloadavg os.getlogin os.getpid os.getppid os.uname pathlib.Path.cwd platform. posix.environ psutil. "
        "resource. shutil.disk_usage shutil.which socket.getfqdn socket.gethostname sys.argv sys.executable sys.flags "
        "uuid.getnode"
    ),
    "starts a process ({}): no key can hold what it returns": (
        "concurrent.futures.ProcessPoolExecutor concurrent.futures.process. joblib. multiprocessing. "
        "torch.multiprocessing."
    ),
    "reads files by {}, which Python does not report: read the bytes (Path.read_bytes), declare the file (FILES), "
    "and decode them": (
        "cv2.CascadeClassifier cv2.FileStorage cv2.VideoCapture cv2.dnn. cv2.imread cv2.imreadanimation "
        "cv2.imreadmulti cv2.ml. h5py. netCDF4. "
        "pandas.read_feather pandas.read_hdf pandas.read_orc pandas.read_parquet pyarrow.OSFile pyarrow.csv. "
        "pyarrow.dataset. pyarrow.feather. pyarrow.fs. pyarrow.input_stream pyarrow.memory_map pyarrow.orc. "
        "pyarrow.parquet. safetensors.numpy.load_file safetensors.safe_open safetensors.torch.load_file "
        "safetensors.torch.load_model torch._C.PyTorchFileReader "
        "torch.FloatStorage.from_file torch.UntypedStorage.from_file torch.from_file torch.jit.load torchvision.io."
    ),
    "uses {} of a text, which differs between processes: use zlib.crc32": "builtins.hash",
}
# Functions that seed themselves from entropy unless they are given a seed.
SEEDED = {
    "numpy.random.MT19937", "numpy.random.PCG64", "numpy.random.PCG64DXSM", "numpy.random.Philox",
    "numpy.random.RandomState", "numpy.random.SFC64", "numpy.random.SeedSequence", "numpy.random.default_rng",
    "random.Random",
}  # fmt: skip
UNSEEDED = "draws random numbers that no key holds ({}() without a seed): take them from the images' seeds"


def uncovered(node: ast.stmt, imports: dict[str, tuple[str, str]], defined: set[str]) -> list[str]:
    """Return what a definition depends on that no key can hold.

    Args:
        node: The definition.
        imports: What names are imported from, in the definition and in its module.
        defined: The names that its module defines.
    """
    found = []
    for inner in nodes(node):
        if isinstance(inner, ast.expr) and (name := _named(inner, imports, defined)):
            message = _message(name)
            found += [f"{message.format(name.removeprefix('builtins.'))} (line {inner.lineno})"] if message else []
        if isinstance(inner, ast.Call) and not any(map(_says, [*inner.args, *inner.keywords])):
            name = dotted(inner.func, imports, defined)
            drawn = name in SEEDED or (isinstance(inner.func, ast.Attribute) and inner.func.attr == "seed")
            found += [f"{UNSEEDED.format(ast.unparse(inner.func))} (line {inner.lineno})"] if drawn else []
    return found


def _named(node: ast.expr, imports: dict[str, tuple[str, str]], defined: set[str]) -> str:
    """Return the full name that a node stands for; getattr with an attribute that is spelled is that attribute."""
    if isinstance(node, ast.Name | ast.Attribute):
        return dotted(node, imports, defined)
    if isinstance(node, ast.Call) and dotted(node.func, imports, defined) == "builtins.getattr" and len(node.args) > 1:
        owner, asked = node.args[:2]
        spelled = isinstance(asked, ast.Constant) and isinstance(asked.value, str) and asked.value
        root = dotted(owner, imports, defined)
        return f"{root}.{spelled}" if spelled and root else ""
    return ""


@cache
def _message(name: str) -> str:
    """Return the message about a name, if there is one."""
    listed = ((known, message) for message, names in NAMES.items() for known in names.split())
    return next(
        (message for known, message in listed if name == known or (known[-1] == "." and name.startswith(known))), ""
    )


def _says(given: ast.AST) -> bool:
    """Return whether an argument is a seed: anything but None."""
    value = given.value if isinstance(given, ast.keyword) else given
    return not (isinstance(value, ast.Constant) and value.value is None)
