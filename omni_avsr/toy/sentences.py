"""Endless seeded streams of sentences whose splits never meet: a sentence's own hash says which split it belongs to."""

import hashlib
import itertools
import random
import re
from collections.abc import Iterator

from omni_avsr.toy.grammar import GRID, OPEN

WORLDS = ("grid", "open", "mixed")
SPLITS = ("train", "valid", "test")
FEWEST_WORDS, MOST_WORDS = 4, 12

_BUCKETS = 20  # of which one is the test split, one the validation split, and the rest train
_SLOT = re.compile(r"\{(\w+)\}")
_LETTER_A = re.compile(rf"(?<= )a (?={'|'.join(str(GRID['digit']).split())})")
_A_BEFORE_VOWEL = re.compile(r"\ba(?= [aeiou])")

Rules = dict[str, str | list[str]]


def sentences(world: str, split: str, seed: int) -> Iterator[str]:
    """A seeded stream of this split's sentences without repeats: endless, but grid ends when all are said."""
    check(world, split)
    rng = random.Random(f"{world} {split} {seed}")
    streams = {"grid": _shuffled_grid, "open": _drawn_open, "mixed": _alternating}
    return (text for text in _unrepeated(streams[world](rng)) if split_of(text) == split)


def split_of(text: str) -> str:
    """The split that a sentence belongs to, whatever the seed."""
    bucket = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % _BUCKETS
    return {0: "test", 1: "valid"}.get(bucket, "train")


def pronounced(text: str) -> str:
    """The sentence as espeak has to read it: the letter a of a command is no article."""
    return _LETTER_A.sub("ay ", text)


def words(world: str) -> tuple[str, ...]:
    """All words that a world's sentences can hold, sorted."""
    check(world)
    worlds = {"grid": [GRID], "open": [OPEN], "mixed": [GRID, OPEN]}[world]
    found = {word for rules in worlds for name in rules for entry in _entries(rules, name) for word in _plain(entry)}
    return tuple(sorted(found | ({"an"} if OPEN in worlds else set())))


def check(world: str, split: str | None = None) -> None:
    """Refuses a world or a split that does not exist."""
    if world not in WORLDS:
        raise ValueError(f"unknown toy world {world!r}; available: {', '.join(WORLDS)}")
    if split is not None and split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; available: {', '.join(SPLITS)}")


def _shuffled_grid(rng: random.Random) -> Iterator[str]:
    slots = [_entries(GRID, name) for name in _SLOT.findall(GRID["sentence"][0])]
    everything = [" ".join(choice) for choice in itertools.product(*slots)]
    rng.shuffle(everything)
    return iter(everything)


def _drawn_open(rng: random.Random) -> Iterator[str]:
    while True:
        text = _A_BEFORE_VOWEL.sub("an", _expanded("{sentence}", rng))
        if FEWEST_WORDS <= len(text.split()) <= MOST_WORDS and not _repetitive(text):
            yield text


def _alternating(rng: random.Random) -> Iterator[str]:
    """Half commands, half open sentences; once the commands are used up, open ones only.

    Commands of the wanted split are as frequent among all commands as open ones, so halves stay halves in each split.
    """
    for command, text in itertools.zip_longest(_shuffled_grid(rng), _drawn_open(rng)):
        yield from (one for one in (command, text) if one is not None)


def _expanded(template: str, rng: random.Random) -> str:
    return _SLOT.sub(lambda slot: _expanded(rng.choice(_OPEN_ENTRIES[slot[1]]), rng), template)


def _repetitive(text: str) -> bool:
    """Whether a word of content comes twice, as in 'milk and milk'."""
    long_words = [word for word in text.split() if len(word) > 3]
    return len(long_words) > len(set(long_words))


def _unrepeated(texts: Iterator[str]) -> Iterator[str]:
    said = set()
    for text in texts:
        if text not in said:
            said.add(text)
            yield text


def _entries(rules: Rules, name: str) -> list[str]:
    entries = rules[name]
    return entries.split() if isinstance(entries, str) else entries


def _plain(entry: str) -> list[str]:
    """The words of an entry that are no slots."""
    return _SLOT.sub(" ", entry).split()


_OPEN_ENTRIES = {name: _entries(OPEN, name) for name in OPEN}
