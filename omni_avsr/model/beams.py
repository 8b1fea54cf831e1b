"""Beam search over a batch of prefixes; one beam is greedy decoding.

It is deterministic, and a clip's ids do not depend on its batch. Scores and the stopping rule are
those of transformers 4.43, with which the published code was recorded: a hypothesis scores its
log-probability per token, eos included, and a clip is done when its worst kept hypothesis is at
least as good as the best candidate of the step, finished or not. (Version 5 compares only with
unfinished candidates, stops earlier and gives other transcripts.)

The prefix runs once for all beams, and a clip that is done, or as long as its limit, leaves the
batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache, PreTrainedModel

from omni_avsr.model.compress import sent

FEWEST_REPEATS = 3  # of the end of a transcript that is a loop


class Generated(NamedTuple):
    """The best transcript of each clip."""

    ids: Tensor  # (B, new), ended by eos and padded
    scores: Tensor  # (B,) log-probability per token, eos included
    is_cut: Tensor  # (B,) whether it reached its limit without an end

    def without_loops(self, pad: int) -> "Generated":
        """The same, but what a transcript was repeating when its limit cut it stands there once."""
        ids = self.ids.clone()
        for row in self.is_cut.nonzero().flatten().tolist():
            length = int((ids[row] != pad).sum())  # its limit, which others may exceed
            ids[row, without_loop(ids[row, :length].tolist()) :] = pad
        return self._replace(ids=ids)


def without_loop(ids: Sequence[int]) -> int:
    """How many ids are left when those that the end repeats stand there once."""
    for period in range(1, len(ids) // FEWEST_REPEATS + 1):
        looped = period
        while looped < len(ids) and ids[-looped - 1] == ids[period - looped - 1]:
            looped += 1
        if looped >= FEWEST_REPEATS * period:
            return len(ids) - looped + period
    return len(ids)


@dataclass
class Finished:
    """The best finished hypotheses so far of each clip."""

    scores: Tensor  # (B, beams), -inf where there is none yet
    ids: Tensor  # (B, beams, longest), padded

    @classmethod
    def none(
        cls, clips: int, beams: int, longest: int, pad: int, device: torch.device
    ) -> "Finished":
        """Nothing has finished yet."""
        scores = torch.full((clips, beams), -torch.inf, device=device)
        return cls(scores, torch.full((clips, beams, longest), pad, device=device))

    def add(self, clips: Tensor, scores: Tensor, ids: Tensor) -> None:
        """Keeps the best of the old hypotheses and these.

        They have scores (C, n) and ids (C, n, t), and belong to the clips (C,).
        """
        beams = self.scores.shape[1]
        padded = self.ids[clips][:, :1].expand(-1, ids.shape[1], -1).clone()
        padded[..., : ids.shape[2]] = ids
        scores = torch.cat([self.scores[clips], scores], 1)  # (C, beams + n)
        ids = torch.cat([self.ids[clips], padded], 1)
        self.scores[clips], best = scores.topk(beams)
        self.ids[clips] = pick(ids, best)


@dataclass(frozen=True)
class Running:
    """The hypotheses that still grow: k of each of C clips."""

    clips: Tensor  # (C,)
    limits: Tensor  # (C,) most tokens, on the CPU
    scores: Tensor  # (C, k)
    ids: Tensor  # (C, k, t)

    @classmethod
    def all(cls, limits: Tensor, device: torch.device) -> "Running":
        """One empty hypothesis of every clip."""
        batch = len(limits)
        return cls(
            clips=torch.arange(batch, device=device),
            limits=limits,
            scores=torch.zeros(batch, 1, device=device),
            ids=torch.zeros(batch, 1, 0, dtype=torch.long, device=device),
        )

    def of(self, kept: Tensor) -> "Running":
        """Only those of the clips where a mask (C,) on the CPU is True."""
        rows = rows_of(kept, self.clips.device)
        return Running(self.clips[rows], self.limits[kept], self.scores[rows], self.ids[rows])


def rows_of(mask: Tensor, device: torch.device) -> Tensor:
    """The indices (n,), on a device, of what is True in a mask (C,) on the CPU."""
    return sent(mask.nonzero().flatten(), device)


def pick(values: Tensor, index: Tensor) -> Tensor:
    """The entries (C, n, t) of values (C, m, t) at index (C, n)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[2]))


