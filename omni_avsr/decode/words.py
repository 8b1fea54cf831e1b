"""The words of a transcript: when each is said, and how sure the model is of it.

The aligner names a character somewhere inside of it. So the end of a word's last character and the
start of the next word's first are both guesses of the one moment between the two words.
"""

from collections.abc import Iterator, Sequence

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
    has the times of the whole, and no probability.
    """
    words = decoded.text.split()
    whole = (0.0, len(named) / AUDIO_FPS)
    times = word_times(aligner, named, [*begun, *words])
    probabilities = processor.word_probabilities(decoded.ids, decoded.sums)
    found = []
    for number, (word, sure) in enumerate(zip(words, probabilities, strict=True), len(begun)):
        begin, end = [round(start + time, 3) for time in times.get(number, whole)]
        probability = round(sure, 4) if number in times else None
        found.append(Word(word, begin, end, probability))
    return tuple(found)


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
    """The times of words, given the frames of their characters.

    Words without a pause between them share a boundary.
    """
    first = [characters[0][0] / AUDIO_FPS for characters in words]
    last = [characters[-1][1] / AUDIO_FPS for characters in words]
    start = max(0.0, first[0] - LATE) if words else 0.0
    for number in range(len(words)):
        end = following = last[number]
        if number + 1 < len(words):
            following = max(first[number + 1] - LATE, first[number] + SHORTEST)
            if first[number + 1] - end <= PAUSE:
                # A word of one character is named anywhere inside of it
                if len(words[number + 1]) == 1:
                    following = end
                end = following
        yield start, end
        start = following
