"""The benchmarks run, and say what they measured."""

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.forked import call
from tests.support.study import ROOT, environment

PEERS = ROOT / "benchmarks" / "peers" / ".venv" / "bin" / "python"
needs_peers = pytest.mark.skipif(not PEERS.exists(), reason="no environment of the peers")


@pytest.mark.parametrize("peers", [False, pytest.param(True, marks=needs_peers)])
def test_it_measures(peers, tmp_path):
    python = PEERS if peers else tmp_path / "none"
    command = [sys.executable, "benchmarks/metrics.py", "--quick", "--threads", "1", "--python", python]
    done = call(command, ROOT, environment(ROOT))
    assert done.returncode == 0, done.stderr
    assert peers or "uv sync --project benchmarks/peers" in done.stdout
    # Its passes: so many steps and an end more; two shares in two orders.
    for name, passes in {"deletion": 9, "insertion": 9, "road": 4}.items():
        (row,) = re.findall(rf"^{name} .*$", done.stdout, re.MULTILINE)
        assert re.search(rf" {passes} ", row), row
        assert re.search(r"\(0\.8 (met|missed)\)", row), row
        assert bool(re.search(r" (RISE's loop|pytorch-grad-cam) ", row)) == peers, row
    for name in ("deletion", "insertion") if peers else ():
        assert re.search(rf"^{name} .*\(1\.7 (met|missed)\)", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("peers", [False, pytest.param(True, marks=needs_peers)])
def test_it_measures_methods(peers, tmp_path):
    python = PEERS if peers else tmp_path / "none"
    command = [sys.executable, "benchmarks/methods.py", "--quick", "--threads", "1", "--python", python]
    passes = {"gradient": "1+1", "smoothgrad": "4+4", "gradcam": "1+1", "rise": "24"}
    done = call([*command, "--methods", *passes], ROOT, environment(ROOT))
    assert done.returncode == 0, done.stderr
    assert peers or "uv sync --project benchmarks/peers" in done.stdout
    for name, number in passes.items():
        *_, row = re.findall(rf"^{name} .*$", done.stdout, re.MULTILINE)
        assert row.split(" float32 ")[1].split().count(number) == 1 + peers, row
        assert re.search(r"\(0\.95 (met|missed)\)", row), row
        assert bool(re.search(r"\(1 (met|missed)\)", row)) == peers, row


SMALL = {"classifiers": 2, "methods": 3, "metrics": 2, "images": 12}
# A stage that takes so long, and an empty page.
SLOW = """
def write(study, given):
    (study / "data/report").mkdir(parents=True)
    (study / "data/report/index.html").touch()
scale.write, scale.measured = write, lambda study, verb: (400, 1)
"""


def scale(folder: Path, said: str) -> subprocess.CompletedProcess:
    """Run the benchmark of aggregation and report on a small study, without a browser and after what is said."""
    sizes = [word for name, number in SMALL.items() for word in (f"--{name}", str(number))]
    told = f"import sys\nsys.path.insert(0, 'benchmarks')\nimport scale\nscale.opened = lambda page: None\n{said}"
    command = [sys.executable, "-c", f"{told}\nscale.main()", *sizes, "--folder", folder]
    return call(command, ROOT, environment(ROOT))


def test_a_study_of_some_size_is_aggregated_and_reported(tmp_path):
    done = scale(tmp_path, "")
    assert done.returncode == 0, done.stderr
    assert "2 classifiers x 3 methods x 2 metrics x 12 images: 144 scores" in done.stdout
    assert "s (600 met), " in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_missed_target_is_a_status(tmp_path):
    done = scale(tmp_path, SLOW)
    assert "together: 800 s (600 missed), 1.0 GiB (8 met)" in done.stdout, done.stderr
    assert done.returncode == 1


def test_intervals_and_letters_are_measured():
    options = ["--studies", "40", "--letters", "4", "--sizes", "8", "12"]
    command = [sys.executable, "benchmarks/coverage.py", *options]
    done = call(command, ROOT, environment(ROOT))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("| held")] == ["| held, of scores | 8 images | 12 images |"]
    (normal, *_) = [line for line in lines if line.startswith("| normal")]
    assert all(0.8 < float(share) <= 1 for share in normal.split("|")[2:4])
    assert sum(line.startswith("| hits |") for line in lines) == 2


