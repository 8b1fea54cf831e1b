"""Attention-sink decorrelation (arXiv 2510.22603): keeps the media tokens from collapsing onto the first position."""

from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def middle_layers(layers: nn.ModuleList):
    """Collects the outputs of the middle half of the layers while it is open."""
    quarter = len(layers) // 4
    outputs: list[Tensor] = []
    middle = layers[quarter : len(layers) - quarter]
    hooks = [layer.register_forward_hook(lambda *call: outputs.append(call[-1])) for layer in middle]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def sink_loss(outputs: list[Tensor], media: Tensor) -> Tensor:
    """Mean squared cosine between the first position and the media positions, over the collected layers."""
    losses = []
    for hidden in outputs:  # (B, L, D)
        cosine = torch.cosine_similarity(hidden[:, :1].float(), hidden.float(), dim=-1)  # (B, L)
        losses.append(cosine[media].square().sum() / media.sum().clamp(min=1))
    return torch.stack(losses).mean()
