"""How exact the times of words are, against those that espeak-ng reports.

    python -m benchmarks.word_times

Decodes unseen sentences of unseen speakers, greedily at the finest rates, and compares the words
that are right. Clips in which espeak-ng says words as one, and so tells no times, are left out.
"""

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks import yardstick
from omni_avsr.decode.decode import Decoder, load_decoder
from omni_avsr.decode.words import words_of
from omni_avsr.model import Features
from omni_avsr.settings import CheckpointOptions
from omni_avsr.tasks import Condition, Route
from omni_avsr.toy import ToyClip
from omni_avsr.toy.words import Word
from tools.corpus import SETS, Corpus, Source
from tools.reading import CONDITIONS

BATCH = 32  # clips
LIMITS = (60, 100, 120)  # ms
COLUMNS = (
    "world",
    "sound",
    "task",
    "words",
    "starts: median ms",
    *(f"within {limit}" for limit in LIMITS),
    "ends: median ms",
    *(f"within {limit}" for limit in LIMITS),
)


def main(
    checkpoint: Annotated[str, typer.Option(help="A run, a model's folder, or tiny.")] = "tiny",
    sets: Annotated[str, typer.Option(help=f"Of {', '.join(SETS)}.")] = "grid,open",
    clips: Annotated[int, typer.Option(help="Clips of each set.")] = 300,
) -> None:
    """Prints a row for each set, condition and task."""
    decoder = load_decoder(CheckpointOptions(checkpoint=checkpoint))
    rows = [row for name in sets.split(",") for row in _rows(decoder, name, clips)]
    yardstick.show(yardstick.Sheet("Word times", COLUMNS, rows))


def _rows(decoder: Decoder, name: str, count: int) -> Iterator[Sequence[str]]:
    made = Source(seed=0, processes=2).clips({name: count}, "test")
    clips = [clip for clip in made if all(None not in word for word in clip.words)]
    corpus = Corpus(clips, torch.device("cpu"))
    for condition in CONDITIONS:
        errors: dict[Route, list[tuple[float, float]]] = {}
        for number, places in enumerate(corpus.batches(BATCH, None)):
            media = corpus.batch(places, number, CONDITIONS[condition]).media
            features = decoder.model.encode(media)
            for task in decoder.model.config.tasks:
                route = decoder.model.config.choose(task)
                said = [clips[place] for place in places]
                errors.setdefault(route, []).extend(_errors(decoder, features, route, said))
        for route, found in errors.items():
            if route.task.hears or condition == Condition():
                yield name, str(condition), str(route), str(len(found)), *_facts(found)


def _errors(
    decoder: Decoder, features: Features, route: Route, clips: Sequence[ToyClip]
) -> Iterator[tuple[float, float]]:
    """The errors in seconds of the start and the end of each word that is right."""
    own = features.only(route.modalities)
    assert decoder.model.aligner is not None
    named = decoder.model.aligner.named(own)
    decoded = decoder.transcribe(own, route, beams=1, max_new_tokens=None)
    for clip, frames, found in zip(clips, named, decoded, strict=True):
        words = words_of(decoder, route.task, frames, found, 0.0)
        spoken = [word.word for word in words]
        for truth, place, size in _same(clip.words, spoken):
            for one, other in zip(clip.words[truth:][:size], words[place:][:size], strict=True):
                assert one.start is not None
                assert one.end is not None
                yield other.start - one.start, other.end - one.end


def _same(words: Sequence[Word], spoken: Sequence[str]) -> Iterator[tuple[int, int, int]]:
    """Where so many words of both are the same."""
    said = [word.text for word in words]
    yield from SequenceMatcher(a=said, b=spoken, autojunk=False).get_matching_blocks()


def _facts(errors: Sequence[tuple[float, float]]) -> Iterator[str]:
    """The median in ms and the shares within the limits, of the starts and of the ends."""
    for of_kind in zip(*errors, strict=True):
        size = 1000 * np.abs(of_kind)
        yield f"{np.median(size):.0f}"
        for limit in LIMITS:
            yield f"{100 * np.mean(size <= limit):.1f} %"


if __name__ == "__main__":
    typer.run(main)