@pytest.mark.parametrize(("grown", "status"), [(110, None), (120, 1)])
def test_a_stage_whose_memory_grows_with_its_images_is_a_status(grown, status, monkeypatch, capsys):
    """The stages run in this process, once, on images of 32 pixels, and what they take is made up."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    memory, ran = importlib.import_module("memory"), []

    def peak(study, stage, names):
        if grown == 110 and "score" not in ran:
            importlib.import_module(f"stages.{stage}").main(study, *names)
        ran.append(stage)
        return grown if stage == "score" and ran.count("score") == 2 else 100

    monkeypatch.setattr(memory, "peak", peak)
    monkeypatch.setattr(memory, "SIDE", 32)
    monkeypatch.setattr(sys, "argv", ["memory.py", "--few", "20", "--many", "24"])
    try:
        memory.main()
        ended = None
    except SystemExit as end:
        ended = end.code
    assert ended == status
    told = capsys.readouterr().out
    assert "20 images     24 images  ratio" in told
    assert f"score             100 MB        {grown} MB   {grown / 100:.2f}" in told
    assert set(ran) == set(memory.STAGES)


def test_peak_memory_is_that_of_the_stage_alone(monkeypatch, tmp_path):
    """A stage that holds 300 MB for a moment, after one that does not."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    memory = importlib.import_module("memory")
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages/__init__.py").touch()
    (tmp_path / "stages/few.py").write_text("def main(study, *names): pass")
    (tmp_path / "stages/many.py").write_text("def main(study, *names): len(b'x' * 300 * 2**20)")
    monkeypatch.setattr(memory, "ROOT", tmp_path)
    few, many = (memory.peak(tmp_path, stage, []) for stage in ("few", "many"))
    assert 0 < few < 100
    assert 290 < many - few < 310


def test_weights_of_every_source_give_the_logits_of_the_librarys_own_loading():
    command = [sys.executable, "benchmarks/sources.py"]
    done = subprocess.run(command, cwd=ROOT, env=environment(ROOT), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [row.split(" | ") for row in done.stdout.splitlines()[2:]]
    assert len(rows) == 9
    compared = [row for row in rows if "is not installed" not in row[3]]
    assert len(compared) == 9
    assert max(float(row[3]) for row in compared) <= 1e-5
    assert max(float(row[4].strip(" |")) for row in compared) <= 1e-4


def test_what_a_study_cost_is_told_by_stage(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    visits = importlib.import_module("visits")
    line = {"rows_computed": 3, "seconds": 1.5, "peak_mb": 700, "passes": {"a": {"forward": 4, "backward": 1}}}
    lines = [{**line, "cell": "attribute@a-b"}, {**line, "cell": "attribute@a-c", "peak_mb": 900}]
    (tmp_path / ".atlas").mkdir()
    (tmp_path / ".atlas/log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    monkeypatch.setattr(sys, "argv", ["visits.py", "--study", str(tmp_path)])
    visits.main()
    assert capsys.readouterr().out.splitlines()[-1] == "| attribute | 2 | 6 | 3 | 8 | 2 | 900 |"


def test_what_the_speedups_of_dvc_save_is_printed_by_cell(baseline):
    done = call([sys.executable, ROOT / "benchmarks/recording.py", "--every", "9"], baseline, environment(baseline))
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"(?m)^\| (\S+) \| [\d.]+ \| [\d.]+ \| [\d.]+ \|$", done.stdout)
    assert rows[0] == "versions"
    assert rows[-1] == "together"
    assert re.search(rf"^{len(rows) - 1} pairs: median of the ratios [\d.]+$", done.stdout, re.MULTILINE)


def test_what_looking_for_stale_cells_takes_is_printed_by_step(tmp_path):
    sizes = ["--classifiers", "1", "--families", "2", "--files", "2", "--profile", "3", "--folder", str(tmp_path)]
    done = call([sys.executable, "benchmarks/cells.py", *sizes], ROOT, environment(ROOT))
    assert done.returncode == 0, done.stderr
    assert re.match(r"16 cells, \d+ files\n", done.stdout)
    rows = re.findall(r"(?m)^\| (.+) \| \d+\.\d\d \| \d+\.\d\d \| (.*) \|$", done.stdout)
    assert dict(rows).keys() == {
        "recording all cells together, per cell",
        "`atlas status`, dvc.lock being new",
        "`atlas status`",
        "`atlas reproduce`",
        "recording some again, one by one, per cell",
    }
    assert len([target for _, target in rows if re.fullmatch(r"\d+\.\d (met|missed)", target)]) == 4
    assert "Ordered by: internal time" in done.stdout
    assert not list(tmp_path.iterdir())


def test_no_benchmark_hides_a_package():
    """A script's own folder is the first in which Python looks."""
    names = {file.stem for file in (ROOT / "benchmarks").glob("*.py")}
    assert not names & {"stages", "flows", *sys.stdlib_module_names}
    assert not [name for name in names if importlib.metadata.packages_distributions().get(name)]
