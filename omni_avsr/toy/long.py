"""Long recordings of one person or two who talk, and the truth about who says what, and when.

Sentences are said in fresh processes, as those of the corpus are, and laid out in time. Then whole
faces are drawn and encoded frame by frame. In memory is only the sound, two megabytes a minute.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np

from omni_avsr.decode.subtitles import Cue, written
from omni_avsr.errors import InputError
from omni_avsr.files import as_lines, write_atomically, write_text
from omni_avsr.media import streams
from omni_avsr.run import Progress, no_progress
from omni_avsr.settings.shared import LANGUAGES, MULTI, WORLDS
from omni_avsr.tasks import SAMPLES_PER_VIDEO_FRAME, VIDEO_FPS, Row
from omni_avsr.toy.clips import say_freely
from omni_avsr.toy.face import face_of
from omni_avsr.toy.lips import lip_track
from omni_avsr.toy.phones import SILENCE, phoneme_class
from omni_avsr.toy.portrait import Portrait, drawn, make_portrait
from omni_avsr.toy.sentences import check, sentences
from omni_avsr.toy.speech import Spoken, require_espeak
from omni_avsr.toy.voices import Voice, speakers
from omni_avsr.toy.words import Word
from omni_avsr.toy.workers import in_fresh_processes

SPLIT = "test"  # whose sentences and voices are heard
BETWEEN = (0.3, 2.5)  # seconds from sentence to sentence; short pauses are more frequent
LONG_PAUSE = 4.0  # seconds
LONG_PAUSES = 0.05  # share of the pauses that are so long
# Height and width in pixels of the picture of each person, by how many there are. The face detector
# overlooks some drawn faces that fill much of the whole picture.
SIZES = {1: (288, 512), 2: (288, 360)}

_STRETCH = 20  # sentences that a process says, about a minute and a quarter
_PROCESSES = 2
_SEAM = 3  # frames in which the lips go from rest to speech; a clip begins with three silent ones
_ROOM_NOISE = 6.0  # RMS of the int16 samples
_SENSOR_NOISE = 3  # grey levels at most
_TOLD_EVERY = 25  # frames
_CAST, _PAUSES, _ROOM, _LIPS, _CAMERA, _SENTENCES = range(6)  # what is drawn at random


@dataclass(frozen=True)
class Recording:
    """What is recorded; the same recording is the same bytes every time."""

    world: str
    minutes: float
    people: int = 1
    seed: int = 0
    language: str = "en"

    def __post_init__(self) -> None:
        check(self.world, SPLIT, self.language)
        if self.language == MULTI:
            raise InputError(
                f"a long recording is in one language, not in {MULTI}: "
                f"ask for one of {', '.join(LANGUAGES)}"
            )

    @property
    def name(self) -> str:
        """The name of its files."""
        world = self.world if self.language == "en" else f"{self.world}-{self.language}"
        kind = "solo" if self.people == 1 else "duo"
        return f"{world}_{kind}_{self.seed:06d}"

    @property
    def frames(self) -> int:
        """Its length in video frames."""
        return round(self.minutes * 60 * VIDEO_FPS)

    @property
    def voices(self) -> list[Voice]:
        """Who speaks, from left to right."""
        available = speakers(SPLIT, self.language)
        places = self.rng(_CAST).permutation(len(available))[: self.people]
        return [available[place] for place in places]

    def rng(self, purpose: int, index: int = 0) -> np.random.Generator:
        """Returns the generator of one of the things that are drawn at random."""
        place = [WORLDS.index(self.world), LANGUAGES.index(self.language), self.people]
        return np.random.default_rng([self.seed, *place, purpose, index])


@dataclass(frozen=True)
class Sentence:
    """A sentence that someone says."""

    text: str
    person: int  # from the left, from 0
    spoken: Spoken

    @property
    def frames(self) -> int:
        """Its length in video frames, with the silences at both ends."""
        return len(self.spoken.audio) // SAMPLES_PER_VIDEO_FRAME

    @property
    def lead(self) -> float:
        """The seconds of silence before it."""
        return min(start for start, _, name in self.spoken.phonemes if _is_sound(name))

    @property
    def sounds_until(self) -> float:
        """When its last sound ends."""
        return max(end for _, end, name in self.spoken.phonemes if _is_sound(name))


@dataclass(frozen=True)
class Turn:
    """A sentence in its place in the recording."""

    sentence: Sentence
    first: int  # video frame

    @property
    def stop(self) -> int:
        """The frame after its last."""
        return self.first + self.sentence.frames

    @property
    def start(self) -> float:
        """When it is first heard, in seconds of the recording."""
        return self.first / VIDEO_FPS + self.sentence.lead

    @property
    def end(self) -> float:
        """When it is last heard, in seconds of the recording."""
        return self.first / VIDEO_FPS + self.sentence.sounds_until

    @property
    def words(self) -> list[Word]:
        """When each word is said, in seconds of the recording."""
        return [word.later(self.first / VIDEO_FPS) for word in self.sentence.spoken.words]


def write_recording(out: Path, recording: Recording, progress: Progress = no_progress) -> Path:
    """Writes a recording to OUT/toy/long and returns its video, which is written last.

    Beside the video are its sentences (.segments.jsonl), its words (.words.jsonl) and the
    subtitles (.srt).
    """
    turns = lay_out(recording, progress)
    if not turns:
        raise InputError(
            f"no sentence fits into {recording.minutes:g} minutes: ask for a quarter or more"
        )
    scene = Scene.of(recording, turns)
    video = Path(out) / "toy" / "long" / f"{recording.name}.mp4"
    write_text(video.with_suffix(".srt"), _subtitles(turns))
    write_text(video.with_suffix(".segments.jsonl"), as_lines(_segment_rows(scene, turns)))
    write_text(video.with_suffix(".words.jsonl"), as_lines(_word_rows(scene, turns)))
    sound = _mixed(recording, turns)
    pictures = cast(np.ndarray, _Pictures(scene, recording.rng(_CAMERA), progress))
    write_atomically(video, lambda part: streams.write_video(part, pictures, sound))
    return video


def lay_out(recording: Recording, progress: Progress = no_progress) -> list[Turn]:
    """Returns the sentences that fit into a recording, with pauses between them."""
    rng = recording.rng(_PAUSES)
    turns: list[Turn] = []
    stop, trail = 0, 0.0  # of the turn before: its last frame, and its silence at the end
    for sentence in _said(recording):
        pause = _drawn_pause(rng) - trail - sentence.lead
        first = stop + round(max(pause, 0.0) * VIDEO_FPS)
        stop = first + sentence.frames
        if stop > recording.frames:
            break
        turns.append(Turn(sentence, first))
        trail = sentence.frames / VIDEO_FPS - sentence.sounds_until
        progress("Saying the sentences", stop, recording.frames)
    progress("Saying the sentences", recording.frames, recording.frames)
    return turns


@dataclass(frozen=True)
class Scene:
    """Who is seen, and how the lips of each move."""

    voices: list[Voice]
    portraits: list[Portrait]
    tracks: list[np.ndarray]  # (T, 6) each

    @classmethod
    def of(cls, recording: Recording, turns: Sequence[Turn]) -> "Scene":
        """Returns the people of a recording, who rest their lips while they are silent."""
        rng = recording.rng(_LIPS)
        portraits, tracks = [], []
        for person, voice in enumerate(recording.voices):
            size = SIZES[recording.people]
            portrait = make_portrait(recording.frames, rng, face_of(voice.name), size)
            track = lip_track([], recording.frames, portrait.face, rng)
            for turn in turns:
                if turn.sentence.person == person:
                    _speak_in(track, turn, portrait, rng)
            portraits.append(portrait)
            tracks.append(track)
        return cls(recording.voices, portraits, tracks)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of the whole video: (T, H, W, 3)."""
        height, width = SIZES[len(self.tracks)]
        return len(self.tracks[0]), height, width * len(self.tracks), 3

    def mouth(self, turn: Turn) -> list[float]:
        """Returns where the mouth of the speaker is on average, x before y, in pixels."""
        person = turn.sentence.person
        _, width = SIZES[len(self.tracks)]
        x, y = self.portraits[person].centres[turn.first : turn.stop].mean(0)
        return [round(float(x) + person * width, 1), round(float(y), 1)]

    def pictures(self) -> Iterator[np.ndarray]:
        """Yields the RGB frames (H, W, 3), with one person beside the other."""
        people = zip(self.portraits, self.tracks, strict=True)
        videos = [drawn(portrait, track) for portrait, track in people]
        for faces in zip(*videos, strict=True):
            yield np.hstack(faces)


