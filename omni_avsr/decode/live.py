"""Captions while someone speaks.

What was said since the last pause is decoded again and again, as more of it comes. A word settles
once the aligner finds its end a moment before the newest sound and two passes agree on it: then
what follows hardly changes it. The words that have settled are what the next pass goes on from, so
that none is taken back.
"""

import copy
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from omni_avsr.decode.confidence import doubt_of
from omni_avsr.decode.contents import frames_of_clip, readable
from omni_avsr.decode.inputs import refuse_unreadable
from omni_avsr.decode.sources import FULL_SCALE, WRONG_VALUES
from omni_avsr.decode.transcribe import Transcriber
from omni_avsr.decode.transcripts import Word
from omni_avsr.decode.windows import (
    MARGIN,
    SHORTEST,
    SILENT,
    Crop,
    Held,
    Moment,
    Window,
    ends_in_pause,
    frames_of,
    is_silence,
    motion_between,
    silence,
    window_of,
)
from omni_avsr.decode.words import words_of
from omni_avsr.errors import InputError
from omni_avsr.media import streams
from omni_avsr.media.faces import NoDetector, yunet
from omni_avsr.media.live_mouth import LiveMouth
from omni_avsr.settings import LiveSettings, TranscribeSettings
from omni_avsr.tasks import MOUTH_SIZE, SAMPLES_PER_VIDEO_FRAME, VIDEO_FPS, Route, Task

LAG = VIDEO_FPS  # frames that sound and picture may be out of step
REMEMBERED = 60 * VIDEO_FPS  # frames whose loudness tells speech from the room's noise
CHUNK = VIDEO_FPS // 5  # frames of a file that are fed together

Picture = np.ndarray | None
Item = TypeVar("Item")


@dataclass(frozen=True)
class Caption:
    """What a pass has found."""

    words: tuple[Word, ...]  # that have settled now and are never taken back
    tentative: tuple[Word, ...]  # said after them, which may still change
    ended: bool = False  # whether a pause, or a face that comes or goes, ends the caption
    until: float = 0.0  # seconds that were heard or seen so far


