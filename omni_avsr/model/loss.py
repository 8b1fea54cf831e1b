"""The cross-entropy of the transcript, without keeping the logits of a whole batch.

With a vocabulary of 128,000, logits are most of a small batch's memory. They are computed a few
rows at a time. As the head is frozen, the gradient of its input follows from them at once, and they
are dropped.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LOGITS_AT_A_TIME = 2**23


def label_loss(head: nn.Module, hidden: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy of the head's logits for hidden (N, D) against labels (N,)."""
    if type(head) is nn.Linear and not head.weight.requires_grad:
        loss: Tensor = _FrozenHead.apply(hidden, head.weight, head.bias, labels)
        return loss
    return F.cross_entropy(head(hidden).float(), labels)


class _FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor
    ) -> Tensor:
        needs_gradient = ctx.needs_input_grad[0]
        gradient = torch.empty_like(hidden) if needs_gradient else None
        loss = hidden.new_zeros((), dtype=torch.float32)
        size = max(1, LOGITS_AT_A_TIME // len(weight))
        for start in range(0, len(hidden), size):
            rows = slice(start, start + size)
            logits = F.linear(hidden[rows], weight, bias).float()  # (n, vocabulary)
            log_probs = logits.log_softmax(-1)
            loss += F.nll_loss(log_probs, labels[rows], reduction="sum")
            if gradient is not None:
                error = log_probs.exp_()  # of the logits: probabilities, less 1 at the label
                error[torch.arange(len(error), device=error.device), labels[rows]] -= 1
                gradient[rows] = error.to(hidden.dtype) @ weight
        ctx.gradient = None if gradient is None else gradient / len(hidden)
        return loss / len(hidden)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, None]:
        (scale,) = grads
        return scale.to(ctx.gradient.dtype) * ctx.gradient, None, None, None