class _Pictures:
    """The frames of a scene as the encoder takes them, drawn when it asks for the next one."""

    ndim = 4

    def __init__(self, scene: Scene, rng: np.random.Generator, progress: Progress):
        self.scene = scene
        self.shape = scene.shape
        self.rng = rng
        self.progress = progress

    def __iter__(self) -> Iterator[np.ndarray]:
        frames = self.shape[0]
        for index, picture in enumerate(self.scene.pictures(), 1):
            noise = self.rng.integers(0, 2 * _SENSOR_NOISE + 1, picture.shape, np.uint8)
            noisy = cv2.add(picture, noise)  # saturates
            yield cv2.subtract(noisy, np.full_like(noise, _SENSOR_NOISE))
            if index % _TOLD_EVERY == 0 or index == frames:
                self.progress("Drawing the recording", index, frames)


@dataclass(frozen=True)
class _Stretch:
    """Consecutive sentences of a recording."""

    recording: Recording
    first: int


def _said(recording: Recording) -> Iterator[Sentence]:
    """Yields the sentences of a recording, without end unless the world runs out of them."""
    require_espeak()  # before any process starts, so that the error is raised once
    stretches = (_Stretch(recording, first) for first in itertools.count(0, _STRETCH))
    for said in in_fresh_processes(_say, stretches, _PROCESSES):
        yield from said


