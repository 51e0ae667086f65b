"""A few whole networks, as they are built, with each method beside another package's on the very module.

`benchmarks/networks.py` sets all of them beside one another.
"""

import pytest
import torch

from atlas.model import classifier, runtime
from tests.support.oracles import originals

pytestmark = pytest.mark.filterwarnings("ignore:Setting (backward|forward)")

# What is no such method's network, and where it differs for a reason. All else agrees.
NONE = ("rollout", "gradient_rollout")
REFUSED = {
    "mobilenet_v3_small": {"cam": "needs a head of global average pooling and one linear layer"},
    "shufflenet_v2_x0_5": {},
    "regnet_y_400mf": {},
}
TOLERANCE = 1e-5
LOOSE = {"smoothgrad": 1e-3}  # single precision of noisy images moves random networks' gradients


@pytest.fixture(autouse=True)
def _double_precision_is_known(monkeypatch):
    monkeypatch.setitem(classifier.DTYPES, "float64", torch.float64)
    runtime.start({"device": "cpu", "threads": 1})


@pytest.mark.parametrize("network", REFUSED)
def test_methods_are_those_of_other_packages_on_the_original_network(network):
    compared = {}
    for method in originals.METHODS:
        result = originals.compare(network, method)
        refused = {**REFUSED[network], **dict.fromkeys(NONE, "it has no attention")}
        assert result.message.startswith("n/a: ") == (method in refused), (method, result.message)
        if method in refused:
            assert refused[method] in result.message
        if result.difference is not None:
            compared[method] = result.difference
    assert not {method: apart for method, apart in compared.items() if not apart <= LOOSE.get(method, TOLERANCE)}
    assert len(compared) >= 13
    assert float(originals.compare(network, "deep_lift").message.removeprefix("sum ")) < 1e-9
    originals.pair.cache_clear()
