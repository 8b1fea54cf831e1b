"""Seeded streams of sentences.

The splits never share a sentence, whatever their seeds: the hash of a sentence decides which split
it belongs to.
"""

import hashlib
import itertools
import random
import re
from collections.abc import Iterator

from omni_avsr.errors import InputError
from omni_avsr.settings.shared import WORLDS
from omni_avsr.toy.grammar import GRID, OPEN, Rules

SPLITS = ("train", "valid", "test")
FEWEST_WORDS, MOST_WORDS = 4, 12  # of a sentence of the open world

_BUCKETS = 20  # hash buckets: one is the test split, one the validation split, the rest train
_SLOT = re.compile(r"\{(\w+)\}")
_DIGITS = "|".join(str(GRID["digit"]).split())
_LETTER_A = re.compile(rf"(?<= )a (?={_DIGITS})")
_A_BEFORE_VOWEL = re.compile(r"\ba(?= [aeiou])")


def sentences(world: str, split: str, seed: int) -> Iterator[str]:
    """Returns the sentences of a split in random order, without repeats.

    The stream is endless, except in the grid world, which ends when every command was used.
    """
    check(world, split)
    rng = random.Random(f"{world} {split} {seed}")
    streams = {"grid": _shuffled_grid, "open": _drawn_open, "mixed": _alternating}
    texts = _without_repeats(streams[world](rng))
    return (text for text in texts if split_of(text) == split)


def split_of(text: str) -> str:
    """Returns the split that a sentence belongs to."""
    digest = hashlib.sha256(text.encode()).digest()
    bucket = int.from_bytes(digest[:8], "big") % _BUCKETS
    return {0: "test", 1: "valid"}.get(bucket, "train")


def pronounced(text: str) -> str:
    """Returns the sentence for espeak, which would read the letter "a" as an article."""
    return _LETTER_A.sub("ay ", text)


def words(world: str) -> tuple[str, ...]:
    """Returns the vocabulary of a world, sorted."""
    check(world)
    vocabulary: set[str] = set()
    if world in ("grid", "mixed"):
        vocabulary |= _words_of(GRID)
    if world in ("open", "mixed"):
        vocabulary |= _words_of(OPEN)
        vocabulary.add("an")
    return tuple(sorted(vocabulary))


def check(world: str, split: str | None = None) -> None:
    """Refuses a world or a split that does not exist."""
    if world not in WORLDS:
        raise InputError(f"unknown toy world {world!r}; available: {', '.join(WORLDS)}")
    if split is not None and split not in SPLITS:
        raise InputError(f"unknown split {split!r}; available: {', '.join(SPLITS)}")


def _shuffled_grid(rng: random.Random) -> Iterator[str]:
    slot_names = _SLOT.findall(GRID["sentence"][0])
    slots = [_entries(GRID, name) for name in slot_names]
    commands = [" ".join(chosen) for chosen in itertools.product(*slots)]
    rng.shuffle(commands)
    return iter(commands)


def _drawn_open(rng: random.Random) -> Iterator[str]:
    while True:
        text = _A_BEFORE_VOWEL.sub("an", _expanded("{sentence}", rng))
        fits = FEWEST_WORDS <= len(text.split()) <= MOST_WORDS
        if fits and not _is_repetitive(text):
            yield text


def _alternating(rng: random.Random) -> Iterator[str]:
    """Yields commands and open sentences in turn; once the commands are used up, open ones only.

    The hash sends the same share of both to a split, so half of each split is commands, too.
    """
    commands = _shuffled_grid(rng)
    for text in _drawn_open(rng):
        yield from itertools.islice(commands, 1)
        yield text


def _expanded(template: str, rng: random.Random) -> str:
    """Returns the template with a random entry of its rule in each slot, and so on in the entry."""

    def fill(slot: re.Match[str]) -> str:
        entry = rng.choice(_OPEN_ENTRIES[slot[1]])
        return _expanded(entry, rng)

    return _SLOT.sub(fill, template)


def _is_repetitive(text: str) -> bool:
    """Whether a content word occurs twice, as in "milk and milk"."""
    content = [word for word in text.split() if len(word) > 3]
    return len(content) > len(set(content))


def _without_repeats(texts: Iterator[str]) -> Iterator[str]:
    seen = set()
    for text in texts:
        if text not in seen:
            seen.add(text)
            yield text


def _words_of(rules: Rules) -> set[str]:
    """Returns all words in the rules."""
    found: set[str] = set()
    for name in rules:
        for entry in _entries(rules, name):
            found.update(_SLOT.sub(" ", entry).split())
    return found


def _entries(rules: Rules, name: str) -> list[str]:
    entries = rules[name]
    return entries.split() if isinstance(entries, str) else entries


_OPEN_ENTRIES = {name: _entries(OPEN, name) for name in OPEN}
