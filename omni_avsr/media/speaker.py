"""Chooses the face that speaks: one for a whole video, or one for each stretch of it."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from omni_avsr.media.faces import Track
from omni_avsr.tasks import VIDEO_FPS

MOTION_WINDOW = 5  # frames that mouth motion and loudness are averaged over
LEAST_CORRELATION = 0.01  # what a face scores whose mouth moves against the sound
SHORTEST = VIDEO_FPS // 2  # frames of a stretch, at least
PREFERENCE = 2  # how many times more than the latest speaker another face must score
LISTENING = 0.1  # share of what the speaker of a video scores, below which a face only listens


@dataclass(frozen=True)
class Stretch:
    """A part of a video in which one face speaks."""

    begin: int  # frame number, as is the end
    end: int
    track: Track


def speaking_face(tracks: Sequence[Track], loudness: np.ndarray | None) -> Track:
    """Returns the face that speaks: the one whose mouth moves most along with the loudness (T,).

    A face scores the correlation of mouth motion and loudness, times how much the mouth moves,
    times how long the face is seen. Without sound, the motion and the length decide.
    """
    if len(tracks) == 1:
        return tracks[0]
    last = max(track.frames[-1] for track in tracks)
    scores = _Scores(tracks, loudness, last + 1)
    return max(tracks, key=lambda track: scores.of(track, 0, last + 1))


def speaking_faces(
    tracks: Sequence[Track], frames: int, loudness: np.ndarray | None, silent: float, pause: int
) -> list[Stretch]:
    """Returns the stretches of a video of so many frames, each with the face that speaks in it.

    A stretch ends in a pause of at least so many frames that are less loud than `silent`, and where
    a face appears or is no longer seen. The face that spoke before is kept, even where it is not
    seen, unless another one scores clearly more, as `speaking_face` scores, and does not only
    listen.
    """
    scores = _Scores(tracks, loudness, frames)
    cuts = {0}
    for track in tracks:
        cuts |= {track.frames[0], track.frames[-1] + 1}
    if loudness is not None:
        cuts |= _middles_of_pauses(loudness[:frames] < silent, pause)
    chosen = speaking_face(tracks, loudness)
    least = LISTENING * scores.per_frame(chosen, 0, frames)
    found: list[Stretch] = []
    for begin, end in pairwise(_apart(cuts, frames)):
        shown = [track for track in tracks if track.frames[0] < end and begin <= track.frames[-1]]
        best = max(shown, key=lambda track: scores.of(track, begin, end), default=chosen)
        is_better = scores.of(best, begin, end) > PREFERENCE * scores.of(chosen, begin, end)
        if is_better and scores.per_frame(best, begin, end) > least:
            chosen = best
        if found and found[-1].track is chosen:
            begin = found.pop().begin
        found.append(Stretch(begin, end, chosen))
    return found


def _middles_of_pauses(silent: np.ndarray, pause: int) -> set[int]:
    """Returns the middle of each run of silent frames (T,) that is as long as a pause."""
    edges = np.flatnonzero(np.diff(silent, prepend=False, append=False))
    begins, ends = edges[::2], edges[1::2]
    middles = (begins + ends) // 2
    return set(middles[ends - begins >= pause].tolist())


def _apart(cuts: set[int], frames: int) -> list[int]:
    """Returns the cuts in order, without those that would make a stretch too short, and the end."""
    kept: list[int] = []
    for cut in sorted(cuts):
        if not kept or cut - kept[-1] >= SHORTEST:
            kept.append(cut)
    inside = [cut for cut in kept[1:] if cut <= frames - SHORTEST]
    return [0, *inside, frames]


class _Scores:
    """How well the mouth of each face goes with the loudness (T,) in a part of a video."""

    def __init__(self, tracks: Sequence[Track], loudness: np.ndarray | None, frames: int):
        self.motions = {track: _averaged(np.array(track.motion)) for track in tracks}
        self.loud = None if loudness is None else _of_length(_averaged(loudness), frames)

    def of(self, track: Track, begin: int, end: int) -> float:
        """Returns the score of a face in the frames from begin to end; 0 if it is not seen."""
        seen = _places(track, begin, end)
        return (seen.stop - seen.start) * self.per_frame(track, begin, end)

    def per_frame(self, track: Track, begin: int, end: int) -> float:
        """Returns its score in each of the frames that it is seen in, on average."""
        places = _places(track, begin, end)
        seen = track.frames[places]
        if not seen:
            return 0.0
        motion = self.motions[track][places]
        together = 1.0
        if self.loud is not None:
            together = max(_correlation(motion, self.loud[seen]), LEAST_CORRELATION)
        return together * float(motion.mean() + 1e-6)


def _places(track: Track, begin: int, end: int) -> slice:
    """Returns where the frames from begin to end are in a track."""
    return slice(bisect_left(track.frames, begin), bisect_left(track.frames, end))


def _averaged(values: np.ndarray) -> np.ndarray:
    """Returns the moving average (T,) of values (T,)."""
    window = np.ones(MOTION_WINDOW) / MOTION_WINDOW
    averaged = np.convolve(values, window, "same")  # as long as the longer of both
    return averaged[: len(values)]


def _of_length(values: np.ndarray, length: int) -> np.ndarray:
    """Returns the values cut off, or padded with zeros, to this length."""
    result = np.zeros(length)
    kept = values[:length]
    result[: len(kept)] = kept
    return result


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if len(first) < 3:
        return 0.0
    if first.std() < 1e-9 or second.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
