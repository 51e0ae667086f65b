"""What a process is set to before it computes, seen in a process of its own."""

import os
import subprocess
import sys

from study import ROOT

PLACES = """
import torch
from stages.model.engine import start

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