class Live:
    """Transcribes sound and pictures as they come.

    The options are those of `omni-avsr live`, such as task="asr" or patience=0.3. The model, which
    may be that of a `Transcriber` with its options, needs an aligner.
    """

    def __init__(self, checkpoint: str | Path | Transcriber | None = None, **options: Any):
        if isinstance(checkpoint, Transcriber):
            own, self.transcriber = LiveSettings(**options), checkpoint
        else:
            name = None if checkpoint is None else str(checkpoint)
            own = LiveSettings(checkpoint=name, **options)
            shared = TranscribeSettings.__dataclass_fields__.keys() - {"format", "checkpoint"}
            given = {key: value for key, value in vars(own).items() if key in shared}
            self.transcriber = Transcriber(name, **given)
        if self.transcriber.aligner is None:
            raise InputError(
                f"{self.transcriber.decoder.name} cannot tell when words are said, which captions "
                "need: `omni-avsr train --aligner only --from` it"
            )
        settings = self.transcriber.settings
        self.tasks = self.transcriber.tasks if own.task == "auto" else [Task(own.task)]
        self.patience = own.patience
        self.pass_frames = max(1, round(own.pass_every * VIDEO_FPS))
        longest = min(own.max_seconds_per_window, settings.max_seconds_per_window)
        self.most_frames, self.pause_frames = frames_of(longest, own.pause)
        self._begin()

    def again(self, tasks: Sequence[Task] | None = None) -> "Live":
        """A new one of the same model and options, for others who speak."""
        other = copy.copy(self)
        other.tasks = list(tasks or self.tasks)
        other._begin()
        return other

    def _begin(self) -> None:
        hears = any(task.hears for task in self.tasks)
        # A model of one or the other hears
        sees = Task.AVSR in self.tasks or not hears
        self.sound = _Stream[np.ndarray](expected=hears)
        self.mouths = _Stream[Crop](expected=sees)
        self.mouth: Crop = None  # the last one
        self.repeated = 0  # how often, since it came
        self.left_out = 0  # frames that no task can be done in
        self.notes: list[str] = []  # what was done otherwise than expected
        self.camera: LiveMouth | None = None  # if whole faces are shown
        self.samples = np.zeros(0, np.float32)  # of a frame that is not complete
        self.loudness: deque[float] = deque(maxlen=REMEMBERED)
        self.held = Held()
        self.settled: list[Word] = []  # of what is held
        self.guessed: Sequence[Word] = ()  # what the last pass has found after them
        self.latest = 0.0  # the end of the last word that has settled
        self.is_open = False  # whether words have settled since a caption ended
        self.fresh = 0  # frames since the last pass

    @property
    def until(self) -> float:
        """Seconds that were heard or seen so far."""
        return (self.held.first + len(self.held.moments)) / VIDEO_FPS

    def feed(
        self, sound: np.ndarray | None = None, pictures: Iterable[Picture] = ()
    ) -> list[Caption]:
        """Takes samples (S,) at 16 kHz and pictures at 25 fps, which both begin together.

        The samples are floats from -1 to 1, or int16. A picture is a BGR frame (H, W, 3), a mouth
        (96, 96), or None where no face is seen.
        """
        if sound is not None:
            self.samples = np.concatenate([self.samples, _as_floats(sound)])
            complete = len(self.samples) // SAMPLES_PER_VIDEO_FRAME
            end = complete * SAMPLES_PER_VIDEO_FRAME
            frames = self.samples[:end].reshape(complete, SAMPLES_PER_VIDEO_FRAME)
            self.sound.add(frames, self._number)
            self.samples = self.samples[end:]
        if self.mouths.expected:
            for picture in pictures:
                self.mouths.add(self._mouths(picture), self._number)
        return list(self._go_on(at_end=False))

    def finish(self) -> list[Caption]:
        """Settles what is left at the end."""
        if len(self.samples):
            missing = SAMPLES_PER_VIDEO_FRAME - len(self.samples)
            self.sound.add([np.pad(self.samples, (0, missing))], self._number)
            self.samples = self.samples[:0]
        if self.camera is not None:
            self.mouths.add(self.camera.finish(), self._number)
        captions = [*self._go_on(at_end=True), *self._end()]
        if self.left_out:
            self.notes.append(
                f"{self.left_out / VIDEO_FPS:.0f} s left out, in which there is not all that "
                f"{' or '.join(self.tasks)} needs"
            )
        return captions

    def _mouths(self, picture: Picture) -> Iterable[Crop]:
        """The mouths that are known after a picture."""
        if picture is None or picture.ndim == 2:
            return [picture]
        if self.camera is None:
            settings = self.transcriber.settings
            try:
                self.camera = LiveMouth(yunet(settings.detector, settings.download))
            except NoDetector as error:
                if settings.task != "auto" or Task.ASR not in self.tasks:
                    raise
                self.notes.append(f"only heard, as lips cannot be read: {error}")
                self.mouths.expected = False
                return []
        return self.camera.crops([picture])

    def _go_on(self, at_end: bool) -> Iterator[Caption]:
        for moment in self._moments(at_end):
            held = self.held.moments
            if held and _kind(moment) != _kind(held[-1]):
                yield from self._end()
            self.held.moments.append(moment)
            self.fresh += 1
            held = self.held.moments
            if not self.is_open and is_silence(held, self.pause_frames):
                self.held.keep(MARGIN)  # something may be said next
            elif ends_in_pause(held, self.pause_frames):
                yield from self._end()
            elif len(held) >= self.most_frames:
                yield from self._make_room()
        if self.fresh >= self.pass_frames:
            yield from self._pass()

    def _moments(self, at_end: bool) -> Iterator[Moment]:
        """The moments whose sound and picture are there, or have been waited for long enough."""
        while True:
            self.sound.forget(self._number)
            self.mouths.forget(self._number)
            if not (self.sound.items or self.mouths.items):
                return
            for stream, other in ((self.sound, self.mouths), (self.mouths, self.sound)):
                if not at_end and not stream.items and stream.is_awaited_by(other):
                    return
            yield self._moment()

    @property
    def _number(self) -> int:
        """That of the frame that comes next."""
        return self.held.first + len(self.held.moments)

    def _moment(self) -> Moment:
        mouth = self._next_mouth()
        if not self.sound.count:
            previous = self.held.moments[-1].mouth if self.held.moments else None
            return Moment(None, mouth, motion_between(previous, mouth), silent=mouth is None)
        sound = np.zeros(SAMPLES_PER_VIDEO_FRAME, np.float32)
        if self.sound.items:
            sound = self.sound.items.popleft()
        loudness = float(np.sqrt(np.square(sound).mean()))
        self.loudness.append(loudness)
        quiet = silence(np.array(self.loudness)) or SILENT
        return Moment(sound, mouth, loudness, silent=loudness < quiet)

    def _next_mouth(self) -> Crop:
        """The mouth of the next frame; for a few frames the last one, where none has come."""
        if self.mouths.items:
            self.mouth, self.repeated = self.mouths.items.popleft(), 0
        elif self.repeated < MARGIN:
            self.repeated += 1
        else:
            self.mouth = None
        return self.mouth

    def _pass(self) -> Iterator[Caption]:
        """Decodes what is held, and settles the words that ended a moment ago."""
        self.fresh = 0
        window = window_of(self.held.moments, self.held.first)
        if window is None or window.task not in self.tasks:
            return
        words = list(self._rising(self._words(window)))
        count = self.certain(words)
        self._settle(words[:count])
        self.guessed = words[count:]
        yield Caption(tuple(words[:count]), tuple(words[count:]), until=self.until)

    def certain(self, words: Sequence[Word]) -> int:
        """How many of the words of a pass, from the first, are not going to change."""
        return min(self.ended(words), self.agreed(words))

    def ended(self, words: Sequence[Word]) -> int:
        """How many of them have ended a moment ago."""
        newest = self.until - self.patience
        return len(list(takewhile(lambda word: word.end <= newest, words)))

    def agreed(self, words: Sequence[Word]) -> int:
        """How many of them the pass before has found, too."""
        pairs = zip(words, self.guessed, strict=False)
        return len(list(takewhile(lambda pair: pair[0].word == pair[1].word, pairs)))

    def _end(self) -> Iterator[Caption]:
        """Settles all that is held, and begins anew."""
        until = self.until
        self.fresh = 0
        window = window_of(self.held.moments, self.held.first)
        words: list[Word] = []
        if window is not None and window.task not in self.tasks:
            self.left_out += window.frames
        elif window is not None:
            words = list(self._rising(self._words(window)))
        self.held.keep(0)
        self._settle(words)
        self.settled = []
        self.guessed = ()
        if self.is_open:
            yield Caption(tuple(words), (), ended=True, until=until)
        self.is_open = False

    def _make_room(self) -> Iterator[Caption]:
        """Forgets what was said until the last word that has settled, or settles all."""
        place = 0
        if self.settled:
            place = int(self.settled[-1].end * VIDEO_FPS) - self.held.first
        if place < SHORTEST:
            yield from self._end()
            return
        self.held.drop(place)
        self.settled = []

    def _words(self, window: Window) -> Sequence[Word]:
        """The words of a window after those that have settled, at the rates that are chosen."""
        settings, config = self.transcriber.settings, self.transcriber.decoder.model.config
        climb = self.transcriber.climbs.get(window.task)
        if climb is None:
            route = config.choose(window.task, settings.audio_rate, settings.video_rate)
            return self._decoded(window, route)
        words = self._decoded(window, climb.ladder.cheap)
        doubt = doubt_of([word.probability for word in words])
        if not words or doubt <= climb.ladder.doubt:
            return words
        again = self._decoded(window, climb.ladder.better)
        return again if doubt_of([word.probability for word in again]) <= doubt else words

    @torch.no_grad()
    def _decoded(self, window: Window, route: Route) -> Sequence[Word]:
        decoder, settings = self.transcriber.decoder, self.transcriber.settings
        model, processor = decoder.model, decoder.processor
        aligner = self.transcriber.aligner
        assert aligner is not None
        sounds = None if window.audio is None else [window.audio]
        mouths = None if window.video is None else [window.video]
        features = model.encode(processor.media(sounds, mouths).to(decoder.device))
        before = [word.word for word in self.settled]
        batch = processor.batch(features, route, begun=[" ".join(before)]).to(decoder.device)
        (decoded,) = decoder.continued(batch, settings.beams, settings.max_new_tokens)
        (named,) = aligner.named(features)
        return words_of(decoder, route.task, named, decoded, window.start, before)

    def _settle(self, words: Sequence[Word]) -> None:
        self.settled += words
        if words:
            self.is_open = True
            self.latest = words[-1].end

    def _rising(self, words: Iterable[Word]) -> Iterator[Word]:
        """The words with times that do not go back behind those that have settled."""
        latest = self.latest
        for word in words:
            start = max(word.start, latest)
            latest = max(word.end, start)
            yield replace(word, start=start, end=latest)


