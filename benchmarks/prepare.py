"""How fast one core makes mouth clips of raw video, and which step takes how long.

    python -m benchmarks.prepare --detector yunet_n_320_320.onnx

The videos are drawn faces, encoded as H.264. Figures are for one core; `omni-avsr prepare` uses
all. Measured on an x86-64 core with OpenCV 5: 117 frames per second (4.7 times real time) at
360 x 288, where detection is the slowest step (143 on its own), and 70 (2.8 times) at 900 x 720.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import cv2
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from omni_avsr.media import faces, mouth, streams
from omni_avsr.tasks import VIDEO_FPS
from omni_avsr.toy import lip_track, make_face
from omni_avsr.toy.phones import Phoneme
from omni_avsr.toy.portrait import render_face

FRAMES = 500
SIZES = ((288, 360), (720, 900))  # height and width in pixels
COLUMNS = ("video", "decode", "detect", "decode and warp", "encode", "all", "times real time")

Result = TypeVar("Result")


@dataclass(frozen=True)
class Timings:
    """Seconds of each step; detecting and warping include the decoding before it."""

    decode: float
    detect: float
    warp: float
    encode: float

    @property
    def all(self) -> float:
        """Seconds from raw video to mouth clip."""
        return self.detect + self.warp + self.encode


def main(
    detector: Annotated[Path | None, typer.Option(help="The face detector's file.")] = None,
    frames: Annotated[int, typer.Option(help="Frames of each video.")] = FRAMES,
) -> None:
    """Prints the frames per second of each step, and of all."""
    cv2.setNumThreads(1)
    table = Table(*COLUMNS, title="Frames per second")
    with tempfile.TemporaryDirectory() as folder:
        for height, width in SIZES:
            file = Path(folder) / "raw.mp4"
            write_raw_video(file, frames, (width, height))
            timings = measure(file, detector)
            steps = (timings.decode, timings.detect, timings.warp, timings.encode, timings.all)
            rates = [f"{frames / seconds:.0f}" for seconds in steps]
            real_time = frames / VIDEO_FPS / timings.all
            table.add_row(f"{width} x {height}", *rates, f"{real_time:.1f}")
    Console().print(table)


def write_raw_video(file: Path, frames: int, size: tuple[int, int]) -> None:
    """Writes a video of a drawn face; the size is width and height."""
    rng = np.random.default_rng(0)
    phonemes = []
    for index in range(frames // 5):
        sound = "a" if index % 2 else "m"
        begin = 0.2 * index  # seconds
        phonemes.append(Phoneme(begin, begin + 0.2, sound))
    track = lip_track(phonemes, frames, make_face(rng), rng)
    video, _ = render_face(track, seed=0)
    resized = [cv2.resize(frame, size) for frame in video]
    streams.write_video(file, np.stack(resized))


def measure(file: Path, detector: Path | None) -> Timings:
    """Makes the mouth clip of a video and times each step."""
    detect = faces.yunet(detector)

    def decode() -> int:
        return sum(1 for _ in streams.video_frames(file))

    def warp() -> np.ndarray:
        return np.stack(list(mouth.crops(streams.video_frames(file), found)))

    frames, decode_seconds = timed(decode)
    (tracks, _), detect_seconds = timed(
        lambda: faces.find(lambda: streams.video_frames(file), detect)
    )
    track = tracks[0]
    found = mouth.locate_mouth(track.frames, track.points, frames)
    crops, warp_seconds = timed(warp)
    clip = file.with_name("mouth.mp4")
    _, encode_seconds = timed(lambda: streams.write_video(clip, crops))
    return Timings(decode_seconds, detect_seconds, warp_seconds, encode_seconds)


def timed(work: Callable[[], Result]) -> tuple[Result, float]:
    """Returns the result of some work, and the seconds that it took."""
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


if __name__ == "__main__":
    typer.run(main)
