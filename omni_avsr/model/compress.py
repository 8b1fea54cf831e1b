"""Frames to tokens: average or stack `rate` frames, then project them into the LLM's width.

Padding is left out by length: the result holds only the true tokens, of all clips one after
another.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omni_avsr.tasks import token_count

Rows = Tensor | slice  # indices of rows, or all of them

SIMILAR = 1.25  # rows whose lengths differ by less are computed together


def length_mask(lengths: Tensor, width: int) -> Tensor:
    """True where a position lies inside its row's length."""
    return torch.arange(width, device=lengths.device) < lengths[:, None]  # (B,) -> (B, width)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device, which the CPU does not wait for."""
    return tensor.to(device, non_blocking=device.type == "cuda")


def picked(values: Tensor, mask: Tensor) -> Tensor:
    """The vectors (N, ...) of values (B, T, ...) where a mask (B, T) on the CPU is True.

    Indexing with the mask itself makes the CPU wait for a GPU to count it.
    """
    places = mask.flatten().nonzero().flatten()
    return values.flatten(0, 1).index_select(0, sent(places, values.device))


def group_by_length(
    lengths: Tensor, device: torch.device, all_together: bool = False
) -> list[tuple[Rows, int]]:
    """Rows of similar length in groups: their indices, and the longest length of each group.

    This saves the CPU the padding. Other devices are faster with all rows at once.
    """
    if all_together or device.type != "cpu":
        return [(slice(None), int(lengths.max()))]
    groups: list[list[int]] = []
    for row in lengths.argsort().tolist():
        if not groups or lengths[row] > SIMILAR * lengths[groups[-1][0]]:
            groups.append([])
        groups[-1].append(row)
    return [(torch.tensor(sorted(rows)), int(lengths[rows].max())) for rows in groups]


def ungroup(parts: list[Tensor], groups: list[tuple[Rows, int]]) -> Tensor:
    """The rows (B, T, D) of all groups in their original order, padded to one length."""
    if len(parts) == 1:
        return parts[0]
    longest = max(part.shape[1] for part in parts)
    padded = [F.pad(part, (0, 0, 0, longest - part.shape[1])) for part in parts]
    together = torch.cat(padded)
    every = torch.arange(len(together))
    order = torch.cat([every[rows] for rows, _ in groups])
    return together[order.argsort()]


def compress(features: Tensor, lengths: Tensor, rate: int, stack: bool, keep_tail: bool) -> Tensor:
    """Windows of `rate` frames averaged, or stacked, over the true frames of each clip."""
    device = features.device
    padding = ~length_mask(lengths, features.shape[1])
    features = features.masked_fill(sent(padding, device)[..., None], 0)
    features = F.pad(features, (0, 0, 0, -features.shape[1] % rate))
    windows = features.unflatten(1, (-1, rate))  # (B, T, D) -> (B, T / rate, rate, D)
    if stack:
        tokens = windows.flatten(2)  # (B, T / rate, rate * D)
    else:
        starts = rate * torch.arange(windows.shape[1], device=lengths.device)
        true_frames = (lengths[:, None] - starts).clamp(1, rate)  # (B, T / rate)
        tokens = windows.sum(2) / sent(true_frames, device)[..., None]  # (B, T / rate, D)
    counts = [token_count(frames, rate, keep_tail) for frames in lengths.tolist()]
    kept = length_mask(torch.tensor(counts), tokens.shape[1])
    return picked(tokens, kept)  # (N, D) or (N, rate * D)


class Compressor(nn.Module):
    """One modality's way into the LLM, at every rate."""

    def __init__(
        self,
        sizes: tuple[int, int, int],  # of the encoder's, the hidden and the LLM's vectors
        rates: list[int],
        one: bool,
        stack: bool,
        norm: bool,
    ):
        super().__init__()
        self.stack = stack
        self.one = one
        keys = {"all": rates[0]} if one else {str(rate): rate for rate in rates}
        self.projectors = nn.ModuleDict()
        for key, rate in keys.items():
            self.projectors[key] = projector(sizes, rate if stack else 1, norm)

    def projector_of(self, rate: int) -> nn.Module:
        """The projector that serves a rate."""
        return self.projectors["all" if self.one else str(rate)]

    def forward(self, features: Tensor, lengths: Tensor, rate: int, keep_tail: bool) -> Tensor:
        """The LLM's tokens (N, D) of features (B, T, D); all clips one after another."""
        dtype = next(self.parameters()).dtype
        tokens = compress(features.to(dtype), lengths, rate, self.stack, keep_tail)
        return self.projector_of(rate)(tokens)


def projector(sizes: tuple[int, int, int], stacked: int, norm: bool) -> nn.Sequential:
    """Linear, ReLU, Linear and, if asked for, LayerNorm."""
    inner, hidden, outer = sizes
    layers: list[nn.Module] = [
        nn.Linear(inner * stacked, hidden),
        nn.ReLU(),
        nn.Linear(hidden, outer),
    ]
    if norm:
        layers.append(nn.LayerNorm(outer))
    return nn.Sequential(*layers)
