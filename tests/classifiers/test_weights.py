"""Files of weights: whatever they are wrapped in, the network that loads them gives the logits of what was saved."""

import copy
import hashlib
import re
import warnings

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from atlas.classifiers import tags, weights
from atlas.networks.torchvision import torchvision
from atlas.study.errors import UserError
from atlas.study.schema.settings import Entry

IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
MEAN, STD = [0.5, 0.25, 0.125], [0.25, 0.5, 0.75]


def network(seed: int = 0) -> nn.Sequential:
    """A network whose batch statistics are not those it begins with."""
    torch.manual_seed(seed)
    made = nn.Sequential()
    made.add_module("conv", nn.Conv2d(3, 4, 3))
    made.add_module("bn", nn.BatchNorm2d(4))
    made.add_module("flatten", nn.Flatten())
    made.add_module("fc", nn.Linear(144, 5))
    made.bn.running_mean.uniform_(-1, 1)
    made.bn.running_var.uniform_(0.5, 2)
    return made.eval()


class Wrapped(nn.Module):
    """The layout of a checkpoint of the package robustness: the network twice, with a normalizer beside each."""

    def __init__(self, model, mean=MEAN):
        super().__init__()
        self.normalizer = Normalizer(mean)
        self.model = model
        self.attacker = nn.Module()
        self.attacker.normalize = Normalizer(MEAN)
        self.attacker.model = model


class Normalizer(nn.Module):
    def __init__(self, mean):
        super().__init__()
        self.register_buffer("new_mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("new_std", torch.tensor(STD)[:, None, None])


def under(prefix: str, state: dict) -> dict:
    return {prefix + name: value for name, value in state.items()}


def adopted(file, entry=None, rename=None, into=None):
    into = into or network(seed=1)
    found = weights.unwrapped(weights.renamed(weights.read(file, entry), rename, file), into, file)
    weights.fill(into, found.weights, file, "classifiers.c.network")
    return into, found


FORMS = {
    "a state_dict": (lambda state: state, {}),
    "state_dict": (lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"lr": 0.1}}, {}),
    "model": (lambda state: {"model": state, "optimizer": {}}, {}),
    "another entry": (lambda state: {"ema": {"weights": state}, "model": {}}, {"entry": "ema.weights"}),
    "parallel": (lambda state: under("module.", state), {}),
    "Lightning, compiled": (lambda state: {"state_dict": under("model._orig_mod.", state)}, {}),
    "other names": (
        lambda state: {name.replace("conv.", "stem.").replace("fc.", "head."): value for name, value in state.items()},
        {"rename": {"stem.": "conv.", "head.": "fc."}},
    ),
    "more than the network": (
        lambda state: {**state, "projector.weight": torch.zeros(2)}, {"rename": {"projector.": None}},
    ),
    "without the count of batches": (
        lambda state: {name: value for name, value in state.items() if "num_batches" not in name}, {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".pth", ".ckpt"])
@pytest.mark.parametrize("form", FORMS)
def test_weights_are_those_that_were_saved(tmp_path, form, suffix):
    wrap, about = FORMS[form]
    file = tmp_path / f"file{suffix}"
    torch.save(wrap(network().state_dict()), file)
    found, _ = adopted(file, **about)
    expected = network()
    expected.load_state_dict(network().state_dict())
    torch.testing.assert_close(found(IMAGES), expected(IMAGES), atol=1e-5, rtol=0)
    assert not torch.allclose(found(IMAGES), network(seed=1)(IMAGES), atol=1e-2)


def test_safetensors(tmp_path):
    save_file(network().state_dict(), tmp_path / "file.safetensors")
    found, about = adopted(tmp_path / "file.safetensors")
    assert torch.equal(found(IMAGES), network()(IMAGES))
    assert (about.mean, about.std) == (None, None)


def test_weights_of_half_precision_are_loaded_as_numbers_of_the_network(tmp_path):
    torch.save({name: value.half() for name, value in network().state_dict().items()}, tmp_path / "half.pt")
    found, _ = adopted(tmp_path / "half.pt")
    assert found.conv.weight.dtype == torch.float32
    torch.testing.assert_close(found(IMAGES), network()(IMAGES), atol=1e-2, rtol=0)


