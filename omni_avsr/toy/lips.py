"""From phonemes to lip parameters over time.

Lip reading is meant to be harder than listening. Homophemes share a look, neighbouring looks blend,
every speaker and every clip has its own version of each look, and the timing varies.
"""

import numpy as np

from omni_avsr.tasks import VIDEO_FPS
from omni_avsr.toy.face import Face
from omni_avsr.toy.looks import DOMINANCE, LOOK_INDEX, PARAMETERS, TARGETS
from omni_avsr.toy.motion import slow_noise
from omni_avsr.toy.phones import LOOKS, SILENCE, Phoneme, phoneme_class

CLIP_STYLE = 0.08  # deviation of a clip's looks, in units of the lip parameters
WOBBLE = 0.06  # deviation of the lips over time, in the same units
OFFSET = 0.02  # seconds; deviation of the lips from the sound in a whole clip
JITTER = 0.025  # seconds; deviation of each look from the sound
_RESTING = 1e-4  # weight of the resting mouth, which holds the lips where there is no other look


def lip_track(
    phonemes: list[Phoneme], frames: int, face: Face, rng: np.random.Generator
) -> np.ndarray:
    """Returns the lip parameters (frames, 6) of a speaker who says the phonemes."""
    looks, start, end = _look_segments(phonemes)  # (segments,) each
    offset = rng.normal(0, OFFSET)
    jitter = rng.normal(0, JITTER, len(looks))
    centre = (start + end) / 2 + offset + jitter
    sigma = 0.3 * (end - start) + 0.025
    clip_style = rng.normal(0, CLIP_STYLE, TARGETS.shape)
    targets = TARGETS * face.gain + face.style + clip_style  # (looks, 6)

    times = (np.arange(frames)[:, None] + 0.5) / VIDEO_FPS  # (T, 1)
    weight = np.exp(-0.5 * ((times - centre) / sigma) ** 2)  # (T, segments)
    dominance = DOMINANCE[looks]  # (segments, 6)
    blend = weight @ (dominance * targets[looks]) + _RESTING * targets[LOOK_INDEX["rest"]]
    track = blend / (weight @ dominance + _RESTING)  # (T, 6)
    return track + WOBBLE * slow_noise(frames, PARAMETERS, rng)


def _look_segments(phonemes: list[Phoneme]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the index, start and end of each look.

    The two looks of a diphthong share its time. Before the first phoneme the mouth rests.
    """
    segments = []
    if phonemes:
        first_start, _, _ = phonemes[0]
        phonemes = [Phoneme(0.0, first_start, SILENCE), *phonemes]
    for start, end, name in phonemes:
        looks = LOOKS[phoneme_class(name)]
        edges = np.linspace(start, end, len(looks) + 1)
        for look, begin, stop in zip(looks, edges[:-1], edges[1:], strict=True):
            segments.append((LOOK_INDEX[look], begin, stop))
    table = np.array(segments).reshape(-1, 3)
    return table[:, 0].astype(int), table[:, 1], table[:, 2]
