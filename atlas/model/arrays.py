"""Name the arrays that pass between functions: dtype, dimensions, meaning.

Dimension names are the project's vocabulary, and the dimensions of every dataset it writes. Tests check each call
against them; ordinary runs do not pay for the checks.
"""

from jaxtyping import Bool, Float, Int, Int8
from torch import Tensor

from atlas.model.lazy_images import LazyImages

# Intensities in [0, 1]: the classifier normalizes, nothing else knows a mean or a standard deviation.
Images = Float[Tensor, "image channel y x"]
# Held-out images, none of them evaluated, that methods use for comparison.
Background = Float[Tensor, "other channel y x"]
# The class whose logit is explained.
Targets = Int[Tensor, " image"]
# Where a map should be high: on an object, or on a tile of a grid.
Masks = Bool[Tensor, "image y x"]
# x0 y0 x1 y1 in pixels, half-open: x1 and y1 are one past the last pixel. Unused rows are -1.
Boxes = Int[Tensor, "image box 4"]
# One integer per image, made from the study's seed and the image's id: see atlas/study/seeds.py.
Seeds = list[int]

# What a method returns: raw, signed; methods without channels return one.
Attributions = Float[Tensor, "image #channel y x"]
# The same at the size of a layer; the stage enlarges it after reducing channels.
LayerAttributions = Float[Tensor, "image #feature row column"]
# What is stored: attributions whose channels are reduced as the entry says.
Maps = Float[Tensor, "image y x"]

Logits = Float[Tensor, "image class"]
# Activations of a layer; at `input` the normalized image.
Features = Float[Tensor, "image feature row column"]
HeadWeights = Float[Tensor, "class feature"]

# The maps of all rows that a metric scores, of which a batch holds some.
AllMaps = Float[Tensor, "all y x"]
# Their images: to be sliced, a batch at a time, as not all of them need be in memory.
AllImages = Float[Tensor, "all channel y x"] | LazyImages

# What a metric returns. NaN: this score is not defined for this image.
Scores = Float[Tensor, " image"]
Curves = Float[Tensor, "image fraction"]
Hits = Float[Tensor, "image threshold"]
Certified = Float[Tensor, "image radius level"]

# Marks of the top pixels of maps, by level, and whether equal scores straddled the edge of the top.
Tops = Bool[Tensor, "image level y x"]
Ties = Bool[Tensor, "image level"]
# 1 certified important, 0 certified unimportant, -1 abstained.
Labels = Int8[Tensor, "image radius level y x"]
