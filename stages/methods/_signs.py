"""Keep only the gradients of one sign."""

from torch import Tensor


def kept(gradients: Tensor, sign: str) -> Tensor:
    """Give gradients as they are, those above 0, those below 0 (the others 0), or their absolute values."""
    if sign == "positive":
        return gradients.clamp(min=0)
    if sign == "negative":
        return gradients.clamp(max=0)
    return gradients.abs() if sign == "absolute" else gradients
