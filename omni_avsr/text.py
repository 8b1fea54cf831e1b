"""Text as it is scored: normalised, its errors counted, reference and hypothesis aligned."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass
from functools import cache
from itertools import zip_longest

import jiwer

from omni_avsr.tasks import NORMALISERS


@dataclass(frozen=True)
class Errors:
    """Counts of one clip or of many; they add up, rates do not."""

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
        """Character errors per reference character, spaces included; an empty reference counts as one character."""
        return self.character_errors / max(self.characters, 1)

    def __add__(self, other: "Errors") -> "Errors":
        return Errors(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


def normalise(text: str, how: str = "lower") -> str:
    """The text as it is scored, with single spaces.

    lower: in lower case. 13a: cut as mteval-v13a does, without punctuation, in lower case, as AV-HuBERT's and MuAViC's
    descendants score. whisper: Whisper's for English, but for British spellings, which stay.
    """
    if how == "13a":
        text = _thirteen_a(text)
    elif how == "whisper":
        text = _whisper()(text)
    elif how != "lower":
        raise ValueError(f"unknown normaliser {how!r}; available: {', '.join(NORMALISERS)}")
    return " ".join(text.lower().split())


def _thirteen_a(text: str) -> str:
    """Punctuation is cut off, but in numbers and words; then words without letters or digits are left out."""
    text = re.sub(r"([^\w\s.,'-])", r" \1 ", f" {text} ")
    text = re.sub(r"(?<!\d)([.,])|([.,])(?!\d)", r" \1\2 ", text)
    text = re.sub(r"(\d)-", r"\1 - ", text)
    return " ".join(word for word in text.split() if any(map(str.isalnum, word)))


@cache
def _whisper() -> Callable[[str], str]:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    return EnglishTextNormalizer({})


def word_errors(reference: str, hypothesis: str) -> Errors:
    """The errors of a hypothesis, both texts taken as they are but for the width of spaces."""
    reference, hypothesis = " ".join(reference.split()), " ".join(hypothesis.split())
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
    """The summed errors of (reference, hypothesis) pairs."""
    return sum((word_errors(reference, hypothesis) for reference, hypothesis in pairs), Errors())


def aligned_words(reference: str, hypothesis: str) -> list[tuple[str, str, str]]:
    """Word pairs of the best alignment with their mark: "" right, S, D or I; a missing word is as many stars."""
    said, heard = reference.split(), hypothesis.split()
    columns = []
    for chunk in jiwer.process_words(" ".join(said), " ".join(heard)).alignments[0]:
        ours = said[chunk.ref_start_idx : chunk.ref_end_idx]
        theirs = heard[chunk.hyp_start_idx : chunk.hyp_end_idx]
        mark = "" if chunk.type == "equal" else chunk.type[0].upper()
        for left, right in zip_longest(ours, theirs, fillvalue=""):
            columns.append((left or "*" * len(right), right or "*" * len(left), mark))
    return columns


def alignment(reference: str, hypothesis: str, width: int = 80) -> str:
    """Reference over hypothesis, word under word, and a line of marks below if they differ; for a terminal.

    What does not fit the width goes on in a further block.
    """
    return "\n".join(_block(columns) for columns in _fitted(aligned_words(reference, hypothesis), width - len("REF: ")))


def _block(columns: list[tuple[str, str, str]]) -> str:
    """Two or three lines: REF, HYP and the marks under them."""
    widths = [max(len(left), len(right)) for left, right, _ in columns]
    rows = zip(*columns, strict=True) if columns else ((), ())
    lines = [
        head + " ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for head, row in zip(("REF: ", "HYP: ", "     "), rows, strict=False)
    ]
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _fitted(columns: list[tuple[str, str, str]], width: int) -> Iterator[list[tuple[str, str, str]]]:
    """The columns in runs that fit the width, at least one column each."""
    run: list[tuple[str, str, str]] = []
    used = 0
    for column in columns:
        size = max(len(column[0]), len(column[1])) + 1
        if run and used + size > width + 1:
            yield run
            run, used = [], 0
        run.append(column)
        used += size
    yield run
