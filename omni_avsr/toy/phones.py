"""Phoneme classes, how each looks on the lips, and the class of each frame."""

import math
from typing import NamedTuple

import numpy as np


class Phoneme(NamedTuple):
    """A phoneme of a clip, by espeak's name."""

    start: float  # seconds
    end: float  # seconds
    name: str


SILENCE = "sil"

VISEMES = {  # look: its phoneme classes, which nobody can tell apart on the lips
    "rest": SILENCE,
    "closed": "p b m",
    "bite": "f v",
    "dental": "T D",
    "tip": "t d n l",
    "hiss": "s z",
    "hush": "tS dZ S Z",
    "back": "k g N h",
    "pucker": "w r",
    "smile": "i: I j",
    "mid": "E",
    "open": "a V A:",
    "round": "O:",
    "purse": "U u:",
    "neutral": "@ 3:",
}
DIPHTHONGS = {  # two looks, one after the other
    "eI": ("mid", "smile"),
    "aI": ("open", "smile"),
    "OI": ("round", "smile"),
    "aU": ("open", "purse"),
    "oU": ("round", "purse"),
}
# Classes that English lacks. A name of espeak has one class in all languages, so the French and
# Russian r look like the English one, and the Russian vowel y like the French one.
OTHER_LANGUAGES = {
    "rr": ("tip",),  # a tapped or rolled r
    "x": ("back",),
    "ts": ("hiss",),
    "dz": ("hiss",),
    "y": ("purse",),
    "Y": ("round",),
    "A~": ("open",),  # a nasal vowel looks like the oral one
    "O~": ("round",),
    "E~": ("mid",),
    "ja": ("smile", "open"),
    "ju": ("smile", "purse"),
}

_STRESS = "'`,%=|"  # espeak's marks before a phoneme's name
_ALIASES = {  # class: espeak's names for it that do not begin like the class
    "A:": "0 A A# A@ 0# O2",
    "O:": "O o o@ O@ o:r 8",
    "3:": "3 VR IR ER @r",
    "E": "e@ e e-",
    "I": "i@ i@3",
    "@": "a# a2",
    "eI": "e: ei",
    "OI": "oI",
    "oU": "o: @U",
    "u:": 'u u# u"',
    "b": "B",
    "t": "? * t[",
    "k": "q c",
    "g": "Q",
    "i:": "i i;",
    "l": "@L",
    "j": "; J^",
    "h": "C",
    "rr": "R R2 **",
    "Y": "W W~",
}


def _row_of_each_word(table: dict[str, str]) -> dict[str, str]:
    """Inverts a table whose rows are lists of words."""
    rows: dict[str, str] = {}
    for row, words in table.items():
        rows |= dict.fromkeys(words.split(), row)
    return rows


_LOOK_OF = _row_of_each_word(VISEMES)
_CLASS_OF = _row_of_each_word(_ALIASES)

PHONEMES = (*_LOOK_OF, *DIPHTHONGS, *OTHER_LANGUAGES)  # all classes; silence is the first
LOOKS = {name: (look,) for name, look in _LOOK_OF.items()} | DIPHTHONGS | OTHER_LANGUAGES
_LONGEST_FIRST = sorted(PHONEMES[1:], key=len, reverse=True)


def phoneme_class(name: str) -> str:
    """Returns the class of an espeak phoneme.

    An unknown name belongs to the longest class that it begins with, or else to the schwa.
    """
    bare = name.lstrip(_STRESS)
    if not bare or bare.startswith("_") or bare == SILENCE:
        return SILENCE
    if bare in _CLASS_OF:
        return _CLASS_OF[bare]
    for known in _LONGEST_FIRST:
        if bare.startswith(known):
            return known
    return "@"


def frame_labels(phonemes: list[Phoneme], frames: int, fps: float) -> np.ndarray:
    """Returns the index in PHONEMES at the middle of each frame, silence by default: (frames,)."""
    labels = np.zeros(frames, np.int64)
    for start, end, name in phonemes:
        first = _first_frame_from(start, fps)
        stop = _first_frame_from(end, fps)
        labels[first:stop] = PHONEMES.index(phoneme_class(name))
    return labels


def _first_frame_from(time: float, fps: float) -> int:
    """Returns the first frame whose middle is at this time or later."""
    return max(math.ceil(time * fps - 0.5), 0)
