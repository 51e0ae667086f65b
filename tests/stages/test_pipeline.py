"""dvc.yaml says of every cell what it reads: all its code, its parameters, its inputs."""

import ast
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo
from packaging.utils import canonicalize_name

from atlas.cache.fingerprint import modules, packages
from atlas.study.params import OPTIONS, dataset, load, network, path
from atlas.study.study import Study
from flows.dvc_patches.one_study import only
from stages import versions
from tests.support.forked import call
from tests.support.study import build, environment, tiny

ROOT = Path(__file__).parents[2]
# What every stage imports before anything else.
FIRST = ("stages/__init__.py", "atlas/__init__.py", "atlas/importing.py")
# What a verb finds by name, beyond what it imports; {1} is the cell's family.
FOUND = {
    "collect": ["datasets"],
    "prepare": ["networks"],
    "predict": ["networks"],
    "attribute": ["networks", "methods/{1}"],
    "certify": ["networks", "methods/{1}"],
    "score": ["networks", "methods/{1}", "metrics"],
    "cost": ["networks", "methods", "metrics"],
}


@pytest.fixture(scope="module")
def cells():
    with Repo(str(ROOT)) as repo, only(ROOT, repo):
        return {stage.addressing: stage for stage in repo.index.stages}


@cache
def imports(file: Path) -> frozenset[Path]:
    """The files of this project that a file imports, at any depth of its syntax tree."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("atlas", "stages", "flows"):
            for name in [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]:
                one = ROOT.joinpath(*name.split("."))
                found |= {file for file in (one.with_suffix(".py"),) if file.is_file()}
    return frozenset(found)


def closure(files: set[Path]) -> set[Path]:
    seen: set[Path] = set()
    while files - seen:
        file = (files - seen).pop()
        seen.add(file)
        files = files | imports(file)
    return seen


@cache
def needed(name: str) -> frozenset[Path]:
    verb, _, rest = name.partition("@")
    files = {ROOT / "stages" / f"{verb}.py"}
    for noun in FOUND.get(verb, []):
        place = ROOT / "atlas" / noun.format(*rest.split("-"))
        files |= set(place.glob("*.py")) if place.is_dir() else {place.with_suffix(".py")}
    return frozenset(closure(files) | {ROOT / name for name in FIRST})


def test_every_cell_is_there(cells):
    params = load(ROOT)
    families = len(params["methods"])
    count = len(params["classifiers"])
    assert len(cells) == len(params["datasets"]) + count * (6 + 3 * families) + 3


def test_code_dependencies_are_closed_under_import(cells):
    for name, stage in cells.items():
        deps = [ROOT / dep.def_path for dep in stage.deps if dep.def_path.startswith(("atlas", "stages"))]
        for file in needed(name):
            covered = any(dep == file or dep in file.parents for dep in deps)
            assert covered, f"{name} runs {file.relative_to(ROOT)}, which dvc.yaml does not name"


@pytest.mark.parametrize(
    ("stage", "extra", "user"),
    [
        ("predict", "stages/extra.py", "stages/predict.py"),
        ("collect", "atlas/extra.py", "atlas/datasets/shapes.py"),
        ("attribute", "atlas/extra.py", "atlas/methods/gradient.py"),
        ("report", "stages/extra.py", "stages/report.py"),
    ],
)
def test_code_that_dvc_would_not_see_ends_the_run(tmp_path, stage, extra, user):
    house = build(tmp_path / "house", tiny())
    (house / extra).touch()
    with (house / user).open("a") as file:
        file.write(f"\nfrom {extra.removesuffix('.py').replace('/', '.')} import __name__ as extra_name\n")
    done = call(["python", "-m", "stages.versions"], house, environment(house))
    assert done.returncode == 2, done.stderr
    assert f"error: stages/{stage}.py runs {extra}, which dvc.yaml does not name among the stage's deps" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_no_stage_names_code_that_none_of_its_cells_runs(cells):
    runs: dict[str, set[Path]] = {}
    for name in cells:
        runs.setdefault(name.partition("@")[0], set()).update(needed(name))
    apart = {*FIRST, *(about["path"] for about in load(ROOT)["datasets"].values())}
    for name, stage in cells.items():
        for dep in stage.deps:
            if dep.def_path.startswith(("atlas/", "stages/")) and dep.def_path not in apart:
                place = ROOT / dep.def_path
                known = any(place == file or place in file.parents for file in runs[name.partition("@")[0]])
                assert known, f"{name} names {dep.def_path} and does not run it"
                assert place.is_dir() or place.parent == ROOT / "stages", f"{name} names a file of {place.parent}"


def test_a_dataset_s_source_is_a_dependency_of_its_collection(cells):
    for name, about in load(ROOT)["datasets"].items():
        assert about["path"] in {dep.def_path for dep in cells[f"collect@{name}"].deps}


def test_what_computes_nothing_never_imports_torch():
    verbs = "prepare predict select tile attribute certify score correlate cost aggregate report"
    names = [f"stages.{verb}" for verb in verbs.split()] + ["atlas.share", "flows.plan", "flows.cli"]
    for folder in ("study", "cache", "inputs"):
        files = (ROOT / "atlas" / folder).rglob("[a-z]*.py")
        names += [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    names = [name for name in names if name.rpartition(".")[2] not in ("explain", "summing", "voting", "top_k")]
    code = f"import sys; [__import__(name) for name in {names}]; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_code_is_imported_in_a_way_that_can_be_followed():
    for file in [file for name in ("atlas", "stages", "flows") for file in ROOT.glob(f"{name}/**/*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                assert not any(alias.name.split(".")[0] in ("atlas", "stages", "flows") for alias in node.names), file
            if isinstance(node, ast.ImportFrom):
                assert not node.level, file


def test_the_closure_sees_an_import(tmp_path):
    file = tmp_path / "one.py"
    file.write_text("def f():\n    from atlas.cache import keys\n    from atlas.cache.rows import Rows\n")
    assert {one.name for one in imports(file)} == {"keys.py", "rows.py"}


def test_every_cell_depends_on_the_versions_that_its_code_runs_with(cells):
    params = load(ROOT)
    known = versions.installed(Study(ROOT, params))
    named = [*(dataset(params, name) for name in params["datasets"])]
    named += [*(network(params, name) for name in params["classifiers"])]
    taken = closure({ROOT / "atlas" / entry.kind / f"{entry.family}.py" for entry in named})
    for name, stage in cells.items():
        verb = name.partition("@")[0]
        read = "uv.lock" if verb == "versions" else f"data/versions/{verb}.json"
        assert read in [dep.def_path for dep in stage.deps], name
        for file in needed(name) if verb in known else ():
            if file.relative_to(ROOT).parts[1] in ("datasets", "networks") and file not in taken:
                continue  # what params.yaml does not name may need what is not installed
            module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            told = {one for package in modules.packages_of({module}) for one in packages.distributions(package)}
            assert told - set(versions.EXTRA) <= set(known[verb]), f"{name} runs {file.relative_to(ROOT)}"


def test_functions_are_found_in_the_folders_that_dvc_yaml_names(cells):
    found: dict[str, set[str]] = {}
    for name, stage in cells.items():
        at = {dep.def_path for dep in stage.deps} & {f"atlas/{kind}" for kind in OPTIONS}
        found.setdefault(name.partition("@")[0], set()).update(one.removeprefix("atlas/") for one in at)
    found.pop("versions")
    assert {verb: set(kinds) for verb, kinds in versions.NAMED.items()} == found


def test_packages_that_are_named_otherwise_are_installed_under_these_names():
    installed = metadata.packages_distributions()
    for package, name in packages.INSTALLED.items():
        assert name in {canonicalize_name(one) for one in installed[package]}
        assert name != package


def test_every_cell_writes_where_the_code_says(cells):
    kinds = {
        "collect": "datasets", "prepare": "classifiers", "predict": "predictions", "select": "images", "tile": "grids",
        "attribute": "maps", "certify": "votes", "score": "scores", "correlate": "similarity",
        "cost": "cost",
    }  # fmt: skip
    for name, stage in cells.items():
        verb, _, rest = name.partition("@")
        if verb in kinds:
            assert [out.def_path for out in stage.outs] == [path(Path(), kinds[verb], *rest.split("-")).as_posix()]


def test_every_section_of_params_is_read_by_a_stage(cells):
    read = {key.split(".")[0] for stage in cells.values() for dep in stage.deps for key in getattr(dep, "params", [])}
    assert read == set(yaml.safe_load((ROOT / "params.yaml").read_text()))


def test_nouns_import_the_kernel_and_helpers_of_their_own_folder():
    for kind in ("datasets", "networks", "methods", "metrics"):
        for file in (ROOT / "atlas" / kind).rglob("*.py"):
            for other in imports(file):
                if other.relative_to(ROOT).parts[1] not in ("study", "cache", "model", "inputs"):
                    where = f"{file.relative_to(ROOT)} imports {other.relative_to(ROOT)}"
                    assert ROOT / "atlas" / kind / "shared" in other.parents, where