def _say(stretch: _Stretch) -> list[Sentence]:
    recording = stretch.recording
    stream = sentences(recording.world, SPLIT, recording.seed, recording.language)
    texts = list(itertools.islice(stream, stretch.first, stretch.first + _STRETCH))
    if len(texts) < _STRETCH:
        raise InputError(
            f"the {recording.world} world has too few sentences for {recording.minutes:g} minutes: "
            "ask for fewer, or use the open world"
        )
    said = []
    for index, text in enumerate(texts, stretch.first):
        said.append(_say_one(recording, index, text))
    return said


def _say_one(recording: Recording, index: int, text: str) -> Sentence:
    rng = recording.rng(_SENTENCES, index)
    person = int(rng.integers(recording.people))
    return Sentence(text, person, say_freely(text, recording.voices[person], rng))


def _is_sound(name: str) -> bool:
    return phoneme_class(name) != SILENCE


def _drawn_pause(rng: np.random.Generator) -> float:
    """Returns the seconds of silence between two sentences."""
    if rng.random() < LONG_PAUSES:
        return LONG_PAUSE
    return float(np.exp(rng.uniform(*np.log(BETWEEN))))


def _speak_in(track: np.ndarray, turn: Turn, portrait: Portrait, rng: np.random.Generator) -> None:
    """Moves the resting lips of a track (T, 6) as the sentence asks for."""
    frames = turn.sentence.frames
    speaking = lip_track(turn.sentence.spoken.phonemes, frames, portrait.face, rng)
    to_the_nearest_end = np.minimum(np.arange(frames), np.arange(frames)[::-1])
    share = np.minimum(to_the_nearest_end / _SEAM, 1)[:, None]  # (T, 1)
    resting = track[turn.first : turn.stop]
    track[turn.first : turn.stop] = resting + share * (speaking - resting)


def _mixed(recording: Recording, turns: Sequence[Turn]) -> np.ndarray:
    """Returns the sound of a recording (S,) int16, with the noise of the room in the pauses."""
    rng = recording.rng(_ROOM)
    blocks = []
    stop = 0
    for turn in turns:
        blocks += [_noise(turn.first - stop, rng), turn.sentence.spoken.audio]
        stop = turn.stop
    blocks.append(_noise(recording.frames - stop, rng))
    return np.concatenate(blocks)


def _noise(frames: int, rng: np.random.Generator) -> np.ndarray:
    samples = rng.normal(0, _ROOM_NOISE, frames * SAMPLES_PER_VIDEO_FRAME)
    return np.rint(samples).astype(np.int16)


def _segment_rows(scene: Scene, turns: Sequence[Turn]) -> list[Row]:
    rows = []
    for turn in turns:
        rows.append(
            {
                "start": round(turn.start, 3),
                "end": round(turn.end, 3),
                "text": turn.sentence.text,
                "speaker": scene.voices[turn.sentence.person].name,
                "mouth": scene.mouth(turn),
            }
        )
    return rows


def _word_rows(scene: Scene, turns: Sequence[Turn]) -> list[Row]:
    """Returns a row for each word."""
    rows: list[Row] = []
    for turn in turns:
        speaker = scene.voices[turn.sentence.person].name
        rows += [{**word.as_row(), "speaker": speaker} for word in turn.words]
    return rows


def _subtitles(turns: Sequence[Turn]) -> str:
    cues = []
    for number, turn in enumerate(turns, 1):
        cue = Cue(turn.start, turn.end, turn.sentence.text)
        cues.append(written(cue, "srt", number) + "\n")
    return "".join(cues)
