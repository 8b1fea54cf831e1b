"""Phoneme classes, which espeak's many names fold into, the visemes they look like, and frame labels of either."""

import numpy as np

Phoneme = tuple[float, float, str]  # start in seconds, end in seconds, espeak's name

SILENCE = "sil"

VISEMES = {  # by look; all phonemes of a row are the same on the lips; a diphthong is two looks after each other
    "rest": (SILENCE,),
    "closed": ("p", "b", "m"),
    "bite": ("f", "v"),
    "dental": ("T", "D"),
    "tip": ("t", "d", "n", "l"),
    "hiss": ("s", "z"),
    "hush": ("tS", "dZ", "S", "Z"),
    "back": ("k", "g", "N", "h"),
    "pucker": ("w", "r"),
    "smile": ("i:", "I", "j"),
    "mid": ("E",),
    "open": ("a", "V", "A:"),
    "round": ("O:",),
    "purse": ("U", "u:"),
    "neutral": ("@", "3:"),
}
DIPHTHONGS = {
    "eI": ("mid", "smile"),
    "aI": ("open", "smile"),
    "OI": ("round", "smile"),
    "aU": ("open", "purse"),
    "oU": ("round", "purse"),
}
PHONEMES = (*(name for names in VISEMES.values() for name in names), *DIPHTHONGS)  # silence first
LOOKS = {name: (look,) for look, names in VISEMES.items() for name in names} | DIPHTHONGS

_STRESS = "'`,%=|"
_FOLDED = {  # names of espeak's accents that do not begin like their class
    **dict.fromkeys(("0", "A", "A#", "A@", "0#", "O2"), "A:"),
    **dict.fromkeys(("O", "o", "o@", "O@", "o:r"), "O:"),
    **dict.fromkeys(("3", "VR", "IR", "ER", "@r", "R"), "3:"),
    **dict.fromkeys(("e@", "e"), "E"),
    **dict.fromkeys(("i@", "i@3"), "I"),
    **dict.fromkeys(("a#", "a2"), "@"),
    **dict.fromkeys(("e:", "ei"), "eI"),
    **dict.fromkeys(("o:", "@U"), "oU"),
    **dict.fromkeys(("u", "y", "y:"), "u:"),
    **dict.fromkeys(("?", "*", "t["), "t"),
    **dict.fromkeys(("x", "q", "c"), "k"),
    **dict.fromkeys(("i", "i;"), "i:"),
    "@L": "l",
    ";": "j",
    "C": "h",
    "W": "w",
}
_LONGEST_FIRST = sorted(PHONEMES[1:], key=len, reverse=True)


def phoneme_class(name: str) -> str:
    """The class of an espeak phoneme name; a name never seen before is what it begins like, or else a schwa."""
    bare = name.lstrip(_STRESS)
    if not bare or bare.startswith("_") or bare == SILENCE:
        return SILENCE
    if bare in _FOLDED:
        return _FOLDED[bare]
    return next((known for known in _LONGEST_FIRST if bare.startswith(known)), "@")


def frame_labels(phonemes: list[Phoneme], frames: int, fps: float) -> np.ndarray:
    """The index in PHONEMES heard at the middle of each frame, silence where nothing is: int64 (frames,)."""
    labels = np.zeros(frames, np.int64)
    for start, end, name in phonemes:
        first, last = (max(int(np.ceil(time * fps - 0.5)), 0) for time in (start, end))
        labels[first:last] = PHONEMES.index(phoneme_class(name))
    return labels
