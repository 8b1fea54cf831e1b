"""How captions are while someone speaks: how many words are wrong, and how late they settle.

A word is late by the seconds from its end until it settles. Its end is where the aligner finds it,
so that any label file will do.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np

from omni_avsr.data.clips import is_file
from omni_avsr.data.default import MakeCorpus, no_corpus
from omni_avsr.data.manifest import Clip
from omni_avsr.decode.hypothesis import Hypothesis
from omni_avsr.decode.live import Caption, Live, Picture, played
from omni_avsr.errors import InputError
from omni_avsr.files import write_text
from omni_avsr.measure.evaluate import labels_of
from omni_avsr.run import Progress, no_progress, with_progress
from omni_avsr.settings import CheckpointOptions, EvaluateSettings
from omni_avsr.tasks import SAMPLE_RATE, VERSION, VIDEO_FPS, Route
from omni_avsr.text import Errors

FILE = "live.json"

log = logging.getLogger(__name__)


class Settled(NamedTuple):
    """A word that has settled, and when."""

    word: str
    end: float  # seconds, where the aligner finds it
    shown: float  # when it settled
    heard: float  # the same, as if computing took no time
    is_first: bool  # of its caption, as is the last one
    is_last: bool


@dataclass
class Shown:
    """What was shown of a clip, and when."""

    words: list[Settled] = field(default_factory=list)
    guesses: list[tuple[int, str]] = field(default_factory=list)  # place of the word, and the word
    heard: float = 0.0  # seconds
    ready: float = 0.0  # when all that was heard had been computed
    computed: float = 0.0  # seconds of computing
    begins: bool = True

    @property
    def text(self) -> str:
        """All words that have settled."""
        return " ".join(settled.word for settled in self.words)

    @property
    def changed(self) -> int:
        """How many guesses at words did not settle as they were."""
        spoken = dict(enumerate(settled.word for settled in self.words))
        return sum(spoken.get(place) != guess for place, guess in self.guesses)

    def take(self, feed: Callable[[], list[Caption]], seconds: float) -> None:
        """Notes the captions after so many more seconds of the clip."""
        started = time.perf_counter()
        captions = feed()
        took = time.perf_counter() - started
        self.heard += seconds
        self.computed += took
        self.ready = max(self.ready, self.heard) + took
        for caption in captions:
            for word in caption.words:
                times = word.end, self.ready, self.heard
                self.words.append(Settled(word.word, *times, self.begins, False))
                self.begins = False
            for place, guess in enumerate(caption.tentative, len(self.words)):
                self.guesses.append((place, guess.word))
            if caption.ended and self.words:
                self.words[-1] = self.words[-1]._replace(is_last=True)
                self.begins = True


@dataclass(frozen=True)
class Delay:
    """How late words settle, in seconds."""

    mean: float
    most: float  # the 95th percentile

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Delay | None":
        """That of these words, if there are any."""
        if not seconds:
            return None
        return cls(float(np.mean(seconds)), float(np.percentile(seconds, 95)))


@dataclass(frozen=True)
class LiveResult:
    """The captions of all clips on a route."""

    route: Route
    clips: int
    words: int  # that were said
    wer: float
    first: Delay | None  # of the first word of a caption
    last: Delay | None
    all: Delay | None
    without_computing: Delay | None
    changed: float | None  # share of the guesses that did not settle as they were
    real_time: float  # seconds of computing for a second of speech


def evaluate_live(
    settings: EvaluateSettings, progress: Progress = no_progress, corpus: MakeCorpus = no_corpus
) -> list[LiveResult]:
    """What `omni-avsr evaluate --live` does: each task at its first rates; writes live.json."""
    shared = {name: getattr(settings, name) for name in CheckpointOptions.__dataclass_fields__}
    audio_rate = settings.audio_rates[0] if settings.audio_rates else None
    video_rate = settings.video_rates[0] if settings.video_rates else None
    live = Live(**shared, audio_rate=audio_rate, video_rate=video_rate)
    tasks = settings.tasks or live.transcriber.tasks
    config = live.transcriber.decoder.model.config
    routes = [config.choose(task, audio_rate, video_rate) for task in tasks]
    labels = labels_of(settings, "test", progress, corpus)
    results = []
    for route in routes:
        found: list[tuple[Hypothesis, Shown]] = []
        for clip in with_progress(labels.clips, f"{route}, live", len(labels.clips), progress):
            shown = _watched(live.again([route.task]), clip)
            if shown is not None:
                given = clip.id, clip.text, shown.text, route
                found.append((Hypothesis(*given, normaliser=settings.normaliser), shown))
        if not any(hypothesis.has_text for hypothesis, _ in found):
            raise InputError(f"no clip of {labels.file} could be read and has a text to be scored")
        results.append(_result(route, found))
    rows = [{**result.route.as_row(), **asdict(result)} for result in results]
    for row in rows:
        del row["route"]
    write_text(settings.out / FILE, json.dumps({"version": VERSION, "rows": rows}, indent=2) + "\n")
    return results


def watch(live: Live, pieces: Iterable[tuple[np.ndarray, Sequence[Picture]]]) -> Shown:
    """Plays sound and pictures, piece by piece, and notes what is shown."""
    shown = Shown()
    for sound, pictures in pieces:
        seconds = max(len(sound) / SAMPLE_RATE, len(pictures) / VIDEO_FPS)
        shown.take(partial(live.feed, sound, pictures), seconds)
    shown.take(live.finish, 0.0)
    return shown


def _watched(live: Live, clip: Clip) -> Shown | None:
    """What is shown of a clip; None if it cannot be read."""
    file = clip.video if is_file(clip.video) else clip.sound
    try:
        return watch(live, played(file, clip.track, clip.sound))
    except (InputError, OSError) as error:
        log.warning("%s cannot be read: %s", clip.id, error)
        return None


def _result(route: Route, found: Sequence[tuple[Hypothesis, Shown]]) -> LiveResult:
    scored = [hypothesis for hypothesis, _ in found if hypothesis.has_text]
    errors = sum((hypothesis.errors for hypothesis in scored), Errors())
    words = [word for _, shown in found for word in shown.words]
    guesses = sum(len(shown.guesses) for _, shown in found)
    return LiveResult(
        route=route,
        clips=len(scored),
        words=errors.words,
        wer=errors.wer,
        first=Delay.of([word.shown - word.end for word in words if word.is_first]),
        last=Delay.of([word.shown - word.end for word in words if word.is_last]),
        all=Delay.of([word.shown - word.end for word in words]),
        without_computing=Delay.of([word.heard - word.end for word in words]),
        changed=sum(shown.changed for _, shown in found) / guesses if guesses else None,
        real_time=sum(shown.computed for _, shown in found)
        / max(1e-9, sum(shown.heard for _, shown in found)),
    )
