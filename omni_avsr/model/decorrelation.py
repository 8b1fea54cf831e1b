"""Attention-sink decorrelation (arXiv 2510.22603).

It keeps the media tokens from collapsing onto the first position.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from omni_avsr.model.compress import picked


@contextmanager
def middle_layers(layers: nn.ModuleList) -> Iterator[list[Tensor]]:
    """Collects the outputs of the middle half of the layers inside the context."""
    quarter = len(layers) // 4
    middle = layers[quarter : len(layers) - quarter]
    outputs: list[Tensor] = []

    def collect(layer: nn.Module, inputs: tuple, output: Tensor) -> None:
        outputs.append(output)

    hooks = [layer.register_forward_hook(collect) for layer in middle]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def sink_losses(outputs: list[Tensor], media: Tensor) -> Tensor:
    """Squared cosines (n,) between the first position and each media position, in every layer.

    The outputs are (B, L, D); `media` (B, L), on the CPU, is True at media tokens.
    """
    if not outputs:
        return torch.zeros(0)
    cosines = []
    for hidden in outputs:
        hidden = hidden.float()
        cosine = torch.cosine_similarity(hidden[:, :1], hidden, dim=-1)  # (B, L)
        cosines.append(picked(cosine, media))
    return torch.cat(cosines).square()
