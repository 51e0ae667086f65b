"""An entry of the least cost for every function of atlas/methods."""

from typing import Any

from atlas.study.params import CHOOSING, entry
from atlas.study.schema.settings import Entry

OUT = {"output": "logit"}
LAYER = {"layer": "final"}
NOISE = {"samples": 2, "spread": 0.15, "extent": "image", **OUT}
SIGNED = {"sign": "both", **OUT, "percentile": 0, "floor": "raw"}
MASK = {"order": "normalize_first", "fill": "mean", **LAYER}
SETTINGS = {
    "gradient": {
        "gradient": {"sign": "both", **OUT, "layer": "input"},
        "input_x_gradient": {"baseline": "black", **OUT, "layer": "input"},
        "guided_backprop": {"sign": "positive", "layer": "input"},
    },
    "noise": {
        "smoothgrad": {**NOISE, "sign": "both"},
        "smoothgrad_squared": NOISE,
        "vargrad": NOISE,
        "gag": {**NOISE, "sign": "absolute", "percentile": 85, "floor": "raw"},
    },
    "path": {
        "integrated_gradients": {
            "steps": 2, "baseline": "black", "rule": "midpoint", "sign": "both", **OUT, "layer": "input",
        },
        "integrated_gradients_random": {"steps": 2, "baselines": 2, "rule": "midpoint", **SIGNED},
        "expected_gradients": {"samples": 2, **OUT},
    },
    "path_variants": {
        "guided_ig": {"steps": 2, "baseline": "black", "fraction": 0.25, "max_distance": 0.1, **SIGNED},
        "blur_ig": {"steps": 2, "max_sigma": 4.0, **SIGNED},
        "xrai": {"steps": 1, "rule": "midpoint", **OUT, "dilation": 1, "min_pixels": 4},
    },
    "cam": {
        **dict.fromkeys(("gradcam", "hirescam", "xgradcam", "layercam", "eigencam", "guided_gradcam"), LAYER),
        "cam": {"rectified": False, **LAYER},
        "gradcam_pp": {"form": "paper", **LAYER},
    },
    "cam_averaged": {
        "smooth_gradcam_pp": {"samples": 2, "deviation": 0.3, "form": "paper", **LAYER},
        "integrated_gradcam": {"steps": 2, "baseline": "black", "difference": False, **LAYER},
        "expected_gradcam": {
            "samples": 2, "difference": "latent", "smoothing": "uniform", "scale": 0.5, **LAYER,
        },
    },
    "feature": {
        "scorecam": MASK,
        "ss_cam": {"samples": 2, "deviation": 0.5, **MASK},
        "is_cam": {"samples": 2, "ramp": "linear", **MASK},
        "ablation_cam": {"divisor": "logit", **LAYER},
        "recipro_cam": {"spread": False, **LAYER},
        "rise_features": {"masks": 4, "cells": 2, "probability": 0.5, "seed": 0, **LAYER},
        "occlusion_features": {"window": 2, "stride": 1, **LAYER},
    },
    "masking": {
        "occlusion": {"window": 16, "stride": 16, "fill": "mean"},
        "rise": {"masks": 4, "cells": 3, "probability": 0.5, "fill": "mean", "seed": 0},
    },
    "superpixel": {
        "lime": {"samples": 12, "superpixels": 9, "compactness": 10.0, "sigma": 1.0, "width": 0.25, "fill": "black"},
    },
    "relevance": {"lrp": {"epsilon": 0.25, "layer": "input"}, "deep_lift": {"baseline": "black"}},
    "optimized_mask": {
        "meaningful_perturbation": {
            "steps": 2, "cells": 4, "window": 3, "area_weight": 0.01, "variation_weight": 0.2, "power": 3.0,
            "noise": 0.2, "rate": 0.1,
        },
        "extremal_perturbation": {"steps": 2, "areas": [0.1], "stride": 8, "sigma": 8.0, "smoothing": 0.09},
    },
    "attention": {"rollout": {}, "gradient_rollout": {}},
    "control": {"uniform": {}, "canny": {"sigma": 1.0}, "center": {"sigma": 0.25}, "intensity": {}},
}  # fmt: skip
EVERY: list[Entry] = [
    entry("methods", family, name, {**given, "channels": "sum"}, f"tests.{family}.{name}")
    for family, listed in SETTINGS.items()
    for name, given in listed.items()
]


def shaping(bound: Entry) -> dict[str, Any]:
    """The options of a method that its maps depend on: the others choose images and grids."""
    return {name: value for name, value in bound.options.items() if name not in CHOOSING}
