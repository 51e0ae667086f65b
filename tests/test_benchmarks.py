"""The benchmark of the metrics runs, and says of each what it measured."""

import re
import subprocess
import sys

import pytest
from study import ROOT, environment

PEERS = ROOT / "benchmarks" / "peers" / ".venv" / "bin" / "python"
needs_peers = pytest.mark.skipif(not PEERS.exists(), reason="no environment of the peers")


@pytest.mark.parametrize("peers", [False, pytest.param(True, marks=needs_peers)])
def test_it_measures(peers, tmp_path):
    python = PEERS if peers else tmp_path / "none"
    command = [sys.executable, "benchmarks/metrics.py", "--quick", "--threads", "1", "--python", python]
    done = subprocess.run(command, cwd=ROOT, env=environment(ROOT), capture_output=True, text=True, check=False)
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