class Steps:
    """Runs the LLM one token at a time. Each hypothesis is a row of the batch.

    C clips with k hypotheses each are running.
    """

    def __init__(self, llm: PreTrainedModel, embeds: Tensor, mask: Tensor):
        self.decoder = llm.get_decoder()
        self.head = llm.get_output_embeddings()
        self.cache = DynamicCache(config=llm.config)
        self.is_padded = not mask.all()
        mask = sent(mask, embeds.device)
        self.mask = mask  # (C, L), then (C * k, L + n)
        self.clips = len(mask)  # C
        self.width = 1  # k
        self.in_a_row = 1  # how many of the k hypotheses one row of the batch holds
        positions = (mask.cumsum(1) - 1).clamp(0)
        self.inputs = {
            "inputs_embeds": embeds,
            "attention_mask": mask if self.is_padded else None,  # for the fastest kernel
            "position_ids": positions,
        }

    def best(self, count: int) -> tuple[Tensor, Tensor]:
        """Log-probabilities and ids (C, k, count) of the best next tokens of each hypothesis."""
        decoded = self.decoder(**self.inputs, past_key_values=self.cache, use_cache=True)
        hidden = decoded.last_hidden_state[:, -self.in_a_row :]
        hidden = hidden.flatten(0, 1)  # (C * k, D): in three dimensions, a CPU copies the head
        log_probs = self.head(hidden).float().log_softmax(-1)
        best, ids = log_probs.unflatten(0, (self.clips, self.width)).topk(count)
        return best, ids

    def advance(self, clips: Tensor, origins: Tensor, tokens: Tensor) -> None:
        """Keeps these clips (C,), and extends hypotheses (C, k) by one token each (C, k)."""
        rows = (clips[:, None] * self.width + origins).flatten()
        self.cache.reorder_cache(rows)  # type: ignore[arg-type]  # a tensor of any kind will do
        self.mask = F.pad(self.mask[rows], (0, 1), value=1)
        self.clips, self.width = tokens.shape
        self.inputs = {
            "input_ids": tokens.reshape(-1, 1),
            "attention_mask": self.mask if self.is_padded else None,
            "position_ids": self.mask.sum(1, keepdim=True) - 1,
        }


class SharedSteps(Steps):
    """A clip's hypotheses share one row of the batch, so that nothing is copied between them.

    Each hypothesis attends to the prefix and, of the tokens of all hypotheses, to its own past.
    """

    def __init__(self, llm: PreTrainedModel, embeds: Tensor, mask: Tensor):
        super().__init__(llm, embeds, mask)
        # (C, k, n): whether a token belongs to the past of a hypothesis
        self.past = self.mask.new_zeros(len(mask), 1, 0, dtype=torch.bool)

    @staticmethod
    def supports(llm: PreTrainedModel) -> bool:
        """Whether all layers see all positions, take any mask, and rotate positions into keys."""
        config = llm.get_decoder().config
        layer_types = set(getattr(config, "layer_types", None) or ["full_attention"])
        sees_all = layer_types == {"full_attention"} and not getattr(config, "sliding_window", None)
        takes_any_mask = config._attn_implementation in ("sdpa", "eager")
        rotates = bool(getattr(config, "rope_parameters", None))
        return sees_all and takes_any_mask and rotates

    def advance(self, clips: Tensor, origins: Tensor, tokens: Tensor) -> None:
        if len(clips) < self.clips:
            self.cache.batch_select_indices(clips)
        self.clips, self.width = tokens.shape
        self.in_a_row = self.width
        device = tokens.device
        own = torch.eye(self.width, dtype=torch.bool, device=device)  # each sees its new token
        own = own.expand(self.clips, -1, -1)
        self.mask = self.mask[clips]
        self.past = torch.cat([pick(self.past[clips], origins), own], 2)
        prefix = self.mask.bool()[:, None].expand(-1, self.width, -1)
        seen = torch.cat([prefix, self.past], 2)  # (C, k, L + n)
        sees_all = self.width == 1 and not self.is_padded
        self.inputs = {
            "input_ids": tokens,
            "attention_mask": None if sees_all else self._additive_mask(seen),
            "position_ids": seen.sum(2) - 1,
        }

    def _additive_mask(self, seen: Tensor) -> Tensor:
        """What is added to the attention's logits (C, 1, k, L + n), given which tokens are seen."""
        dtype = self.decoder.dtype
        mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
        return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


