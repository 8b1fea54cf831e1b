"""The speakers of the toy corpus: voices and variants of espeak-ng.

A variant is heard in one split only, in whatever language, so the voices of the test split are new
to a model. Breathy variants are not used, because espeak seeds their noise with the clock.
"""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Voice:
    """A speaker."""

    name: str
    espeak: str  # espeak's voice and variant
    pitch: int = 50  # 0 to 99
    range: int = 50  # of the pitch, 0 to 99
    speed: int = 150  # words per minute

    @property
    def variant(self) -> str:
        """What makes the speaker of espeak's voice this one."""
        return self.espeak.split("+")[1]

    def jittered(
        self, rng: np.random.Generator, speed: tuple[float, float] | None = None
    ) -> "Voice":
        """Returns the speaker on another day: slightly higher or lower, faster or slower.

        With lowest and highest factors of the speed given, any speed between is as likely.
        """
        pitch = self.pitch + rng.normal(0, 4)
        factor = rng.uniform(*speed) if speed else np.clip(rng.normal(1, 0.07), 0.85, 1.15)
        return replace(self, pitch=int(np.clip(pitch, 5, 95)), speed=int(self.speed * factor))


# Each row has espeak's voice and variant, pitch, pitch range, and words per minute. No two splits
# share a variant.
_TRAIN = """
    en-us+m1 45 50 150
    en-us+f1 55 50 150
    en-us+m3 40 40 155
    en-us+steph 55 55 160
    en-us+max 50 50 145
    en-us+Alex 55 45 150
    en-us+Annie 60 60 155
    en-us+Andy 45 50 165
    en+m2 50 55 150
    en+linda 60 50 145
    en+m4 45 60 150
    en+f4 55 45 155
    en+Michael 40 50 160
    en+belinda 55 55 150
    en+Mike 50 40 145
    en-gb-x-rp+m5 40 50 150
    en-gb-x-rp+f4 60 60 155
    en-gb-x-rp+adam 50 50 160
    en-gb-x-rp+edward2 45 45 150
    en-gb-scotland+m6 50 50 150
    en-gb-scotland+linda 55 50 145
    en-029+m7 45 55 155
    en-us-nyc+f1 62 50 150
    en-us-nyc+quincy 45 50 155
    en-us-nyc+grandpa 40 45 145
    en-gb-x-gbclan+rob 50 50 150
    en-gb-x-gbcwmd+david 45 55 155
    en+Nguyen 55 50 150
"""
_VALID = """
    en-us+Lee 50 50 150
    en+Hugo 45 50 155
    en-us+shelby 55 50 150
"""
_TEST = """
    en-us+m8 50 50 150
    en+grandma 55 50 155
    en-gb-x-rp+Henrique 45 50 150
    en-us+robert 50 45 150
    en+aunty 55 55 150
"""


def _speakers(letter: str, table: str) -> tuple[Voice, ...]:
    voices = []
    for number, row in enumerate(table.strip().splitlines()):
        espeak, pitch, pitch_range, speed = row.split()
        name = f"{letter}{number:02d}"
        voices.append(Voice(name, espeak, int(pitch), int(pitch_range), int(speed)))
    return tuple(voices)


_ENGLISH = {
    "train": _speakers("s", _TRAIN),
    "valid": _speakers("v", _VALID),
    "test": _speakers("t", _TEST),
}


def speakers(split: str, language: str = "en") -> tuple[Voice, ...]:
    """Returns the speakers of a split; other languages have one for each variant of the English."""
    if language == "en":
        return _ENGLISH[split]
    by_variant: dict[str, Voice] = {}
    for voice in _ENGLISH[split]:
        name = f"{language}-{voice.name}"
        espeak = f"{language}+{voice.variant}"
        by_variant.setdefault(voice.variant, replace(voice, name=name, espeak=espeak))
    return tuple(by_variant.values())