@pytest.mark.parametrize("kind", [torch.int8, torch.bool, torch.complex64])
def test_weights_of_another_kind_of_numbers_are_refused(tmp_path, kind):
    torch.save({name: value.to(kind) for name, value in network().state_dict().items()}, tmp_path / "file.pt")
    told = rf"not the weights of .*: 8 hold another kind of numbers: conv.weight is of {kind}, expected torch.float32"
    with pytest.raises(UserError, match=told):
        adopted(tmp_path / "file.pt")


def test_a_checkpoint_of_an_attacker_says_how_images_are_normalized(tmp_path):
    state = {"model": under("module.", Wrapped(network()).state_dict()), "epoch": 1}
    torch.save(state, tmp_path / "robust.ckpt")
    found, about = adopted(tmp_path / "robust.ckpt")
    assert torch.equal(found(IMAGES), network()(IMAGES))
    assert (about.mean, about.std) == (MEAN, STD)


def test_buffers_named_mean_and_std_of_the_outermost_module_are_a_normalizer(tmp_path):
    state = {"mean": torch.tensor(MEAN), "std": torch.tensor(STD), **under("model.", network().state_dict())}
    torch.save(state, tmp_path / "file.pt")
    _, about = adopted(tmp_path / "file.pt")
    assert (about.mean, about.std) == (MEAN, STD)


def test_a_network_whose_own_names_begin_as_wrappers_do(tmp_path):
    inner, other = nn.Sequential(), nn.Sequential()
    inner.add_module("model", network())
    other.add_module("model", network(seed=1))
    torch.save(under("module.", inner.state_dict()), tmp_path / "file.pth")
    found, _ = adopted(tmp_path / "file.pth", into=other)
    assert torch.equal(found(IMAGES), network()(IMAGES))


def test_old_names_of_densenet(tmp_path):
    from torchvision.models.densenet import _DenseLayer

    own = nn.Sequential()
    own.add_module("denselayer1", _DenseLayer(4, 2, 2, 0.0))
    state = {re.sub(r"(norm|conv)(\d)", r"\1.\2", name): value for name, value in own.state_dict().items()}
    torch.save(state, tmp_path / "old.pth")
    into = copy.deepcopy(own)
    for value in into.parameters():
        nn.init.zeros_(value)
    adopted(tmp_path / "old.pth", into=into)
    assert all(torch.equal(one, other) for one, other in zip(into.parameters(), own.parameters(), strict=True))


