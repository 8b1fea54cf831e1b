"""When each word of a clip is said, and the file beside the labels that tells it."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from omni_avsr.files import read_rows
from omni_avsr.tasks import Row
from omni_avsr.toy.phones import SILENCE, Phoneme, phoneme_class


class Word(NamedTuple):
    """A word of a clip. Of words that espeak says as one, only where the first begins is known."""

    start: float | None  # seconds
    end: float | None  # seconds
    text: str

    def later(self, seconds: float) -> "Word":
        """Returns the word so much later."""
        start, end = [time if time is None else time + seconds for time in self[:2]]
        return Word(start, end, self.text)

    def as_row(self) -> Row:
        """Returns the word as it stands in a file, in milliseconds."""
        start, end = [time if time is None else round(time, 3) for time in self[:2]]
        return {"word": self.text, "start": start, "end": end}


def timed_words(text: str, starts: Mapping[int, float], phonemes: Sequence[Phoneme]) -> list[Word]:
    """Returns the words of a text, given the starts of those that begin at these characters.

    A word lasts until the next one or until a silence.
    """
    silences = [start for start, _, name in phonemes if phoneme_class(name) == SILENCE]
    found = list(re.finditer(r"\S+", text))
    begins = [starts.get(word.start()) for word in found]
    words = []
    for word, start, following in zip(found, begins, [*begins[1:], math.inf], strict=True):
        end = None
        if start is not None and following is not None:
            end = min([following, *(silence for silence in silences if silence > start)])
        words.append(Word(start, end, word[0]))
    return words


def times_path(labels: Path) -> Path:
    """Returns the file of word times that belongs to a label file of the toy corpus."""
    return labels.with_name(labels.name.replace("_transcript_lengths_seg16s.csv", "_words.jsonl"))


def times_row(video: str, words: Sequence[Word]) -> str:
    """Returns a clip's line of that file."""
    rows = [word.as_row() for word in words]
    return json.dumps({"video": video, "words": rows}, ensure_ascii=False) + "\n"


def word_times(labels: Path) -> dict[str, list[Word]]:
    """Returns the words of each clip of a label file, by the id that `manifest.read` gives it."""
    clips: dict[str, list[Word]] = {}
    for row in read_rows(times_path(labels)):
        name = str(Path(row["video"]).with_suffix(""))
        clips[name] = [Word(word["start"], word["end"], word["word"]) for word in row["words"]]
    return clips
