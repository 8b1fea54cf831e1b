"""Seeded streams of sentences.

The splits never share a sentence, whatever their seeds: the hash of a sentence decides which split
it belongs to.
"""

import hashlib
import itertools
import random
import re
from collections.abc import Callable, Iterator
from functools import partial

from omni_avsr.errors import InputError
from omni_avsr.settings.shared import LANGUAGES, MULTI, WORLDS
from omni_avsr.toy.grammar import GRID, OPEN, REPAIRED, REPAIRS, Rules, entries

SPLITS = ("train", "valid", "test")
FEWEST_WORDS, MOST_WORDS = 4, 12  # of a sentence of the open world

_BUCKETS = 20  # hash buckets: one is the test split, one the validation split, the rest train
_SLOT = re.compile(r"\{(\w+)\}")
_DIGITS = "|".join(str(GRID["digit"]).split())
_ADVERBS = "|".join(str(GRID["adverb"]).split())
_LETTER_A = re.compile(rf"(?<= )a (?=({_DIGITS}) ({_ADVERBS})$)")  # only in a command


def sentences(world: str, split: str, seed: int, language: str = "en") -> Iterator[str]:
    """Returns the sentences of a split in random order, without repeats.

    The stream is endless, except in the grid world, which ends when every command was used.
    """
    check(world, split, language)
    if language == MULTI:
        raise InputError(f"{MULTI} is several languages: ask for one of {', '.join(LANGUAGES)}")
    drawn_open = partial(_drawn_open, language=language)
    streams: dict[str, Callable[[random.Random], Iterator[str]]]
    streams = {"grid": _shuffled_grid, "open": drawn_open, "mixed": _alternating}
    source = world if language == "en" else f"{world}-{language}"
    rng = random.Random(f"{source} {split} {seed}")
    texts = _without_repeats(streams[world](rng))
    return (text for text in texts if split_of(text) == split)


def multi_sentences(split: str, seed: int) -> Iterator[tuple[str, str]]:
    """Yields languages in turn, each with the next sentence of its open world."""
    streams = {language: sentences("open", split, seed, language) for language in LANGUAGES}
    for language in itertools.cycle(LANGUAGES):
        yield language, next(streams[language])


def split_of(text: str) -> str:
    """Returns the split that a sentence belongs to."""
    digest = hashlib.sha256(text.encode()).digest()
    bucket = int.from_bytes(digest[:8], "big") % _BUCKETS
    return {0: "test", 1: "valid"}.get(bucket, "train")


def pronounced(text: str) -> str:
    """Returns the sentence for espeak, which would read the letter "a" as an article."""
    return _LETTER_A.sub("ay ", text)


def words(world: str, language: str = "en") -> tuple[str, ...]:
    """Returns the vocabulary of a world, sorted; an elided word and its noun are two, l' and arbre.

    That of several languages is the union of theirs.
    """
    check(world, language=language)
    vocabulary: set[str] = set()
    if world in ("grid", "mixed"):
        vocabulary |= _words_of(GRID)
    if world in ("open", "mixed"):
        for name in LANGUAGES if language == MULTI else (language,):
            vocabulary |= _words_of(OPEN[name]) | set(REPAIRED[name].split())
    return tuple(sorted(vocabulary))


def check(world: str, split: str | None = None, language: str = "en") -> None:
    """Refuses a world, split or language that does not exist."""
    if world not in WORLDS:
        raise InputError(f"unknown toy world {world!r}; available: {', '.join(WORLDS)}")
    if split is not None and split not in SPLITS:
        raise InputError(f"unknown split {split!r}; available: {', '.join(SPLITS)}")
    if language not in (*LANGUAGES, MULTI):
        available = ", ".join([*LANGUAGES, MULTI])
        raise InputError(f"unknown toy language {language!r}; available: {available}")
    if language != "en" and world != "open":
        raise InputError(
            f"the {world} world is in English, not in {language!r}: ask for the open world"
        )


def _shuffled_grid(rng: random.Random) -> Iterator[str]:
    slot_names = _SLOT.findall(GRID["sentence"][0])
    slots = [entries(GRID, name) for name in slot_names]
    commands = [" ".join(chosen) for chosen in itertools.product(*slots)]
    rng.shuffle(commands)
    return iter(commands)


def _drawn_open(rng: random.Random, language: str = "en") -> Iterator[str]:
    while True:
        text = _repaired(_expanded("{sentence}", language, rng), language)
        fits = FEWEST_WORDS <= len(text.split()) <= MOST_WORDS
        if fits and not _is_repetitive(text):
            yield text


def _repaired(text: str, language: str) -> str:
    """Returns the text with its articles and elisions as the words beside them ask for."""
    for pattern, replacement in REPAIRS[language]:
        text = re.sub(pattern, replacement, text)
    return text


def _alternating(rng: random.Random) -> Iterator[str]:
    """Yields commands and open sentences in turn; once the commands are used up, open ones only.

    The hash sends the same share of both to a split, so half of each split is commands, too.
    """
    commands = _shuffled_grid(rng)
    for text in _drawn_open(rng):
        yield from itertools.islice(commands, 1)
        yield text


def _expanded(template: str, language: str, rng: random.Random) -> str:
    """Returns the template with a random entry of its rule in each slot, and so on in the entry."""

    def fill(slot: re.Match[str]) -> str:
        entry = rng.choice(_ENTRIES[language][slot[1]])
        return _expanded(entry, language, rng)

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
        for entry in entries(rules, name):
            found.update(_SLOT.sub(" ", entry).replace("'", "' ").split())
    return found


_ENTRIES = {
    language: {name: entries(rules, name) for name in rules} for language, rules in OPEN.items()
}
