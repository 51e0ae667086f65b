"""Restrict DVC, in this process, to the stages of one study."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dvc.repo import Repo


@contextmanager
def only(study: Path, repo: "Repo") -> Iterator[None]:
    """Restrict DVC, inside the `with` block, to the stages of one study, ignoring other studies in the repository.

    Theirs may be stale, have the same names, or be in a file that cannot be read.

    Args:
        study: The folder of params.yaml and dvc.yaml.
        repo: The repository that contains it, at any revision.
    """
    module: Any = import_module("dvc.repo.index")
    inside = study.resolve().relative_to(repo.root_dir).parts

    def collect(repo: "Repo", onerror: object = None) -> Iterator[tuple]:
        file = repo.fs.join(repo.root_dir, *inside, "dvc.yaml")
        if repo.fs.exists(file):
            yield file, module.Index.from_file(repo, file)

    as_dvc, module.collect_files = module.collect_files, collect
    try:
        yield
    finally:
        module.collect_files = as_dvc
