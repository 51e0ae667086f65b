"""Make, score and open attribution maps: the library that the stages call, which needs neither DVC nor Prefect.

The names of `PUBLIC` are imported when they are first asked for: `import atlas` alone costs neither torch nor xarray.
What they are is in `__init__.pyi`, for type checkers and editors.
"""

from importlib import import_module

from atlas import importing as importing  # first: makes Python load all other modules by their source's digest

PUBLIC = {
    "Classifier": "atlas.model.classifier",
    "Study": "atlas.study.study",
    "UserError": "atlas.study.errors",
    "Unsupported": "atlas.study.errors",
    "explain": "atlas.in_memory.explaining",
    "open_maps": "atlas.share",
    "open_results": "atlas.share",
    "open_scores": "atlas.share",
    "score": "atlas.in_memory.scoring",
}
__all__ = [*PUBLIC]


def __getattr__(name: str) -> object:
    """Import a public name."""
    if name not in PUBLIC:
        raise AttributeError(f"module 'atlas' has no attribute {name!r}")
    return getattr(import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    """Return the public names and those that were imported already."""
    return sorted({*globals(), *PUBLIC})
