"""Frames to tokens: average or stack `rate` frames, then project them into the LLM's width.

Padding is left out by length: what comes back holds the true tokens alone, of all clips one after another.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omni_avsr.tasks import token_count


def length_mask(lengths: Tensor, width: int) -> Tensor:
    """True where a position lies inside its row's length."""
    return torch.arange(width, device=lengths.device) < lengths[:, None]  # (B,) -> (B, width)


def similar(lengths: Tensor, at_once: bool = False) -> list[tuple[Tensor, int]]:
    """Rows in groups of about one length, each with its longest. Other devices than a CPU take all at once."""
    order = lengths.argsort()
    if at_once or lengths.device.type != "cpu":
        return [(order.sort().values, int(lengths.max()))]
    groups: list[list[int]] = [[]]
    for row in order.tolist():
        if groups[-1] and lengths[row] > 1.25 * lengths[groups[-1][0]]:
            groups.append([])
        groups[-1].append(row)
    return [(torch.tensor(rows).sort().values, int(lengths[rows].max())) for rows in groups]


def compress(features: Tensor, lengths: Tensor, rate: int, stack: bool, keep_tail: bool) -> Tensor:
    """Windows of `rate` frames averaged, or stacked, over the true frames of each clip."""
    features = features.masked_fill(~length_mask(lengths, features.shape[1])[..., None], 0)
    features = F.pad(features, (0, 0, 0, -features.shape[1] % rate))
    windows = features.unflatten(1, (-1, rate))  # (B, T, D) -> (B, T / rate, rate, D)
    starts = rate * torch.arange(windows.shape[1], device=lengths.device)
    true_frames = (lengths[:, None] - starts).clamp(1, rate)  # (B, T / rate)
    tokens = windows.flatten(2) if stack else windows.sum(2) / true_frames[..., None]
    counts = torch.tensor([token_count(n, rate, keep_tail) for n in lengths.tolist()], device=lengths.device)
    return tokens[length_mask(counts, tokens.shape[1])]  # (N, D) or (N, rate * D)


class Compressor(nn.Module):
    """One modality's way into the LLM, at every rate."""

    def __init__(self, sizes: tuple[int, int, int], rates: list[int], one: bool, stack: bool, norm: bool):
        super().__init__()
        self.stack = stack
        self.one = one
        keys = {"all": rates[0]} if one else {str(rate): rate for rate in rates}
        self.projectors = nn.ModuleDict({k: projector(sizes, rate if stack else 1, norm) for k, rate in keys.items()})

    def forward(self, features: Tensor, lengths: Tensor, rate: int, keep_tail: bool) -> Tensor:
        tokens = compress(features, lengths, rate, self.stack, keep_tail)
        return self.projectors["all" if self.one else str(rate)](tokens)  # (B, T, D) -> (N, D of the LLM)


def projector(sizes: tuple[int, int, int], stacked: int, norm: bool) -> nn.Sequential:
    """Linear, ReLU, Linear and, if asked for, LayerNorm."""
    inner, hidden, outer = sizes
    layers: list[nn.Module] = [nn.Linear(inner * stacked, hidden), nn.ReLU(), nn.Linear(hidden, outer)]
    return nn.Sequential(*layers, *([nn.LayerNorm(outer)] if norm else []))
