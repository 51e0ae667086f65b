"""Score whether a map depends on what the classifier has learned, and on the class that is explained.

Further maps are made with other parameters, or for another class. A method whose maps do not change, which scores 1
throughout, does not look at the classifier. A low score alone is no merit: random maps have one, too.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from atlas.metrics.shared.rows import at_least
from atlas.metrics.shared.similarity import similarities
from atlas.model.arrays import Curves, Images, Maps, Scores, Seeds, Targets
from atlas.model.batch_cache import shared
from atlas.model.classifier import Classifier
from atlas.study.errors import Unsupported
from atlas.study.schema.types import Count, Seed, Similarity
from atlas.study.seeds import generator, uniform

ATTRS = {
    "model_randomization": {
        "long_name": "Model randomization",
        "units": "1",
        "reference": "adebayo2018sanity",
        "better": "lower",
        "dim": "fraction",
        "summary": "area",
    },
    "random_logit": {
        "long_name": "Random logit",
        "units": "1",
        "reference": "sixt2020when",
        "better": "lower",
    },
}


def model_randomization(
    maps: Maps,
    images: Images,
    targets: Targets,
    classifier: Classifier,
    seeds: Seeds,
    explain: Callable[[Classifier, Images, Targets, Seeds], Maps],
    *,
    parts: Count,
    order: Literal["cascading", "independent"],
    similarity: Similarity,
    seed: Seed,
) -> Curves:
    """Randomize the classifier's parameters, starting at the logits, and compare the map with the resulting maps.

        s_k = similarity(a, a of the classifier whose parts 1 ... k are randomized), k = 0 ... parts

    The modules that own parameters are split, in their order, into parts of nearly equal numbers; part 1 has the last
    ones. They are initialized by the module's own method, including running statistics; parameters of a module without
    such a method (a class token) become normal numbers with their own mean and standard deviation. A module's new
    parameters are the same in every step.

    Args:
        parts: Number of parts of the classifier.
        order: `cascading`, all parts from the first to the k-th; or `independent`, only the k-th.
        seed: Seed of the new parameters, the same for all images.

    Returns:
        -1 to 1; a low area under the curve is better: the map depends on what the classifier has learned. s_0 = 1; a
        score of 1 throughout means that the method does not look at the classifier. The target stays the same, whatever
        is predicted.

    Undefined where the map, or one of the new ones, is constant or not finite.

    Differs from the paper (Adebayo et al. 2018): parts of several modules, of which Huang and Liu 2024 have 20; the
    paper also uses the similarity of histograms of gradients.
    """
    again = _by_redrawn(explain, classifier, images, targets, seeds, parts, order, seed)
    points = [similarities(maps, other, similarity) for other in (maps, *again)]
    curves = torch.stack(points, dim=1)
    return curves.where(curves.isfinite().all(dim=1, keepdim=True), torch.nan)


def random_logit(
    maps: Maps,
    images: Images,
    targets: Targets,
    classifier: Classifier,
    seeds: Seeds,
    explain: Callable[[Classifier, Images, Targets, Seeds], Maps],
    *,
    similarity: Similarity,
) -> Scores:
    """Compare the map with that of another class.

        similarity(a, a of a class drawn from the image's seed among all but the target)

    Returns:
        -1 to 1, lower is better; 1 for a map that does not depend on the class.

    Undefined where the map, or the other one, is constant or not finite.

    Differs from the paper (Sixt et al. 2020): the rank correlation, where the paper uses structural similarity.
    """
    return similarities(maps, _of_another_class(explain, classifier, images, targets, seeds), similarity)


@shared(calls=4)  # several calls, as entries with different orders and parts alternate
def _by_redrawn(
    explain: Callable,
    classifier: Classifier,
    images: Images,
    targets: Targets,
    seeds: Seeds,
    parts: int,
    order: str,
    seed: int,
) -> list[Tensor]:
    known, kind = _randomized(classifier), (parts, order, seed)
    if kind not in known:
        known[kind] = _redrawn(classifier, *kind)
    return [explain(one, images, targets, seeds) for one in known[kind]]


@shared(lasting=True)
def _randomized(classifier: Classifier) -> dict[tuple[int, str, int], list[Classifier]]:
    """Keep the randomized versions of a classifier, by settings, until another classifier comes."""
    return {}


def _redrawn(classifier: Classifier, parts: int, order: str, seed: int) -> list[Classifier]:
    """Return the classifiers of every step, the same ones for all methods and batches."""
    at_least(1, "model_randomization", "parts", parts)

    def alter(network: nn.Module, step: int) -> None:
        names = [name for name, module in network.named_modules() if [*module.parameters(recurse=False)]]
        if parts > len(names):
            raise ValueError(
                f"model_randomization: parts is {parts}, expected at most the {len(names)} modules with parameters"
            )
        low, high = (len(names) * (parts - passed) // parts for passed in (step + 1, step))
        for name in names[low : len(names) if order == "cascading" else high]:
            _redraw(network.get_submodule(name), name, seed)

    return [classifier.altered(partial(alter, step=step)) for step in range(parts)]


def _redraw(module: nn.Module, name: str, seed: int) -> None:
    reset = getattr(module, "reset_parameters", None)
    if reset is not None:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(generator(seed, f"parameters of {name}").initial_seed())
            reset()
        return
    for own, parameter in module.named_parameters(recurse=False):
        drawn = torch.randn(parameter.shape, generator=generator(seed, f"parameters of {name}.{own}"))
        parameter.data = parameter.mean() + parameter.std(correction=0) * drawn


@shared(calls=4)  # several calls, as metrics on all images and on fewer alternate
def _of_another_class(
    explain: Callable, classifier: Classifier, images: Images, targets: Targets, seeds: Seeds
) -> Tensor:
    return explain(classifier, images, _others(classifier, images, targets, seeds), seeds)


@shared(calls=2)  # two calls, as metrics on all images and on fewer alternate
def _others(classifier: Classifier, images: Images, targets: Targets, seeds: Seeds) -> Targets:
    """Draw another class for each image; one pass tells the number of classes."""
    if classifier.task.several:
        raise Unsupported("another label may be one that the image has too")
    classes = classifier.logits(images[:1]).shape[1]
    at_least(2, "random_logit", "the number of classes", classes)
    drawn = (uniform(seeds, "random_logit", 0, (1,))[:, 0] * (classes - 1)).long().to(targets.device)
    return drawn + (drawn >= targets)