def _kind(moment: Moment) -> tuple[bool, bool]:
    """Whether there is sound, and whether a face is seen."""
    return moment.sound is not None, moment.mouth is not None


def played(
    file: Path, track: int | None = None, sound: Path | None = None
) -> Iterator[tuple[np.ndarray, list[Picture]]]:
    """The sound and the pictures of each fifth of a second of a file, whichever it has.

    The sound may be in another file; without one it is looked for in this one, and beside it.
    What could not be read is raised after the last of them.
    """
    refuse_unreadable(file)
    problems: list[str] = []
    probe = streams.probe(file)
    sound = sound or streams.sound_of(file)
    sounds: Iterator[np.ndarray] = iter(())
    pictures: Iterator[Picture] = iter(())
    has_sound = streams.probe(sound).sample_rate is not None
    if not has_sound and probe.fps is None:
        raise InputError(f"{file} has neither sound nor video")
    if has_sound:
        blocks = readable(streams.audio_blocks(sound, track), problems)
        sounds = streams.frames_of_sound(blocks)
    if probe.fps is not None:
        is_mouth = probe.size == (MOUTH_SIZE, MOUTH_SIZE)
        frames = frames_of_clip(file) if is_mouth else streams.video_frames(file)
        pictures = readable(frames, problems)
    while True:
        heard = list(islice(sounds, CHUNK))
        seen = list(islice(pictures, CHUNK))
        if not heard and not seen:
            break
        yield np.concatenate(heard) if heard else np.zeros(0, np.float32), seen
    if problems:
        raise InputError("; ".join(problems))


