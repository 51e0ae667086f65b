"""What a process is set to before it computes, seen in a process of its own."""

import os
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from atlas.model import batch_cache, runtime  # noqa: F401  # the engine's, as where something was computed
from flows import workers
from tests.support.study import ROOT, tiny, write

PLACES = """
import torch
from atlas.model.runtime import start

start({"device": "cpu", "threads": 1})
draws = torch.Generator().manual_seed(0)
for width in (5, 10, 13, 33, 50):
    rows, weights = (torch.randn(size, width, generator=draws) for size in (40, 7))
    whole = torch.nn.functional.linear(rows, weights)
    for _ in range(5):
        order = torch.randperm(40, generator=draws)
        assert torch.equal(torch.nn.functional.linear(rows[order], weights), whole[order]), width
"""


def test_a_product_s_row_is_the_same_in_any_place():
    """Some processors' products of widths that fill no vector register depend on it, unless MKL is told."""
    told = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", PLACES], env=told, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr


def test_a_worker_lets_go_of_what_functions_remember(monkeypatch, tmp_path):
    """Else the batches of one cell stay in memory while the next one's are made."""
    kept = []

    @batch_cache.shared
    def made(number: int) -> Tensor:
        kept.append(weakref.ref(found := torch.zeros(number)))
        return found

    def main(study: Path, name: str) -> None:
        made(3)
        assert made(3) is kept[0]()
        assert len(kept) == 1

    monkeypatch.setitem(
        sys.modules, "stages.making", SimpleNamespace(main=main, STAGE=SimpleNamespace(output="datasets"))
    )
    monkeypatch.chdir(tmp_path)
    write(tmp_path, tiny())
    workers.make(str(tmp_path), "making", ["shapes"])
    assert kept[0]() is None
