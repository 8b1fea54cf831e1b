"""The words of a transcript: when each is said, and how sure the model is of it.

The aligner names a character somewhere inside of it. So the end of a word's last character and the
start of the next word's first are both guesses of the one moment between the two words.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np

from omni_avsr.decode.confidence import probabilities
from omni_avsr.decode.decode import Decoded, Decoder
from omni_avsr.decode.transcripts import Word
from omni_avsr.model.aligner import Place
from omni_avsr.tasks import AUDIO_FPS, Task

LATE = 0.03  # seconds from the start of a word until its first character is named, as measured
PAUSE = 0.3  # seconds between two named characters, from which on nothing is said between them
SHORTEST = 1 / AUDIO_FPS  # seconds of a word
LEAST_HEARD = 0.05  # characters for one of the text; it is invented where fewer are heard

Times = tuple[float, float]  # start and end in seconds


def words_of(
    decoder: Decoder,
    task: Task,
    named: np.ndarray,
    decoded: Decoded,
    start: float,
    begun: Sequence[str] = (),
) -> tuple[Word, ...]:
    """The words of what was decoded, which is said from `start` on, in frames as `named`.

    There are none where nobody speaks, which a language model fills with words of its own.
    Words that it has begun with are found, too, but left out. A word that the aligner cannot place
    has the time between its neighbours, and no probability.
    """
    assert decoder.model.aligner is not None
    if decoder.model.aligner.heard(named, decoded.text) < LEAST_HEARD:
        return ()
    words = decoded.text.split()
    places = decoder.model.aligner.places(named, [*begun, *words])
    times = word_times(places)
    own = [places.get(number) for number in range(len(begun), len(begun) + len(words))]
    weights = decoder.model.config.calibration.get(task)
    sure = probabilities(decoder.evidence(decoded, own), weights)
    found = []
    for number, (word, probability) in enumerate(zip(words, sure, strict=True), len(begun)):
        between = _gap(times, number, len(named) / AUDIO_FPS)
        begin, end = [round(start + time, 3) for time in times.get(number, between)]
        found.append(Word(word, begin, end, probability))
    return tuple(found)


def _gap(times: Mapping[int, Times], number: int, seconds: float) -> Times:
    """The time between the words before and after one that cannot be placed."""
    before = [end for place, (_, end) in times.items() if place < number]
    after = [start for place, (start, _) in times.items() if place > number]
    return max(before, default=0.0), min(after, default=seconds)


def word_times(places: Mapping[int, Sequence[Place]]) -> dict[int, Times]:
    """The times of each word, by its number, given the places of its characters."""
    return dict(zip(places, _boundaries(list(places.values())), strict=True))


def _boundaries(words: Sequence[Sequence[Place]]) -> Iterator[Times]:
    if not words:
        return
    start = max(0.0, words[0][0].first / AUDIO_FPS - LATE)
    for word, following in pairwise(words):
        end, begin = _between(word, following)
        yield start, end
        start = begin
    yield start, words[-1][-1].end / AUDIO_FPS


def _between(word: Sequence[Place], following: Sequence[Place]) -> Times:
    """When a word ends and the following one begins: without a pause, at the same moment."""
    last = word[-1].end / AUDIO_FPS
    first = following[0].first / AUDIO_FPS
    begin = max(first - LATE, word[0].first / AUDIO_FPS + SHORTEST)
    if first - last > PAUSE:
        return last, begin
    if len(following) == 1:  # a character that is a word is named anywhere inside of it
        return last, last
    return begin, begin
