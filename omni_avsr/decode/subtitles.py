"""Segments as subtitles: at most two lines of 42 characters for 7 seconds, as guides ask."""

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from omni_avsr.decode.transcripts import Segment, Word

LONGEST_LINE = 42  # characters
LONGEST = 7.0  # seconds
CLAUSE_ENDS = ".,;:?!…"


@dataclass(frozen=True)
class Cue:
    """What is shown at a time."""

    start: float  # seconds, as is the end
    end: float
    text: str  # in lines


def cues(segment: Segment, format: str, highlight: bool = False) -> Iterator[Cue]:
    """The subtitles of a segment; it stays whole if the times of its words are not known.

    In VTT, each word can be marked with the time at which it is to be highlighted.
    """
    words = segment.words
    if not words or all(word.probability is None for word in words):
        yield Cue(segment.start, segment.end, _escaped(segment.text, format))
        return
    for part in _parts(words):
        lines = []
        for line in _lines(part):
            shown = [_escaped(word.word, format) for word in line]
            if highlight and format == "vtt":
                # The first word is said when its cue begins, which has that time already
                marks = ["" if word is part[0] else f"<{clock(word.start, '.')}>" for word in line]
                shown = [mark + word for mark, word in zip(marks, shown, strict=True)]
            lines.append(" ".join(shown))
        yield Cue(part[0].start, part[-1].end, "\n".join(lines))


def _parts(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    """The words in parts that fit into a cue, cut where it is easiest to read."""
    if len(words) == 1 or _fits(words):
        yield words
        return
    place = max(range(1, len(words)), key=lambda place: _worth(words, place))
    yield from _parts(words[:place])
    yield from _parts(words[place:])


def _fits(words: Sequence[Word]) -> bool:
    longest = max(_length(line) for line in _lines(words))
    return longest <= LONGEST_LINE and words[-1].end - words[0].start <= LONGEST


def _worth(words: Sequence[Word], place: int) -> float:
    """How good it is to cut before this word: at the end of a clause, in a pause, in the middle."""
    before, after = words[place - 1], words[place]
    ends_clause = before.word[-1] in CLAUSE_ENDS
    pause = min(after.start - before.end, 1.0)
    return ends_clause + pause - abs(place / len(words) - 0.5)


def _lines(words: Sequence[Word]) -> list[Sequence[Word]]:
    """One line, or two that are as equal as can be."""
    if len(words) == 1 or _length(words) <= LONGEST_LINE:
        return [words]
    places = range(1, len(words))
    best = min(places, key=lambda place: max(_length(words[:place]), _length(words[place:])))
    return [words[:best], words[best:]]


def _length(words: Sequence[Word]) -> int:
    return len(" ".join(word.word for word in words))


def _escaped(text: str, format: str) -> str:
    return html.escape(text, quote=False) if format == "vtt" else text


def written(cue: Cue, format: str, number: int) -> str:
    """A cue as SRT or WebVTT, after what stands between it and the one before."""
    mark = "," if format == "srt" else "."
    times = f"{clock(cue.start, mark)} --> {clock(cue.end, mark)}"
    before = "" if format == "srt" and number == 1 else "\n"
    return f"{before}{number}\n{times}\n{cue.text}"


def clock(seconds: float, mark: str) -> str:
    """Hours, minutes, seconds and, after the mark, milliseconds: 01:02:03,456."""
    whole_seconds, milliseconds = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(whole_seconds, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours:02}:{minute:02}:{second:02}{mark}{milliseconds:03}"
