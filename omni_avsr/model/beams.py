"""Beam search over prefixes that come and go; one beam is greedy decoding.

It is deterministic, and a clip's ids do not depend on its batch. Scores and the stopping rule are
those of transformers 4.43, with which the published code was recorded: a hypothesis scores its
log-probability per token, eos included, and a clip is done when its worst kept hypothesis is at
least as good as the best candidate of the step, finished or not. (Version 5 compares only with
unfinished candidates, stops earlier and gives other transcripts.)

The prefix runs once for all beams. A clip that is done, or as long as its limit, leaves the batch,
and others can take its place.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

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
    sums: Tensor  # (B, new) log-probability as far as each token; of padding it means nothing

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


@dataclass(frozen=True)
class Hypotheses:
    """The hypotheses of C clips: those that still grow, k of each, and the best that have ended."""

    clips: Tensor  # (C,) their numbers, on the CPU
    limits: Tensor  # (C,) most tokens, on the CPU
    lengths: Tensor  # (C,) tokens so far, on the CPU
    scores: Tensor  # (C, k)
    ids: Tensor  # (C, k, longest), padded
    sums: Tensor  # (C, k, longest) score as far as each token
    ended: Tensor  # (C, beams) scores per token, -inf where there is none yet
    ended_ids: Tensor  # (C, beams, longest), padded
    ended_sums: Tensor  # (C, beams, longest)

    @classmethod
    def none(
        cls, clips: Tensor, limits: Tensor, beams: int, pad: int, device: torch.device
    ) -> "Hypotheses":
        """One empty hypothesis of every clip."""
        batch, longest = len(limits), int(limits.max())
        return cls(
            clips=clips,
            limits=limits,
            lengths=torch.zeros(batch, dtype=torch.long),
            scores=torch.zeros(batch, 1, device=device),
            ids=torch.full((batch, 1, longest), pad, device=device),
            sums=torch.zeros(batch, 1, longest, device=device),
            ended=torch.full((batch, beams), -torch.inf, device=device),
            ended_ids=torch.full((batch, beams, longest), pad, device=device),
            ended_sums=torch.zeros(batch, beams, longest, device=device),
        )

    def of(self, kept: Tensor) -> "Hypotheses":
        """Only those of the clips where a mask (C,) on the CPU is True."""
        rows = rows_of(kept, self.scores.device)
        return Hypotheses(
            clips=self.clips[kept],
            limits=self.limits[kept],
            lengths=self.lengths[kept],
            scores=self.scores[rows],
            ids=self.ids[rows],
            sums=self.sums[rows],
            ended=self.ended[rows],
            ended_ids=self.ended_ids[rows],
            ended_sums=self.ended_sums[rows],
        )

    def with_ended(self, scores: Tensor, ids: Tensor, sums: Tensor) -> "Hypotheses":
        """Keeps the best of those that have ended and these: (C, n), twice (C, n, longest)."""
        beams = self.ended.shape[1]
        scores = torch.cat([self.ended, scores], 1)  # (C, beams + n)
        ids = torch.cat([self.ended_ids, ids], 1)
        sums = torch.cat([self.ended_sums, sums], 1)
        scores, best = scores.topk(beams)  # sorted
        return replace(self, ended=scores, ended_ids=pick(ids, best), ended_sums=pick(sums, best))

    def and_those_of(self, other: "Hypotheses", pad: int) -> "Hypotheses":
        """Those of both; each has as many hypotheses of a clip."""
        longest = max(self.ids.shape[2], other.ids.shape[2])
        fields = {}
        for name, values in vars(self).items():
            both = [values, getattr(other, name)]
            if values.dim() == 3:
                both = [F.pad(part, (0, longest - part.shape[2]), value=pad) for part in both]
            fields[name] = torch.cat(both)
        return Hypotheses(**fields)


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

    joins = False  # whether it can take in the clips of another

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
        self.inputs: dict[str, Any] = {
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

    joins = True

    def __init__(self, llm: PreTrainedModel, embeds: Tensor, mask: Tensor):
        super().__init__(llm, embeds, mask)
        self.seen = self.mask.bool()[:, None]  # (C, k, L) which tokens a hypothesis attends to

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
        width = tokens.shape[1]
        own = torch.eye(width, dtype=torch.bool, device=tokens.device)  # each sees its new token
        past = pick(self.seen[clips], origins)
        self._continue(tokens, torch.cat([past, own.expand(len(tokens), -1, -1)], 2))

    def _continue(self, tokens: Tensor, seen: Tensor) -> None:
        """Takes the next tokens (C, k) and what each of them attends to."""
        self.seen = seen
        self.clips, self.width = tokens.shape
        self.in_a_row = self.width
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

    def join(self, other: "SharedSteps") -> None:
        """Takes in the clips of another, which has as many hypotheses of each."""
        places = [self._places(), other._places()]
        longest = max(own.shape[1] for own in places)
        both = (self, other)
        seen = [steps._seen_at(own, longest) for steps, own in zip(both, places, strict=True)]
        layers: list[Any] = self.cache.layers
        its_layers: list[Any] = other.cache.layers
        for layer, its in zip(layers, its_layers, strict=True):
            layer.keys = _joined([layer.keys, its.keys], places)
            layer.values = _joined([layer.values, its.values], places)
        self.is_padded = True
        tokens = torch.cat([self.inputs["input_ids"], other.inputs["input_ids"]])
        self._continue(tokens, torch.cat(seen))

    def _places(self) -> Tensor:
        """Where the cached tokens (C, n) are that some hypothesis sees, after others as padding."""
        is_seen = self.seen[..., : -self.width].any(1)  # (C, L): the last are not cached yet
        most = int(is_seen.sum(1).max())
        return is_seen.long().argsort(dim=1, stable=True)[:, -most:]

    def _seen_at(self, places: Tensor, longest: int) -> Tensor:
        """What the hypotheses attend to (C, k, longest + k), of the cached tokens at (C, n)."""
        cached, new = self.seen[..., : -self.width], self.seen[..., -self.width :]
        past = cached.gather(2, places[:, None].expand(-1, self.width, -1))
        return torch.cat([F.pad(past, (longest - places.shape[1], 0)), new], 2)


def _joined(caches: Sequence[Tensor], places: Sequence[Tensor]) -> Tensor:
    """The entries of each cache (C, heads, L, d) at its places (C, n), padded on the left."""
    longest = max(own.shape[1] for own in places)
    parts = []
    for values, own in zip(caches, places, strict=True):
        index = own[:, None, :, None].expand(-1, values.shape[1], -1, values.shape[3])
        parts.append(F.pad(values.gather(2, index), (0, 0, longest - own.shape[1], 0)))
    return torch.cat(parts)


class Search:
    """A search that goes on step by step, in which clips come and go."""

    def __init__(
        self,
        llm: PreTrainedModel,
        embeds: Tensor,
        mask: Tensor,
        beams: int,
        max_new_tokens: int | Sequence[int],
        eos: int,
        pad: int,
        first: int = 0,
    ):
        """Begins after prefixes (B, L, D), with at most so many tokens, or so many for each.

        The mask (B, L) of the prefixes, on the CPU, is padded on the left. The clips are numbered
        from `first`.
        """
        steps_class = SharedSteps if SharedSteps.supports(llm) else Steps
        self.steps = steps_class(llm, embeds, mask)
        self.beams = beams
        self.eos = eos
        self.pad = pad
        limits = torch.as_tensor(max_new_tokens).expand(len(embeds))  # (B,)
        clips = torch.arange(first, first + len(embeds))
        self.running = Hypotheses.none(clips, limits, beams, pad, embeds.device)

    @property
    def clips(self) -> int:
        """How many are not done."""
        return len(self.running.clips)

    def join(self, other: "Search") -> None:
        """Takes in the clips of another search; both have made a step."""
        assert isinstance(self.steps, SharedSteps)
        assert isinstance(other.steps, SharedSteps)
        self.steps.join(other.steps)
        self.running = self.running.and_those_of(other.running, self.pad)

    @torch.no_grad()
    def step(self) -> tuple[list[int], Generated]:
        """Runs the LLM once; returns the clips that are done, which leave the search."""
        running = self.running
        best, origins, tokens = _candidates(self.steps, running.scores, 2 * self.beams)
        device = best.device
        before = sent(running.lengths, device)[:, None]  # (C, 1)
        places = before[..., None].expand(-1, tokens.shape[1], -1)
        grown = pick(running.ids, origins).scatter(2, places, tokens[..., None])
        sums = pick(running.sums, origins).scatter(2, places, best[..., None])
        lengths = before + 1

        ends = tokens == self.eos
        ended = best.masked_fill(~ends, -torch.inf) / lengths
        # An end that is not among the first `beams` candidates does not count
        first = slice(self.beams)
        running = running.with_ended(ended[:, first], grown[:, first], sums[:, first])
        can_improve = running.ended[:, -1] < best[:, 0] / lengths[:, 0]  # (C,)
        # Those that do not end come first, by score
        order = ends.long().argsort(dim=1, stable=True)[:, : self.beams]
        running = replace(
            running,
            lengths=running.lengths + 1,
            scores=best.gather(1, order),
            ids=pick(grown, order),
            sums=pick(sums, order),
        )
        can_improve = can_improve.cpu()  # the only time in a step that the CPU waits for a GPU
        at_limit = can_improve & (running.limits == running.lengths)
        if at_limit.any():
            others = sent(~at_limit, device)[:, None]
            cut = (running.scores / lengths).masked_fill(others, -torch.inf)
            running = running.with_ended(cut, running.ids, running.sums)
        goes_on = can_improve & ~at_limit
        self.running = running.of(goes_on)
        if goes_on.any():
            kept = rows_of(goes_on, device)
            last = tokens.gather(1, order)[kept]
            self.steps.advance(kept, origins[kept].gather(1, order[kept]), last)
        done = running.of(~goes_on)
        return done.clips.tolist(), self._found(done)

    def _found(self, done: Hypotheses) -> Generated:
        """The best transcript of each clip that is done."""
        ids = done.ended_ids[:, 0]
        is_cut = _are_cut(ids, sent(done.limits, ids.device), self.eos)
        return Generated(ids, done.ended[:, 0], is_cut, done.ended_sums[:, 0])

    def finish(self) -> Generated:
        """Runs until all clips are done, and returns their transcripts in order."""
        clips: list[int] = []
        parts = []
        while self.clips:
            done, found = self.step()
            clips += done
            parts.append(found)
        order = sent(torch.tensor(clips).argsort(), parts[0].ids.device)
        ids, scores, is_cut, sums = [
            torch.cat(of_parts)[order] for of_parts in zip(*parts, strict=True)
        ]
        return Generated(_without_tail(ids, self.eos), scores, is_cut, sums)


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
