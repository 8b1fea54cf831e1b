"""The words of a transcript: when each is said, and how sure the model is of it.

The aligner names a character somewhere inside of it. So the end of a word's last character and the
start of the next word's first are both guesses of the one moment between the two words.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np

from omni_avsr.decode.decode import Decoded
from omni_avsr.decode.transcripts import Word
from omni_avsr.model import OmniAVSRProcessor
from omni_avsr.model.aligner import Aligner, Span, spans
from omni_avsr.tasks import AUDIO_FPS

LATE = 0.03  # seconds from the start of a word until its first character is named, as measured
PAUSE = 0.3  # seconds between two named characters, from which on nothing is said between them
SHORTEST = 1 / AUDIO_FPS  # seconds of a word

Times = tuple[float, float]  # start and end in seconds


def words_of(
    aligner: Aligner,
    named: np.ndarray,
    decoded: Decoded,
    processor: OmniAVSRProcessor,
    start: float,
    begun: Sequence[str] = (),
) -> tuple[Word, ...]:
    """The words of what was decoded, which is said from `start` on, in frames as `named`.

    Words that it has begun with are found, too, but left out. A word that the aligner cannot place
    has the time between its neighbours, and no probability.
    """
    words = decoded.text.split()
    times = word_times(aligner, named, [*begun, *words])
    probabilities = processor.word_probabilities(decoded.ids, decoded.sums)
    found = []
    for number, (word, sure) in enumerate(zip(words, probabilities, strict=True), len(begun)):
        is_placed = number in times
        between = _gap(times, number, len(named) / AUDIO_FPS)
        begin, end = [round(start + time, 3) for time in times.get(number, between)]
        found.append(Word(word, begin, end, round(sure, 4) if is_placed else None))
    return tuple(found)


def _gap(times: Mapping[int, Times], number: int, seconds: float) -> Times:
    """The time between the words before and after one that cannot be placed."""
    before = [end for place, (_, end) in times.items() if place < number]
    after = [start for place, (start, _) in times.items() if place > number]
    return max(before, default=0.0), min(after, default=seconds)


def word_times(aligner: Aligner, named: np.ndarray, words: Sequence[str]) -> dict[int, Times]:
    """The times of each word that can be placed, by its number."""
    classes = [aligner.classes_of(word) for word in words]
    placed = [number for number, own in enumerate(classes) if own]
    found = spans(named, [one for own in classes for one in own])
    if found is None:
        return {}
    characters = iter(found)
    rows = [[next(characters) for _ in classes[number]] for number in placed]
    return dict(zip(placed, _boundaries(rows), strict=True))


def _boundaries(words: Sequence[Sequence[Span]]) -> Iterator[Times]:
    """The times of words, given the frames of their characters."""
    if not words:
        return
    start = max(0.0, words[0][0][0] / AUDIO_FPS - LATE)
    for word, following in pairwise(words):
        end, begin = _between(word, following)
        yield start, end
        start = begin
    yield start, words[-1][-1][1] / AUDIO_FPS


def _between(word: Sequence[Span], following: Sequence[Span]) -> Times:
    """When a word ends and the following one begins: without a pause, at the same moment."""
    last = word[-1][1] / AUDIO_FPS
    first = following[0][0] / AUDIO_FPS
    begin = max(first - LATE, word[0][0] / AUDIO_FPS + SHORTEST)
    if first - last > PAUSE:
        return last, begin
    if len(following) == 1:  # a character that is a word is named anywhere inside of it
        return last, last
    return begin, begin
