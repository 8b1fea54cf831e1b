"""Clips of the toy corpus, made in memory."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from omni_avsr.errors import InputError
from omni_avsr.settings.shared import WORLDS
from omni_avsr.tasks import SAMPLES_PER_VIDEO_FRAME
from omni_avsr.toy.face import face_of
from omni_avsr.toy.lips import lip_track
from omni_avsr.toy.mouth import draw_mouth
from omni_avsr.toy.phones import Phoneme
from omni_avsr.toy.sentences import SPLITS, pronounced, sentences
from omni_avsr.toy.speech import SPEAKERS, speak
from omni_avsr.toy.words import Word


@dataclass(frozen=True)
class ToyClip:
    """A sentence that is said and seen; audio and video are equally long."""

    id: str
    text: str
    speaker: str
    audio: np.ndarray  # (S,) int16 at 16 kHz
    video: np.ndarray  # (T, 96, 96) uint8 at 25 fps
    phonemes: list[Phoneme]
    words: list[Word] | None  # None if espeak joins words


@dataclass(frozen=True)
class Shard:
    """Consecutive clips of a split."""

    world: str
    split: str
    seed: int
    first: int
    count: int


def generate(shard: Shard) -> Iterator[ToyClip]:
    """Returns the clips of a shard; they are reproducible only in a fresh process."""
    end = shard.first + shard.count
    stream = sentences(shard.world, shard.split, shard.seed)
    texts = list(itertools.islice(stream, shard.first, end))
    if len(texts) < shard.count:
        raise InputError(
            f"the {shard.world} world has no {end} sentences to {shard.split} on: "
            "ask for fewer, or use the open world"
        )
    return (_make_clip(shard, index, text) for index, text in enumerate(texts, shard.first))


def _make_clip(shard: Shard, index: int, text: str) -> ToyClip:
    """Returns a clip whose random draws depend only on its place in the corpus."""
    place = [WORLDS.index(shard.world), SPLITS.index(shard.split), index]
    rng = np.random.default_rng([shard.seed, *place])
    voices = SPEAKERS[shard.split]
    voice = voices[rng.integers(len(voices))]
    spoken = speak(pronounced(text), voice.jittered(rng), rng)
    face = face_of(voice.name)
    frames = len(spoken.audio) // SAMPLES_PER_VIDEO_FRAME
    track = lip_track(spoken.phonemes, frames, face, rng)
    return ToyClip(
        id=f"{shard.world}_{shard.split}_{index:06d}",
        text=text,
        speaker=voice.name,
        audio=spoken.audio,
        video=draw_mouth(track, face, rng),
        phonemes=spoken.phonemes,
        words=_spelt(text, spoken.words),
    )


def _spelt(text: str, words: list[Word] | None) -> list[Word] | None:
    """Returns the words as in the text, and not as espeak was asked to pronounce them."""
    if words is None:
        return None
    return [word._replace(text=own) for word, own in zip(words, text.split(), strict=True)]