def _as_floats(sound: np.ndarray) -> np.ndarray:
    """Samples (S,) as floats from -1 to 1."""
    samples = np.asarray(sound)
    if samples.ndim != 1:
        raise InputError(f"sound of shape {samples.shape}, one channel (samples,) expected")
    if samples.dtype == np.int16:
        return samples.astype(np.float32) / FULL_SCALE
    if not np.issubdtype(samples.dtype, np.floating):
        raise InputError(WRONG_VALUES.format(samples.dtype))
    return samples.astype(np.float32)


@dataclass
class _Stream(Generic[Item]):
    """The sounds or the pictures that have come and were not taken yet, one per frame."""

    expected: bool  # whether they can come
    items: deque[Item] = field(default_factory=deque)
    count: int = 0  # that have come

    def add(self, items: Iterable[Item], number: int) -> None:
        """Takes what has come, unless no task needs it. What begins late begins at this frame."""
        if self.expected:
            before = len(self.items)
            self.items.extend(items)
            came = len(self.items) - before
            self.count = (self.count or number * bool(came)) + came

    def forget(self, number: int) -> None:
        """Drops the items of frames before this one, which came too late."""
        late = number - (self.count - len(self.items))
        for _ in range(min(max(late, 0), len(self.items))):
            self.items.popleft()

    def is_awaited_by(self, other: "_Stream") -> bool:
        """Whether the other stream, which is ahead, has to wait for what is to come."""
        has_begun = self.count > 0 or other.count <= LAG
        return self.expected and has_begun and len(other.items) <= LAG
