"""The cross-entropy of the transcript, without the logits of a whole batch in memory.

With a vocabulary of 128,000, logits are most of a small batch's memory. They are made a few rows at a time; as the head
is frozen, the gradient of what goes into it is made of them at once, and they are dropped.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LOGITS = 2**23  # at a time


def label_loss(head: nn.Module, hidden: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy of the head's logits for hidden (N, D) against labels (N,)."""
    if type(head) is nn.Linear and not head.weight.requires_grad:
        return _FrozenHead.apply(hidden, head.weight, head.bias, labels)
    return F.cross_entropy(head(hidden).float(), labels)


class _FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        gradient = torch.empty_like(hidden) if wanted else None
        loss = hidden.new_zeros((), dtype=torch.float32)
        for start in range(0, len(hidden), size := max(1, LOGITS // len(weight))):
            rows = slice(start, start + size)
            log_probs = F.linear(hidden[rows], weight, bias).float().log_softmax(-1)  # (n, vocabulary)
            loss += F.nll_loss(log_probs, labels[rows], reduction="sum")
            if gradient is not None:
                error = log_probs.exp_()
                error[torch.arange(len(error), device=error.device), labels[rows]] -= 1
                gradient[rows] = error.to(hidden.dtype) @ weight
        ctx.gradient = None if gradient is None else gradient / len(hidden)
        return loss / len(hidden)

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, None, None, None]:
        return scale.to(ctx.gradient.dtype) * ctx.gradient, None, None, None
