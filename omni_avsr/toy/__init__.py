"""A small world to train and test in.

Sentences from a grammar are said by the voices of espeak-ng, and drawn lips say the same.
"""

from omni_avsr.toy.clips import ToyClip
from omni_avsr.toy.corpus import corpus_sizes, generate_shards, toy_corpus, write_corpus
from omni_avsr.toy.face import make_face
from omni_avsr.toy.lips import lip_track
from omni_avsr.toy.mouth import draw_mouth
from omni_avsr.toy.phones import PHONEMES, frame_labels

__all__ = [
    "PHONEMES",
    "ToyClip",
    "corpus_sizes",
    "draw_mouth",
    "frame_labels",
    "generate_shards",
    "lip_track",
    "make_face",
    "toy_corpus",
    "write_corpus",
]
