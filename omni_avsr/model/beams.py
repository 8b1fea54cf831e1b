"""Beam search over a batch of prefixes; greedy is one beam. Deterministic; a clip's ids do not depend on the batch.

Scores and the stopping rule are those of transformers 4.43, with which the published code was recorded. A hypothesis
scores its log-probability per token, eos included. A clip is done when its worst kept hypothesis is at least as good
as the best candidate of the step, finished or not. (Version 5 compares with unfinished ones alone, stops earlier and
gives other transcripts.) The prefix runs once for all beams; a clip that is done leaves the batch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
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
    """The LLM, one token of each hypothesis further at each call. Each hypothesis is a row of the batch."""

    def __init__(self, llm: PreTrainedModel, embeds: Tensor, mask: Tensor):
        self.decoder, self.head = llm.get_decoder(), llm.get_output_embeddings()
        self.cache = DynamicCache(config=llm.config)
        self.mask = mask  # (C, L), then (C * k, L + n)
        self.clips, self.width, self.in_a_row = len(mask), 1, 1  # C, k, and how many of the k a row holds
        self.inputs = {"inputs_embeds": embeds, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(0)}

    def best(self, count: int) -> tuple[Tensor, Tensor]:
        """The best next tokens of each hypothesis: their log-probabilities and they themselves, (C, k, count) both."""
        hidden = self.decoder(**self.inputs, past_key_values=self.cache, use_cache=True).last_hidden_state
        hidden = hidden[:, -self.in_a_row :].reshape(self.clips, self.width, -1)
        return self.head(hidden).float().log_softmax(-1).topk(count)

    def advance(self, clips: Tensor, origins: Tensor, tokens: Tensor) -> None:
        """Of these clips (C,), goes on from these hypotheses (C, k) with one token each (C, k)."""
        rows = (clips[:, None] * self.width + origins).flatten()
        self.cache.reorder_cache(rows)
        self.mask = F.pad(self.mask[rows], (0, 1), value=1)
        self.clips, self.width = tokens.shape
        positions = self.mask.sum(1, keepdim=True) - 1
        self.inputs = {"input_ids": tokens.reshape(-1, 1), "attention_mask": self.mask, "position_ids": positions}


class SharedSteps(Steps):
    """A clip's hypotheses are one row of the batch: nothing is copied when they change places.

    Each attends to the prefix and, of the tokens of all, to its own past.
    """

    def __init__(self, llm: PreTrainedModel, embeds: Tensor, mask: Tensor):
        super().__init__(llm, embeds, mask)
        self.past = mask.new_zeros(len(mask), 1, 0, dtype=torch.bool)  # (C, k, n): is a token one of a hypothesis?

    @staticmethod
    def fits(llm: PreTrainedModel) -> bool:
        """Whether all layers see all positions, which are rotated into keys, under a mask of any shape."""
        config = llm.get_decoder().config
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        sees_all = kinds == {"full_attention"} and not getattr(config, "sliding_window", None)
        any_mask = config._attn_implementation in ("sdpa", "eager")
        return sees_all and any_mask and bool(getattr(config, "rope_parameters", None))

    def advance(self, clips: Tensor, origins: Tensor, tokens: Tensor) -> None:
        if len(clips) < self.clips:
            self.cache.batch_select_indices(clips)
        self.clips, self.width = tokens.shape
        self.in_a_row = self.width
        own = torch.eye(self.width, dtype=torch.bool, device=tokens.device).expand(self.clips, -1, -1)
        past = self.past[clips].gather(1, origins[..., None].expand(-1, -1, self.past.shape[2]))
        self.mask, self.past = self.mask[clips], torch.cat([past, own], 2)
        seen = torch.cat([self.mask.bool()[:, None].expand(-1, self.width, -1), self.past], 2)  # (C, k, L + n)
        dtype = self.decoder.dtype
        mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)
        self.inputs = {"input_ids": tokens, "attention_mask": mask[:, None], "position_ids": seen.sum(2) - 1}


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
    steps = (SharedSteps if SharedSteps.fits(llm) else Steps)(llm, embeds, mask)
    clips = torch.arange(batch, device=device)  # (C,) those not done
    scores = torch.zeros(batch, 1, device=device)  # (C, k) of the running hypotheses: one, then `beams`
    ids = torch.zeros(batch, 1, 0, dtype=torch.long, device=device)  # (C, k, t)
    for length in range(1, max_new_tokens + 1):
        log_probs, words = steps.best(2 * beams)  # enough for `beams` to go on should all others end
        best, flat = (scores[..., None] + log_probs).flatten(1).topk(2 * beams)
        origins, tokens = flat // (2 * beams), words.flatten(1).gather(1, flat)  # (C, 2 * beams)
        grown = torch.cat([ids.gather(1, origins[..., None].expand(-1, -1, length - 1)), tokens[..., None]], 2)
        ends = tokens == eos
        ended = best.masked_fill(~ends, -torch.inf)[:, :beams] / length  # an end below the first `beams` does not count
        finished.add(clips, ended, grown[:, :beams])
        done = finished.scores[clips].amin(1) >= best[:, 0] / length  # (C,)
        order = ends.long().argsort(dim=1, stable=True)[:, :beams][~done]  # the best that do not end, in their order
        scores, clips = best[~done].gather(1, order), clips[~done]
        ids = grown[~done].gather(1, order[..., None].expand(-1, -1, length))
        if not len(clips) or length == max_new_tokens:
            break
        steps.advance((~done).nonzero().flatten(), origins[~done].gather(1, order), ids[..., -1])
    finished.add(clips, scores / max_new_tokens, ids)
    winners = finished.ids[:, 0]  # topk sorts
    before_eos = ((winners == eos).cumsum(1) == 0).sum(1)
    return winners[:, : int(before_eos.max()) + 1], finished.scores[:, 0]
