"""Beam search over a batch of prefixes; greedy is one beam. Deterministic; a clip's ids do not depend on the batch.

Scores and the stopping rule are those of transformers 4.43, with which the published code was recorded. A hypothesis
scores its log-probability per token, eos included. A clip is done when its worst kept hypothesis is at least as good
as the best candidate of the step, finished or not. (Version 5 compares with unfinished ones alone, stops earlier and
gives other transcripts.) The prefix runs once and is shared out to the beams; a clip that is done leaves the batch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel


@dataclass
class Finished:
    """The best hypotheses so far of each clip."""

    scores: Tensor  # (B, beams), -inf where there is none yet
    ids: Tensor  # (B, beams, longest), padded

    def add(self, clips: Tensor, scores: Tensor, ids: Tensor) -> None:
        """Keeps the best of the old and these: scores (C, n), ids (C, n, t) of the clips (C,)."""
        width = self.scores.shape[1]
        padded = self.ids[clips][:, :1].expand(-1, ids.shape[1], -1).clone()
        padded[..., : ids.shape[2]] = ids
        scores = torch.cat([self.scores[clips], scores], 1)
        ids = torch.cat([self.ids[clips], padded], 1)
        self.scores[clips], best = scores.topk(width)
        self.ids[clips] = ids.gather(1, best[..., None].expand(-1, -1, ids.shape[2]))


class Steps:
    """The LLM, one token further at each call."""

    def __init__(self, llm: PreTrainedModel, embeds: Tensor, mask: Tensor):
        self.decoder, self.head = llm.get_decoder(), llm.get_output_embeddings()
        self.cache = DynamicCache(config=llm.config)
        self.mask = mask  # (rows, length so far)
        self.positions = (mask.cumsum(1) - 1).clamp(min=0)
        self.inputs = {"inputs_embeds": embeds}

    def best(self, count: int) -> tuple[Tensor, Tensor]:
        """The best next tokens of each row: their log-probabilities and they themselves, (rows, count) both."""
        state = {"attention_mask": self.mask, "position_ids": self.positions, "past_key_values": self.cache}
        hidden = self.decoder(**self.inputs, **state, use_cache=True).last_hidden_state[:, -1]
        return self.head(hidden).float().log_softmax(-1).topk(count)

    def advance(self, rows: Tensor, tokens: Tensor) -> None:
        """Goes on from these rows, which may be fewer or more, with one token each."""
        self.cache.reorder_cache(rows)
        self.mask = torch.cat([self.mask[rows], self.mask.new_ones(len(rows), 1)], 1)
        self.positions = self.positions[rows][:, -1:] + 1
        self.inputs = {"input_ids": tokens[:, None]}


@torch.no_grad()
def beam_search(
    llm: PreTrainedModel, embeds: Tensor, mask: Tensor, beams: int, max_new_tokens: int, eos: int, pad: int
) -> tuple[Tensor, Tensor]:
    """The best ids (B, new) and their scores (B,) after each prefix (B, L, D) whose mask (B, L) is padded left."""
    device, batch = embeds.device, len(embeds)
    finished = Finished(
        torch.full((batch, beams), -torch.inf, device=device),
        torch.full((batch, beams, max_new_tokens), pad, device=device),
    )
    steps = Steps(llm, embeds, mask)
    clips = torch.arange(batch, device=device)  # (C,) those not done
    scores = torch.zeros(batch, 1, device=device)  # (C, k) of the running hypotheses: one, then `beams`
    ids = torch.zeros(batch, 1, 0, dtype=torch.long, device=device)  # (C, k, t)
    for length in range(1, max_new_tokens + 1):
        log_probs, words = steps.best(2 * beams)  # enough for `beams` to go on should all others end
        totals = scores[..., None] + log_probs.unflatten(0, scores.shape)  # (C, k, 2 * beams)
        best, flat = totals.flatten(1).topk(2 * beams)
        origins, tokens = flat // totals.shape[2], words.view(len(clips), -1).gather(1, flat)  # (C, 2 * beams)
        grown = torch.cat([ids.gather(1, origins[..., None].expand(-1, -1, length - 1)), tokens[..., None]], 2)
        ends = tokens == eos
        ended = best.masked_fill(~ends, -torch.inf)[:, :beams] / length  # an end below the first `beams` does not count
        finished.add(clips, ended, grown[:, :beams])
        done = finished.scores[clips].amin(1) >= best[:, 0] / length  # (C,)
        order = ends.long().argsort(dim=1, stable=True)[:, :beams][~done]  # the best that do not end, in their order
        rows = torch.arange(len(clips), device=device)[~done, None] * scores.shape[1] + origins[~done].gather(1, order)
        scores, clips = best[~done].gather(1, order), clips[~done]
        ids = grown[~done].gather(1, order[..., None].expand(-1, -1, length))
        if not len(clips) or length == max_new_tokens:
            break
        steps.advance(rows.flatten(), ids[..., -1].flatten())
    finished.add(clips, scores / max_new_tokens, ids)
    winners = finished.ids[:, 0]  # topk sorts
    before_eos = ((winners == eos).cumsum(1) == 0).sum(1)
    return winners[:, : int(before_eos.max()) + 1], finished.scores[:, 0]
