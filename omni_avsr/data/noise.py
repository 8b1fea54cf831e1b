"""Babble, white noise and recorded sounds, mixed in at an exact signal-to-noise ratio.

The same code mixes noise in training and in evaluation. White noise in an evaluated clip depends
only on the clip's id, the ratio and the seed, and recorded noise on the sounds of its folder too.

Babble depends on the voices of its label file as well. They are those of BABBLE_CLIPS clips, chosen
by their ids, or of all clips if there are fewer. The order of the file does not matter, nor does a
clip that is not chosen, but another set of clips has other babble. A clip is not kept from its own
babble: its voice, at another place, is as likely in it as any other.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from omni_avsr.data.manifest import Clip
from omni_avsr.data.seed import generator, number
from omni_avsr.errors import InputError
from omni_avsr.media import streams
from omni_avsr.media.folders import AUDIO_SUFFIXES, media_files
from omni_avsr.tasks import SAMPLE_RATE, Condition

log = logging.getLogger(__name__)

BABBLE_VOICES = 30
BABBLE_CLIPS = 300  # whose voices make the babble
NOISE_SECONDS = 60  # length of a noise track
PLACES = 20  # tried in noise that is silent in places
SILENCE = 1e-12  # power below which nothing is heard

Track = np.ndarray | Path  # a waveform (S,), or a file of one


def mix_at_snr(
    speech: np.ndarray, noise: np.ndarray, snr: float, rng: np.random.Generator
) -> np.ndarray:
    """Speech with a piece of the noise at exactly this ratio in dB over the whole clip.

    The piece starts at a random place; where the noise is silent, another place is drawn.
    """
    piece = _audible_piece(noise, len(speech), rng)
    ratio = _power(speech) / max(_power(piece), SILENCE)
    gain = np.sqrt(ratio / 10 ** (snr / 10))
    return (speech + gain * piece).astype(np.float32)


def _audible_piece(noise: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """A piece that is not silent; it begins where the noise is loudest if no place is found."""
    for _ in range(PLACES):
        piece = _piece(noise, int(rng.integers(len(noise))), length)
        if _power(piece) > SILENCE:
            return piece
    return _piece(noise, int(np.abs(noise).argmax()), length)


def _piece(noise: np.ndarray, start: int, length: int) -> np.ndarray:
    return np.take(noise, np.arange(start, start + length), mode="wrap")


def _power(samples: np.ndarray) -> float:
    return float(np.mean(np.square(samples, dtype=np.float64)))


def babble_track(speech: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """A minute of 30 voices at once; each is a chain of the given waveforms."""
    samples = NOISE_SECONDS * SAMPLE_RATE
    track = np.zeros(samples, np.float32)
    for _ in range(BABBLE_VOICES):
        chain: list[np.ndarray] = []
        while sum(map(len, chain)) < 2 * samples:
            chain.append(speech[int(rng.integers(len(speech)))])
        start = int(rng.integers(samples))
        voice = np.concatenate(chain)[start : start + samples]
        track += voice / np.sqrt(np.mean(voice**2) + SILENCE)
    return track


def babble_of_clips(clips: Sequence[Clip], *key: object) -> np.ndarray:
    """Babble of the voices of the clips whose ids draw the lowest numbers by this key.

    Clips that cannot be read are left out.
    """
    by_number = sorted(clips, key=lambda clip: (number(*key, clip.id), clip.id))
    speech = []
    for clip in by_number[:BABBLE_CLIPS]:
        try:
            speech.append(streams.read_audio(clip.sound, clip.track))
        except InputError as error:
            log.warning("not used for babble: %s", error)
    if not speech:
        raise InputError(f"none of {len(clips)} clips could be read to make babble of")
    return babble_track(speech, generator(*key))


def white_track(rng: np.random.Generator) -> np.ndarray:
    """A minute of white noise."""
    return rng.standard_normal(NOISE_SECONDS * SAMPLE_RATE, np.float32)


@dataclass(frozen=True)
class Noise:
    """Noise tracks, of which one is mixed into each clip; an augmentation like training's."""

    condition: Condition
    tracks: Sequence[Track]

    @property
    def kind(self) -> str:
        """The kind as it seeds the noise: a folder counts as the same wherever it is."""
        kind = str(self.condition.noise)
        return "folder" if Path(kind).is_dir() else kind

    def __call__(
        self, audio: np.ndarray | None, video: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        if audio is None:
            return audio, video
        place = int(rng.integers(len(self.tracks))) if len(self.tracks) > 1 else 0
        track = self.tracks[place]
        noise = streams.read_audio(track) if isinstance(track, Path) else track
        assert self.condition.snr is not None
        return mix_at_snr(audio, noise, self.condition.snr, rng), video


def make_noise(condition: Condition, clips: Sequence[Clip], seed: int) -> Noise | None:
    """The noise of a condition; None if it is clean.

    It is babble of the clips' own voices, white, or the sounds of a folder such as MUSAN's noise.
    """
    if condition.snr is None:
        return None
    kind = str(condition.noise)
    if kind == "white":
        return Noise(condition, [white_track(generator(seed, kind))])
    if kind == "babble":
        return Noise(condition, [babble_of_clips(clips, seed, kind)])
    if not Path(kind).is_dir():
        raise InputError(f"unknown noise {kind!r}; available: babble, white, or a folder of sounds")
    files = media_files(Path(kind))
    named = [path for path in files if path.suffix.lower() in AUDIO_SUFFIXES]
    sounds = [path for path in named if _is_audible(path)]
    if not sounds:
        raise InputError(f"{kind} holds no sounds to mix in")
    return Noise(condition, sounds)


def _is_audible(sound: Path) -> bool:
    """Whether a sound can be mixed in; one that is silent, or cannot be read, is named in the log.

    All of them are read, so that none of them ends an evaluation halfway.
    """
    try:
        if _power(streams.read_audio(sound)) > SILENCE:
            return True
        log.warning("not used as noise: %s is silent", sound)
    except InputError as error:
        log.warning("not used as noise: %s", error)
    return False