def test_a_folder_of_transformers_has_other_names_than_its_modules(tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    about = transformers.ViTConfig(**sizes, image_size=8, patch_size=4, num_labels=5)
    made, into = (transformers.ViTForImageClassification(about).eval() for _ in range(2))
    made.save_pretrained(tmp_path)
    found, _ = adopted(tmp_path / "model.safetensors", into=into)
    assert torch.equal(found(IMAGES).logits, made(IMAGES).logits)
    state = weights.read(tmp_path / "model.safetensors", None)
    del state["classifier.bias"]
    save_file({**state, "other": torch.zeros(2)}, tmp_path / "less.safetensors")
    with pytest.raises(
        UserError, match=r"1 of its \d+ weights are missing .*classifier.bias; 1 of the file .*: other$"
    ):
        adopted(tmp_path / "less.safetensors", into=into)


class Custom:
    pass


def other_shapes(state):
    return {**state, "fc.weight": torch.zeros(7, 144), "fc.bias": torch.zeros(7)}


BROKEN = {
    "an object": (
        lambda state: {"state_dict": state, "args": Custom()}, {},
        "cannot be read without running code that is in it: it holds objects of .*Custom; save its state_dict alone",
    ),
    "a whole network": (lambda state: network(), {}, "cannot be read without running code"),
    "no entry that is usual": (
        lambda state: {"weights": state, "epoch": 1}, {},
        "which of its entries holds the weights\\? It has none of state_dict, model, model_state_dict; `entry` names "
        "one of weights, epoch",
    ),
    "two that are": (lambda state: {"model": state, "state_dict": state}, {}, "It has state_dict and model; `entry`"),
    "no such entry": (
        lambda state: {"weights": state}, {"entry": "ema"}, "there is no entry 'ema' in it; it has: weights",
    ),
    "an entry that is no mapping": (
        lambda state: {"model": {"w": 3}}, {"entry": "model.w"}, "expected a mapping of names to tensors, got int",
    ),
    "numbers among the tensors": (
        lambda state: {"model": {**state, "version": 2}}, {},
        "1 of its 10 entries are no tensors: version",
    ),
    "nothing": (lambda state: {}, {}, "expected a mapping of names to tensors, got dict: {}"),
    "weights that are missing": (
        lambda state: {name: value for name, value in state.items() if not name.startswith(("conv", "fc"))}, {},
        "not the weights of classifiers.c.network: 4 of its 9 weights are missing in the file: conv.weight, conv.bias, "
        "fc.weight and 1 more",
    ),
    "weights of another network": (
        lambda state: {**state, "head.weight": torch.zeros(2)}, {}, "1 of the file are not its: head.weight",
    ),
    "auxiliary heads of a network that has none": (
        lambda state: {**state, "aux1.weight": torch.zeros(2)}, {}, "1 of the file are not its: aux1.weight",
    ),
    "other shapes": (other_shapes, {}, r"2 have another shape: fc.weight is \(7, 144\), expected \(5, 144\), fc.bias"),
    "numbers that are none": (
        lambda state: {**state, "fc.bias": torch.full((5,), torch.nan)}, {}, "the weight fc.bias holds numbers that",
    ),
    "a prefix that no name has": (
        lambda state: state, {"rename": {"stem.": "conv."}}, "no weight has the prefix stem. of `rename`; it has: conv",
    ),
    "two of one name": (
        lambda state: {**state, "head.weight": torch.zeros(2)}, {"rename": {"head.": "fc."}},
        "after `rename` two weights have the name 'fc.weight'",
    ),
    "two networks": (
        lambda state: {**under("model.", state), **under("module.", network(2).state_dict())}, {},
        "holds the weights of two networks that differ: those with the prefix 'model.' and those with 'module.'",
    ),
    "two normalizers": (
        lambda state: Wrapped(network(), mean=[0.0, 0.0, 0.0]).state_dict(), {}, "its normalizers differ: mean = ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_will_not_do_is_told_in_one_line_with_its_name(tmp_path, case):
    make, about, told = BROKEN[case]
    file = tmp_path / "file.pth"
    torch.save(make(network().state_dict()), file)
    with pytest.raises(UserError, match=rf"file\.pth: .*{told}") as problem:
        adopted(file, **about)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("file.onnx", b"\x08\x07no weights", r"file\.onnx: is neither of safetensors nor a checkpoint of PyTorch"),
        ("file.pth", b"", r"file\.pth: is empty; expected"),
        ("file.pth", b"no weights", "is neither of safetensors nor a checkpoint of PyTorch"),
        ("file.safetensors", b"no weights", "is neither of safetensors nor a checkpoint of PyTorch"),
        ("file.safetensors", b"\x02\0\0\0\0\0\0\0{", "cut off, damaged, or not what its beginning says"),
        ("file.pth", b"\x80\x02no pickle", "cannot be read without running code"),
        ("file.pt", None, "cut off, damaged, or not what its beginning says"),
    ],
)
def test_a_file_of_something_else(tmp_path, name, content, told):
    file = tmp_path / name
    if content is None:
        torch.save(network().state_dict(), file)
        content = file.read_bytes()[:1000]
    file.write_bytes(content)
    with pytest.raises(UserError, match=told) as problem:
        weights.read(file, None)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize("name", ["file.pth", "file.safetensors", "file.onnx", "file"])
def test_a_file_is_what_its_content_is_whatever_its_name(tmp_path, name):
    def pickled(state, file):
        torch.save(state, file, _use_new_zipfile_serialization=False)

    expected = network().state_dict()
    for save in (save_file, torch.save, pickled):
        save(expected, tmp_path / name)
        found = weights.read(tmp_path / name, None)
        assert all(torch.equal(found[one], value) for one, value in expected.items())


def test_the_digest_is_that_of_the_file(tmp_path):
    (tmp_path / "file").write_bytes(b"weights" * 1000)
    assert weights.digest_of(tmp_path / "file") == hashlib.sha256(b"weights" * 1000).hexdigest()
    with pytest.raises(UserError, match="nowhere: cannot be read"):
        weights.digest_of(tmp_path / "nowhere")


def bound(family: str, name: str, **settings) -> Entry:
    return Entry("networks", family, family, family, {"name": name, "side": None, "settings": settings}, {})


def test_a_tag_without_its_file_says_where_to_put_which(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = tmp_path / "hub/checkpoints/resnet18-f37072fd.pth"
    with pytest.raises(UserError) as problem:
        tags.tagged(bound("torchvision", "resnet18"), "IMAGENET1K_V1", "classifiers.c.weights")
    assert str(problem.value) == (
        "params.yaml: classifiers.c.weights.tag = 'IMAGENET1K_V1': its file is not here, and nothing is downloaded: "
        f"put https://download.pytorch.org/models/resnet18-f37072fd.pth at {place}"
    )
    place.parent.mkdir(parents=True)
    place.touch()
    found, about = tags.tagged(bound("torchvision", "resnet18"), "IMAGENET1K_V1", "classifiers.c.weights")
    assert found == place
    assert about.accuracy == pytest.approx(0.69758)
    assert (about.mean, about.std) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.mark.parametrize(
    ("family", "name", "tag", "told"),
    [
        ("torchvision", "resnet18", "V3", "torchvision knows no such weights of resnet18; it knows: IMAGENET1K_V1"),
        ("residual", "small_resnet", "V1", "torchvision and timm know tags, residual does not; expected file"),
    ],
)
def test_a_tag_that_nobody_knows(family, name, tag, told):
    with pytest.raises(UserError, match=rf"params.yaml: classifiers.c.weights.tag = '{tag}': {told}"):
        tags.tagged(bound(family, name), tag, "classifiers.c.weights")


# With old names, with auxiliary heads, with a first step that changes the normalization.
@pytest.mark.parametrize("name", ["densenet121", "googlenet"])
def test_the_weights_of_a_tag_give_the_logits_of_torchvisions_own_loading(tmp_path, monkeypatch, name):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    known = models.get_model_weights(name)["IMAGENET1K_V1"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        state = models.get_model(name, weights=None, **({"init_weights": False} if name == "googlenet" else {}))
        state = state.state_dict()
        if name == "densenet121":
            state = {key: one for key, one in state.items() if not key.endswith("num_batches_tracked")}
            state = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key): one for key, one in state.items()}
        place = tmp_path / "hub/checkpoints" / known.url.rpartition("/")[2]
        place.parent.mkdir(parents=True)
        torch.save(state, place)
        theirs = models.get_model(name, weights=known).eval()  # reads that file
        entry = bound("torchvision", name)
        ours = torchvision(classes=1000, **entry.settings).eval()
    found, about = tags.tagged(entry, "IMAGENET1K_V1", "classifiers.c.weights")
    adopted(found, into=ours)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    transforms = known.transforms()
    expected = theirs(normalized(images, transforms.mean, transforms.std))
    torch.testing.assert_close(ours(normalized(images, about.mean, about.std)), expected, atol=1e-5, rtol=0)


def normalized(images, mean, std):
    return (images - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def test_the_weights_of_a_tag_of_timm(tmp_path, monkeypatch):
    timm = pytest.importorskip("timm")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"timm knows no such weights of resnet18; it knows: .*a1_in1k"):
        tags.tagged(bound("timm", "resnet18"), "no_such", "classifiers.c.weights")
    place = tmp_path / "hub/checkpoints/resnet18.a1_in1k.safetensors"
    told = f"put https://huggingface.co/timm/resnet18.a1_in1k/resolve/main/model.safetensors at {place}"
    with pytest.raises(UserError, match=re.escape(told)):
        tags.tagged(bound("timm", "resnet18"), "a1_in1k", "classifiers.c.weights")
    place.parent.mkdir(parents=True)
    theirs = timm.create_model("resnet18").eval()
    save_file(theirs.state_dict(), place)
    found, about = tags.tagged(bound("timm", "resnet18"), "a1_in1k", "classifiers.c.weights")
    ours, _ = adopted(found, into=timm.create_model("resnet18").eval())
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(ours(images), theirs(images))
    assert about.mean == [0.485, 0.456, 0.406]