@torch.no_grad()
def beam_search(
    llm: PreTrainedModel,
    embeds: Tensor,
    mask: Tensor,
    beams: int,
    max_new_tokens: int | Sequence[int],
    eos: int,
    pad: int,
) -> Generated:
    """The best ids after each prefix (B, L, D), at most so many, or so many for each prefix.

    The mask (B, L) of the prefixes, on the CPU, is padded on the left.
    """
    device = embeds.device
    limits = torch.as_tensor(max_new_tokens).expand(len(embeds))  # (B,)
    longest = int(limits.max())
    finished = Finished.none(len(embeds), beams, longest, pad, device)
    steps_class = SharedSteps if SharedSteps.supports(llm) else Steps
    steps = steps_class(llm, embeds, mask)
    running = Running.all(limits, device)
    for length in range(1, longest + 1):
        best, origins, tokens = _candidates(steps, running.scores, 2 * beams)
        past = pick(running.ids, origins)
        grown = torch.cat([past, tokens[..., None]], 2)  # (C, 2 * beams, t + 1)

        ends = tokens == eos
        ended = best.masked_fill(~ends, -torch.inf) / length
        # An end that is not among the first `beams` candidates does not count
        finished.add(running.clips, ended[:, :beams], grown[:, :beams])

        can_improve = finished.scores[running.clips].amin(1) < best[:, 0] / length  # (C,)
        # Those that do not end come first, by score
        order = ends.long().argsort(dim=1, stable=True)[:, :beams]
        running = replace(running, scores=best.gather(1, order), ids=pick(grown, order))
        can_improve = can_improve.cpu()  # the only time in a step that the CPU waits for a GPU
        at_limit = can_improve & (running.limits == length)
        if at_limit.any():
            cut = running.of(at_limit)
            finished.add(cut.clips, cut.scores / length, cut.ids)
        goes_on = can_improve & ~at_limit
        if not goes_on.any():
            break
        running = running.of(goes_on)
        kept = rows_of(goes_on, device)
        steps.advance(kept, origins[kept].gather(1, order[kept]), running.ids[..., -1])
    ids = finished.ids[:, 0]  # topk sorts
    is_cut = _are_cut(ids, sent(limits, device), eos)
    return Generated(_without_tail(ids, eos), finished.scores[:, 0], is_cut)


def _candidates(steps: Steps, scores: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best continuations (C, count) of running hypotheses with scores (C, k).

    Returns their scores, the hypothesis that each extends, and its new token. Twice as many as
    there are beams are enough for all beams to continue if as many end.
    """
    log_probs, words = steps.best(count)  # (C, k, count)
    best, flat = (scores[..., None] + log_probs).flatten(1).topk(count)
    return best, flat // count, words.flatten(1).gather(1, flat)


def _are_cut(ids: Tensor, limits: Tensor, eos: int) -> Tensor:
    """Whether there is no eos among the first ids of each row (B, new), as many as its limit.

    What follows is padding, which may be eos as well.
    """
    places = torch.arange(ids.shape[1], device=ids.device)
    return ~((ids == eos) & (places < limits[:, None])).any(1)


def _without_tail(ids: Tensor, eos: int) -> Tensor:
    """The ids (B, new) up to the last eos of the longest row."""
    before_eos = ((ids == eos).cumsum(1) == 0).sum(1)  # (B,)
    return ids[:, : int(before_eos.max()) + 1]
