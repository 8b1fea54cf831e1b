"""Clips of the toy corpus, made in memory."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from omni_avsr.errors import InputError
from omni_avsr.settings.shared import LANGUAGES, MULTI, WORLDS
from omni_avsr.tasks import SAMPLES_PER_VIDEO_FRAME
from omni_avsr.toy.face import face_of
from omni_avsr.toy.lips import lip_track
from omni_avsr.toy.mouth import draw_mouth
from omni_avsr.toy.phones import Phoneme
from omni_avsr.toy.sentences import SPLITS, check, multi_sentences, pronounced, sentences
from omni_avsr.toy.speech import Spoken, speak
from omni_avsr.toy.voices import Voice, speakers
from omni_avsr.toy.words import Word

# Speaking rates and pauses vary in all worlds but the grid.
RATES = (0.8, 1.4)  # of the speaker's usual rate
PAUSING = 0.3  # share of the clips with a pause
PAUSE = (0.2, 0.7)  # seconds


@dataclass(frozen=True)
class ToyClip:
    """A sentence that is said and seen; audio and video are equally long."""

    id: str
    text: str
    speaker: str
    audio: np.ndarray  # (S,) int16 at 16 kHz
    video: np.ndarray  # (T, 96, 96) uint8 at 25 fps
    lips: np.ndarray  # (T, 6) lip parameters
    phonemes: list[Phoneme]
    words: list[Word]


@dataclass(frozen=True)
class Shard:
    """Consecutive clips of a split."""

    world: str
    split: str
    seed: int
    first: int
    count: int
    language: str = "en"

    @property
    def name(self) -> str:
        """What the ids of its clips begin with."""
        world = self.world if self.language == "en" else f"{self.world}-{self.language}"
        return f"{world}_{self.split}"


def generate(shard: Shard) -> Iterator[ToyClip]:
    """Returns the clips of a shard; they are reproducible only in a fresh process."""
    end = shard.first + shard.count
    said = list(itertools.islice(_sentences(shard), shard.first, end))
    if len(said) < shard.count:
        raise InputError(
            f"the {shard.world} world has no {end} sentences to {shard.split} on: "
            "ask for fewer, or use the open world"
        )
    return (_make_clip(shard, index, *one) for index, one in enumerate(said, shard.first))


def _sentences(shard: Shard) -> Iterator[tuple[str, str]]:
    """Returns the language and the text of each sentence."""
    check(shard.world, shard.split, shard.language)
    if shard.language == MULTI:
        return multi_sentences(shard.split, shard.seed)
    texts = sentences(shard.world, shard.split, shard.seed, shard.language)
    return ((shard.language, text) for text in texts)


def _make_clip(shard: Shard, index: int, language: str, text: str) -> ToyClip:
    """Returns a clip whose random draws depend only on its place in the corpus."""
    place = [WORLDS.index(shard.world), SPLITS.index(shard.split), index]
    if shard.language != "en":
        place.append(LANGUAGES.index(language))
    rng = np.random.default_rng([shard.seed, *place])
    voices = speakers(shard.split, language)
    voice = voices[rng.integers(len(voices))]
    say = say_evenly if shard.world == "grid" else say_freely
    spoken = say(text, voice, rng)
    face = face_of(voice.name)
    frames = len(spoken.audio) // SAMPLES_PER_VIDEO_FRAME
    track = lip_track(spoken.phonemes, frames, face, rng)
    return ToyClip(
        id=f"{shard.name}_{index:06d}",
        text=text,
        speaker=voice.name,
        audio=spoken.audio,
        video=draw_mouth(track, face, rng),
        lips=track,
        phonemes=spoken.phonemes,
        words=spoken.words,
    )


def say_evenly(text: str, voice: Voice, rng: np.random.Generator) -> Spoken:
    """Returns the sentence at about the speaker's usual rate."""
    spoken = speak(pronounced(text), voice.jittered(rng), rng)
    return replace(spoken, words=_spelt(text, spoken.words))


def say_freely(text: str, voice: Voice, rng: np.random.Generator) -> Spoken:
    """Returns the sentence at any rate, and perhaps with a pause."""
    voice = voice.jittered(rng, RATES)
    given, pause = pronounced(text), 0.0
    if rng.random() < PAUSING:
        given, pause = _with_comma(given, rng), rng.uniform(*PAUSE)
    spoken = speak(given, voice, rng, pause)
    return replace(spoken, words=_spelt(text, spoken.words))


def _with_comma(text: str, rng: np.random.Generator) -> str:
    """Returns the sentence with a comma, at which espeak pauses, after any word but the last."""
    said = text.split()
    said[rng.integers(len(said) - 1)] += ","
    return " ".join(said)


def _spelt(text: str, words: list[Word]) -> list[Word]:
    """Returns the words as in the text, and not as espeak was asked to pronounce them."""
    return [word._replace(text=own) for word, own in zip(words, text.split(), strict=True)]
