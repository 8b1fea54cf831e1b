"""Transcripts as they are scored: normalised, aligned, and their errors counted."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from typing import NamedTuple

import jiwer

from omni_avsr.errors import InputError
from omni_avsr.tasks import NORMALISERS


@dataclass(frozen=True)
class Errors:
    """Counts of one clip or of many. Counts can be added, rates cannot."""

    words: int = 0  # of the reference, as are characters
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    hits: int = 0
    characters: int = 0
    character_errors: int = 0

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def wer(self) -> float:
        """Word errors per reference word; an empty reference counts as one word."""
        return self.errors / max(self.words, 1)

    @property
    def cer(self) -> float:
        """Character errors per reference character, spaces included.

        An empty reference counts as one character.
        """
        return self.character_errors / max(self.characters, 1)

    def __add__(self, other: "Errors") -> "Errors":
        return Errors(
            words=self.words + other.words,
            substitutions=self.substitutions + other.substitutions,
            deletions=self.deletions + other.deletions,
            insertions=self.insertions + other.insertions,
            hits=self.hits + other.hits,
            characters=self.characters + other.characters,
            character_errors=self.character_errors + other.character_errors,
        )


def normalise(text: str, how: str = "lower") -> str:
    """The text as it is scored, with single spaces.

    - `lower`: in lower case.
    - `13a`: tokenised as mteval-v13a does, without punctuation and in lower case. AV-HuBERT, MuAViC
      and the work that builds on them score this way.
    - `whisper`: Whisper's English normaliser, except that British spellings are kept.
    """
    if how == "13a":
        text = _thirteen_a(text)
    elif how == "whisper":
        text = _whisper()(text)
    elif how != "lower":
        raise InputError(f"unknown normaliser {how!r}; available: {', '.join(NORMALISERS)}")
    return " ".join(text.lower().split())


def _thirteen_a(text: str) -> str:
    """Splits off punctuation, except inside numbers and words, and removes it."""
    text = re.sub(r"([^\w\s.,'-])", r" \1 ", f" {text} ")
    text = re.sub(r"(?<!\d)([.,])|([.,])(?!\d)", r" \1\2 ", text)
    text = re.sub(r"(\d)-", r"\1 - ", text)
    return " ".join(word for word in text.split() if _is_word(word))


def _is_word(token: str) -> bool:
    """Whether a token has a letter or a digit."""
    return any(character.isalnum() for character in token)


@cache
def _whisper() -> Callable[[str], str]:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    return EnglishTextNormalizer({})  # an empty table of British spellings


def word_errors(reference: str, hypothesis: str) -> Errors:
    """The errors of a hypothesis. Neither text is normalised, except for repeated spaces."""
    reference = " ".join(reference.split())
    hypothesis = " ".join(hypothesis.split())
    words = jiwer.process_words(reference, hypothesis)
    characters = jiwer.process_characters(reference, hypothesis)
    return Errors(
        words=len(reference.split()),
        substitutions=words.substitutions,
        deletions=words.deletions,
        insertions=words.insertions,
        hits=words.hits,
        characters=len(reference),
        character_errors=characters.substitutions + characters.deletions + characters.insertions,
    )


def total_errors(pairs: Iterable[tuple[str, str]]) -> Errors:
    """The summed errors of (reference, hypothesis) pairs that have a reference."""
    total = Errors()
    for reference, hypothesis in pairs:
        if reference.strip():
            total += word_errors(reference, hypothesis)
    return total


class AlignedWord(NamedTuple):
    """One column of an alignment; a missing word is shown as asterisks."""

    reference: str
    hypothesis: str
    mark: str  # S, D or I; empty if the words are equal


def aligned_words(reference: str, hypothesis: str) -> list[AlignedWord]:
    """The words of both texts in their best alignment."""
    expected = reference.split()
    found = hypothesis.split()
    result = jiwer.process_words(" ".join(expected), " ".join(found))
    columns = []
    for chunk in result.alignments[0]:
        mark = "" if chunk.type == "equal" else chunk.type[0].upper()
        pairs = zip_longest(
            expected[chunk.ref_start_idx : chunk.ref_end_idx],
            found[chunk.hyp_start_idx : chunk.hyp_end_idx],
            fillvalue="",
        )
        for left, right in pairs:
            missing = "*" * max(len(left), len(right))
            columns.append(AlignedWord(left or missing, right or missing, mark))
    return columns
