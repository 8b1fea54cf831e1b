"""The mouth of the face that speaks, while the frames come: it is known a fifth of a second later.

Of several faces it is the one whose mouth moves most; another one takes over where its mouth moves
twice as much.
"""

from collections import deque
from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from omni_avsr.media.faces import Detector, Track, same_faces
from omni_avsr.media.mouth import BRIDGED, SMOOTHING_REACH, locate_mouth
from omni_avsr.media.speaker import PREFERENCE
from omni_avsr.tasks import VIDEO_FPS

AHEAD = 5  # frames that the smoothing looks ahead
WATCHED = 2 * VIDEO_FPS  # frames over which mouths are compared, and that are remembered


class LiveMouth:
    """Follows the faces of a camera and crops the mouth of the one that speaks."""

    def __init__(self, detect: Detector):
        self.detect = detect
        self.tracks: list[Track] = []
        self.speaker: Track | None = None
        self.frames: deque[np.ndarray] = deque()  # that are not cropped yet
        self.count = 0  # frames that have come

    def crops(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray | None]:
        """Takes BGR frames (H, W, 3); yields the mouths (96, 96) that are known now.

        They are those of earlier frames; None where no face is seen.
        """
        for frame in frames:
            self._follow(frame)
            self.frames.append(frame)
            self.count += 1
            if len(self.frames) > AHEAD:
                yield self._next()

    def finish(self) -> Iterator[np.ndarray | None]:
        """Yields the mouths of the last frames."""
        while self.frames:
            yield self._next()

    def _follow(self, frame: np.ndarray) -> None:
        faces = self.detect(frame)
        if faces:
            grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
            known = same_faces(self.tracks, faces, self.count)
            for place, face in enumerate(faces):
                if place not in known:
                    known[place] = Track()
                    self.tracks.append(known[place])
                known[place].add(self.count, face, grey)
        first = self.count - WATCHED
        self.tracks = [track for track in self.tracks if track.frames[-1] >= first]
        for track in self.tracks:
            track.forget(first)
        self._choose()

    def _choose(self) -> None:
        """Takes the face that moves its mouth most, of those that are seen now if there are any."""
        seen = [track for track in self.tracks if track.frames[-1] >= self.count - AHEAD]
        if seen:
            self.speaker = max(seen, key=self._motion)
        elif self.speaker not in self.tracks:
            self.speaker = None

    def _motion(self, track: Track) -> float:
        """How much a mouth moves; that of the face that spoke before counts more."""
        return sum(track.motion) * (PREFERENCE if track is self.speaker else 1)

    def _next(self) -> np.ndarray | None:
        """The mouth in the earliest frame that is not cropped yet."""
        number = self.count - len(self.frames)
        frame = self.frames.popleft()
        if self.speaker is None:
            return None
        first = number - SMOOTHING_REACH
        lately = number - BRIDGED
        pairs = list(zip(self.speaker.frames, self.speaker.points, strict=True))
        near = [(at - first, points) for at, points in pairs if at >= lately]
        if not near:
            return None
        seen, points = zip(*near, strict=True)
        return locate_mouth(seen, points, SMOOTHING_REACH + 1 + AHEAD).crop(frame, SMOOTHING_REACH)
