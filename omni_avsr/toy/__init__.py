"""A small world to train and test in: sentences from a grammar, espeak's voices, and drawn lips that say the same."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from omni_avsr.toy.corpus import (
    GENERATOR_VERSION,
    ToyClip,
    cached_corpus,
    generate,
    generate_shards,
    label_path,
    write_corpus,
)
from omni_avsr.toy.face import render_face
from omni_avsr.toy.mouth import Face, draw_mouth, lip_track, make_face
from omni_avsr.toy.phones import PHONEMES, VISEMES, frame_labels, phoneme_class
from omni_avsr.toy.sentences import SPLITS, WORLDS, sentences, split_of, words
from omni_avsr.toy.speech import SPEAKERS, Spoken, Voice, speak

__all__ = [
    "GENERATOR_VERSION",
    "PHONEMES",
    "SPEAKERS",
    "SPLITS",
    "VISEMES",
    "WORLDS",
    "Face",
    "Spoken",
    "ToyClip",
    "Voice",
    "cached_corpus",
    "draw_mouth",
    "frame_labels",
    "generate",
    "generate_shards",
    "label_path",
    "lip_track",
    "make_face",
    "phoneme_class",
    "render_face",
    "sentences",
    "speak",
    "split_of",
    "toy_corpus",
    "words",
    "write_corpus",
]


def toy_corpus(
    world: str, clips: int, report: Callable[[str, int, int], None], splits: Sequence[str] = SPLITS
) -> dict[str, Path]:
    """The label files of the cached corpus that train, decode and demo share: a sixteenth of it more to validate on,
    and an eighth to test on."""
    sizes = {"valid": max(clips // 16, 1), "test": max(clips // 8, 1)}
    progress = partial(report, f"Making the {world} corpus")
    return cached_corpus(world, clips, splits=splits, sizes=sizes, progress=progress)
