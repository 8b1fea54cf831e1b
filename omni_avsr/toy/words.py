"""When each word of a clip is said, and the file beside the labels that tells it."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from omni_avsr.files import read_rows
from omni_avsr.toy.phones import SILENCE, Phoneme, phoneme_class


class Word(NamedTuple):
    """A word of a clip."""

    start: float  # seconds
    end: float  # seconds
    text: str


def timed_words(
    text: str, starts: Mapping[int, float], phonemes: Sequence[Phoneme]
) -> list[Word] | None:
    """Returns the words of a text, given the starts of those that begin at these characters.

    A word lasts until the next one or until a silence. There are no times if a word has no start,
    as espeak says some words as one.
    """
    silences = [start for start, _, name in phonemes if phoneme_class(name) == SILENCE]
    found = list(re.finditer(r"\S+", text))
    if any(word.start() not in starts for word in found):
        return None
    begins = [starts[word.start()] for word in found]
    words = []
    for word, start, following in zip(found, begins, [*begins[1:], None], strict=True):
        limits = [silence for silence in silences if silence > start]
        if following is not None:
            limits.append(following)
        words.append(Word(start, min(limits), word[0]))
    return words


def times_path(labels: Path) -> Path:
    """Returns the file of word times that belongs to a label file of the toy corpus."""
    return labels.with_name(labels.name.replace("_transcript_lengths_seg16s.csv", "_words.jsonl"))


def times_row(video: str, words: Sequence[Word] | None) -> str:
    """Returns a clip's line of that file, in milliseconds; words are null if espeak joined some."""
    rows = None
    if words is not None:
        rows = []
        for word in words:
            start, end = round(word.start, 3), round(word.end, 3)
            rows.append({"word": word.text, "start": start, "end": end})
    return json.dumps({"video": video, "words": rows}, ensure_ascii=False) + "\n"


def word_times(labels: Path) -> dict[str, list[Word] | None]:
    """Returns the words of each clip of a label file, by the id that `manifest.read` gives it."""
    clips: dict[str, list[Word] | None] = {}
    for row in read_rows(times_path(labels)):
        name = str(Path(row["video"]).with_suffix(""))
        clips[name] = None
        if row["words"] is not None:
            clips[name] = [Word(word["start"], word["end"], word["word"]) for word in row["words"]]
    return clips
