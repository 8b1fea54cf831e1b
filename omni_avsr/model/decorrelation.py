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


def sink_losses(outputs: list[Tensor], media: Tensor) -> Tensor:
    """Squared cosines between the first position and each media position, over the collected layers."""
    cosines = [torch.cosine_similarity(h[:, :1].float(), h.float(), dim=-1)[media] for h in outputs]  # (B, L) -> (n,)
    return torch.cat([*cosines, media.new_zeros(0, dtype=torch.float32)]).square()
