"""Names of Python's library and of packages by effect: making a value, decorating, looking code up by name."""

# Marks a NamedTuple class that the module itself defines, as if it were imported.
RECORD = ("record", "made")
# Marks a property of the class at hand, and a module's own value that contains nothing of this project.
PROPERTY, PLAIN = ("<property>", ""), ("<plain>", "")
# Functions that a module may call when it is imported: they make a value and change nothing.
BUILTINS = (
    "abs bool bytes dict dict.fromkeys enumerate float frozenset int len list map max min range reversed round set "
    "slice sorted str str.maketrans sum tuple zip"
)
VALUES = {f"builtins.{name}" for name in BUILTINS.split()} | {
    "atlas.inputs.cell_runner.Stage",
    "atlas.study.schema.types.Items",
    "atlas.study.schema.types.Range",
    "collections.namedtuple",
    "dataclasses.field",
    "functools.partial",
    "math.ceil",
    "math.exp",
    "math.floor",
    "math.log",
    "math.sqrt",
    "numpy.array",
    "numpy.dtype",
    "pathlib.Path",
    "re.compile",
    "record.made",
    "torch.tensor",
    "types.MappingProxyType",
    "typing.NewType",
    "typing.TypeVar",
    "zarr.codecs.BloscCodec",
    "zarr.codecs.Crc32cCodec",
}
# Methods of such values that have no side effects either.
READING = {
    "encode", "format", "items", "join", "joinpath", "keys", "resolve", "split", "strip", "union", "values",
    "with_name", "with_suffix",
}  # fmt: skip
# Value-making functions that call one of their arguments, with the position or name of that argument.
CALLING = {"builtins.map": 0, "builtins.max": "key", "builtins.min": "key", "builtins.sorted": "key"}
# Decorators that wrap a function without registering it anywhere.
DECORATORS = {
    "<property>.deleter",
    "<property>.getter",
    "<property>.setter",
    "abc.abstractmethod",
    "builtins.classmethod",
    "builtins.property",
    "builtins.staticmethod",
    "contextlib.contextmanager",
    "dataclasses.dataclass",
    "functools.cache",
    "functools.cached_property",
    "functools.lru_cache",
    "functools.total_ordering",
    "functools.wraps",
    "atlas.model.batch_cache.shared",
    "torch.enable_grad",
    "torch.fx.wrap",
    "torch.inference_mode",
    "torch.no_grad",
    "typing.final",
    "typing.overload",
}
# What finds code, or the source of a definition, by a name that is computed at run time.
LOOKUPS = {"__builtins__", "__import__", "compile", "eval", "exec", "globals", "locals", "vars"}
LOOKUP_ATTRIBUTES = {
    "__annotations__", "__builtins__", "__closure__", "__code__", "__dict__", "__doc__", "__func__",
    "__getattribute__", "__globals__", "__loader__", "__mro__", "__self__", "__spec__", "__subclasses__", "__wrapped__",
    "entry_points", "f_back", "f_globals", "f_locals", "import_module", "tb_frame",
}  # fmt: skip
LOOKUP_MODULES = {
    "builtins", "cloudpickle", "code", "codeop", "copyreg", "dill", "doctest", "gc", "imp", "importlib", "inspect",
    "joblib", "linecache", "marshal", "pickle", "pkgutil", "pydoc", "runpy", "shelve", "tokenize", "unittest",
    "zipimport",
}  # fmt: skip
LOOKUP_NAMES = {
    "importlib.metadata.EntryPoint", "importlib.metadata.EntryPoints", "importlib.metadata.entry_points",
    "numexpr.evaluate", "numexpr.re_evaluate", "pandas.eval",
    "sys._current_frames", "sys._getframe", "sys.modules", "typing.get_type_hints",
}  # fmt: skip
# Modules of that kind that other modules have imported: os.sys.modules is sys.modules.
LOOKUP_PASSED_ON = {"_sys", "builtins", "importlib", "sys"}
# Attributes that Python sets on a module when it loads it.
LOADING = {"__builtins__", "__file__", "__loader__", "__name__", "__package__", "__path__", "__spec__"}
# Methods that run when a class is made, or when a module lacks a name.
HOOKS = {"__class_getitem__", "__dir__", "__getattr__", "__init_subclass__", "__prepare__", "__set_name__"}
