"""How a model learns to read the features of the encoders, and how many words it gets wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from omni_avsr.files import Row
from omni_avsr.model import Features, OmniAVSR, OmniAVSRProcessor
from omni_avsr.model.config import IGNORED
from omni_avsr.tasks import Condition, Route, Task
from omni_avsr.text import total_errors
from omni_avsr.train.step import routes_of_step
from tools.augment import ZERO_DB, hide
from tools.corpus import FRAME_FACTORS, ClipBatch, Corpus
from tools.loop import Loss, Plan, Result
from tools.terminal import console

TASK_WEIGHTS = {Task.ASR: 1.0, Task.VSR: 1.5, Task.AVSR: 1.0}  # as in the paper
TEXT_WEIGHT = 0.3
ALIGNER_WEIGHT = 0.1  # low, as all gradients are clipped together
TEXT_EVERY = 4  # steps, one of which learns sentences as plain text, too
TEXT_BATCH = 128  # sentences
DROPPED = 0.1  # share of the numbers of the features that a model does not see as it learns
CONDITIONS = {Condition(): None, Condition(0.0, "babble"): ZERO_DB}
MEASURE_BATCH = 512  # clips
MAX_NEW_TOKENS = 48

Pairs = list[tuple[str, str]]  # of references and hypotheses


@torch.no_grad()
def encode(model: OmniAVSR, batch: ClipBatch) -> Features:
    """Returns the features of a batch."""
    return batch.features or model.encode(batch.media)


@dataclass(frozen=True)
class Lesson:
    """What a model learns besides the paper's step: one audio and one video rate, all tasks."""

    sentences: Sequence[str] = ()  # to learn as plain text, too
    only_hears: float = 0.0  # share of the steps, at the beginning, that learn ASR only


def reading_loss(
    model: OmniAVSR,
    processor: OmniAVSRProcessor,
    texts: Sequence[str],
    plan: Plan,
    lesson: Lesson,
) -> Loss:
    """Returns the loss of a step."""

    def loss_of(clips: ClipBatch, step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((plan.seed, step))
        random = torch.Generator(model.device).manual_seed(plan.seed * 1_000_003 + step)
        features = with_gaps(encode(model, clips), random)
        said = [texts[clip] for clip in clips.clips]
        routes = routes_of_step(model.config, "sampled", rng)
        if step < lesson.only_hears * plan.steps:
            routes = [route for route in routes if route.task == Task.ASR]
        losses: dict[Task, Tensor] = {}
        for route in routes:
            batch = processor.batch(features, route, said).to(model.device)
            losses[route.task] = model(batch).loss
        weighted = [TASK_WEIGHTS[task] * loss for task, loss in losses.items()]
        total = torch.stack(weighted).sum() / len(losses)
        if lesson.sentences and step % TEXT_EVERY == 0:
            chosen = rng.integers(len(lesson.sentences), size=TEXT_BATCH)
            read = [lesson.sentences[place] for place in chosen]
            total = total + TEXT_WEIGHT * text_loss(model.llm, processor, read)
        if model.aligner is not None:
            tokens = sum(map(len, processor.answers(said)))
            total = total + ALIGNER_WEIGHT * model.aligner.loss(features, said) / tokens
        return {**{str(task): loss for task, loss in losses.items()}, "loss": total}

    return loss_of


def with_gaps(features: Features, random: torch.Generator) -> Features:
    """Returns the features with short gaps in time and single numbers set to zero.

    Their noise is the same in every epoch. Without gaps, a model learns it by heart.
    """
    values = {}
    for modality in features.modalities:
        whole, _ = features.of(modality)
        seen = torch.rand(whole.shape, device=whole.device, generator=random) >= DROPPED
        values[modality] = hide(whole * seen / (1 - DROPPED), FRAME_FACTORS[modality], random)
    return replace(features, **values)


def text_loss(llm: nn.Module, processor: OmniAVSRProcessor, texts: Sequence[str]) -> Tensor:
    """Returns the loss of transcripts with nothing before them."""
    config = processor.config
    bos = torch.tensor([config.bos_token_id])
    rows = [torch.cat([bos, answer]) for answer in processor.answers(texts)]
    masks = [torch.ones_like(row) for row in rows]
    device = next(llm.parameters()).device
    ids = pad_sequence(rows, batch_first=True, padding_value=config.pad_token_id).to(device)
    mask = pad_sequence(masks, batch_first=True).to(device)
    labels = ids.masked_fill(mask == 0, IGNORED)
    return llm(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss


def word_errors(
    model: OmniAVSR,
    processor: OmniAVSRProcessor,
    sets: Mapping[str, Corpus],
    rates: Sequence[tuple[int, int]],
) -> list[Row]:
    """Returns the greedy word error rates in percent of each set, condition and route.

    The routes are all tasks at these pairs of an audio and a video rate.
    """
    routes: set[Route] = set()
    for audio_rate, video_rate in rates:
        routes |= set(model.config.routes([audio_rate], [video_rate]))
    rows = []
    for name, corpus in sets.items():
        for condition in CONDITIONS:
            pairs = _decoded(model, processor, corpus, condition, sorted(routes))
            for route, texts in pairs.items():
                row = {"set": name, **condition.as_row(), **route.as_row()}
                row["wer"] = round(100 * total_errors(texts).wer, 2)
                rows.append(row)
    return rows


def _decoded(
    model: OmniAVSR,
    processor: OmniAVSRProcessor,
    corpus: Corpus,
    condition: Condition,
    routes: Sequence[Route],
) -> dict[Route, Pairs]:
    """Returns the references and hypotheses of each route; the clips are encoded only once."""
    pairs: dict[Route, Pairs] = {route: [] for route in routes}
    for number, clips in enumerate(corpus.batches(MEASURE_BATCH, None)):
        features = encode(model, corpus.batch(clips, number, CONDITIONS[condition]))
        references = [corpus.texts[clip] for clip in clips]
        for route in routes:
            batch = processor.batch(features, route).to(model.device)
            ids = model.generate(batch, max_new_tokens=MAX_NEW_TOKENS)
            hypotheses = processor.batch_decode(ids)
            pairs[route] += zip(references, hypotheses, strict=True)
    return pairs


def show_result(name: str, result: Result) -> None:
    """Prints what a stage has reached."""
    console.print(
        f"{name}: {result['parameters']:,} parameters, {result['steps']} steps "
        f"in {result['seconds']} s"
    )
    show_word_errors(result["wer"])


def show_word_errors(rows: Sequence[Row]) -> None:
    """Prints the rows of `word_errors`."""
    for row in rows:
        condition = Condition.from_row(row)
        route = Route.from_row(row)
        console.print(f"  {row['set']}, {condition}, {route}: {row['wer']} %")
