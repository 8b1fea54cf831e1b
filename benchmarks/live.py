"""Captions while someone speaks: how late words settle, and how many are wrong.

    python -m benchmarks.live

Plays long recordings of the toy world, of many sentences with pauses, in steps of a fifth of a
second. Computing takes as long as it takes: a word is late by that, too. Words settle where the
aligner finds that they ended a moment ago and two passes agree, or, to compare, where one of these
holds.
"""

import sys
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer

from benchmarks import yardstick
from omni_avsr import Transcriber
from omni_avsr.decode.live import Live, played
from omni_avsr.decode.transcripts import Word
from omni_avsr.files import read_rows
from omni_avsr.measure.live import Settled, Shown, watch
from omni_avsr.tasks import Row
from omni_avsr.text import word_errors
from omni_avsr.toy.long import Recording, write_recording

COLUMNS = (
    "world",
    "task",
    "words settle by",
    "WER %",
    "offline",
    "first words late, s",
    "95 %",
    "last words late, s",
    "95 %",
    "all words late, s",
    "without computing",
    "guesses that change",
    "of real time",
)


class Ended(Live):
    """Words settle where they ended a moment ago."""

    def certain(self, words: Sequence[Word]) -> int:
        return self.ended(words)


class Agreed(Live):
    """Words settle where two passes agree."""

    def certain(self, words: Sequence[Word]) -> int:
        return self.agreed(words)


POLICIES = {"both": Live, "their end": Ended, "agreement": Agreed}


def main(
    checkpoint: Annotated[str, typer.Option(help="A run, a model's folder, or tiny.")] = "tiny",
    worlds: Annotated[str, typer.Option(help="Worlds of the recordings.")] = "grid,open",
    tasks: Annotated[str, typer.Option(help="Of asr, vsr and avsr.")] = "asr,vsr,avsr",
    rules: Annotated[str, typer.Option(help="Of both, their end and agreement.")] = "both",
    minutes: Annotated[float, typer.Option(help="Length of a recording.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Seed of the recordings.")] = 0,
) -> None:
    """Prints a row for each world, task and way to settle."""
    rows: list[Sequence[str]] = []
    with TemporaryDirectory() as folder:
        for world in worlds.split(","):
            video = write_recording(Path(folder), Recording(world, minutes, seed=seed))
            for task in tasks.split(","):
                for row in _rows(checkpoint, world, task, video, rules.split(",")):
                    print(", ".join(row), file=sys.stderr)
                    rows.append(row)
    yardstick.show(yardstick.Sheet("Live captions", COLUMNS, rows))


def _rows(
    checkpoint: str, world: str, task: str, video: Path, rules: Sequence[str]
) -> Iterator[Sequence[str]]:
    truth = read_rows(video.with_suffix(".words.jsonl"))
    said = " ".join(row["word"] for row in truth)
    offline = Transcriber(checkpoint, task=task)(video).text
    for policy in rules:
        shown = watch(POLICIES[policy](checkpoint, task=task), played(video))
        wers = [100 * word_errors(said, text).wer for text in (shown.text, offline)]
        yield world, task, policy, *(f"{wer:.1f}" for wer in wers), *_facts(shown, truth)


def _facts(shown: Shown, truth: Sequence[Row]) -> Iterator[str]:
    """The figures after the word error rates, of the words that are right."""
    late = list(_late(shown, truth))
    for chosen in ("is_first", "is_last"):
        yield from _spread([seconds for seconds, _, word in late if getattr(word, chosen)])
    yield from _spread([seconds for seconds, _, _ in late])[:1]
    yield from _spread([seconds for _, seconds, _ in late])[:1]
    yield f"{100 * shown.changed / max(1, len(shown.guesses)):.0f} %"
    yield f"{shown.computed / shown.heard:.2f}"


def _spread(seconds: Sequence[float]) -> tuple[str, str]:
    """The mean and the 95th percentile of the words that are right, if there are any."""
    if not seconds:
        return "-", "-"
    return f"{np.mean(seconds):.2f}", f"{np.percentile(seconds, 95):.2f}"


def _late(shown: Shown, truth: Sequence[Row]) -> Iterator[tuple[float, float, Settled]]:
    """How long after its true end a word was shown, with and without the time of computing."""
    said = [row["word"] for row in truth]
    words = [settled.word for settled in shown.words]
    for first, place, size in SequenceMatcher(None, said, words, False).get_matching_blocks():
        for row, settled in zip(truth[first:][:size], shown.words[place:][:size], strict=True):
            if row["end"] is not None:
                yield settled.shown - row["end"], settled.heard - row["end"], settled


if __name__ == "__main__":
    typer.run(main)
