"""How fast one core makes mouth clips of raw video, and what it spends its time on.

    python -m benchmarks.prepare --detector yunet_n_320_320.onnx

Drawn faces, 720p and 360 x 288, H.264. Figures are of one core; `omni-avsr prepare` uses all. Measured on an x86-64
core with OpenCV 5: 117 frames a second (4.7 times real time) at 360 x 288, of which detecting costs the most (143
alone), and 70 (2.8) at 900 x 720.
"""

import tempfile
import time
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from omni_avsr.media import mouth
from omni_avsr.media import streams as media
from omni_avsr.toy import make_face, render_face
from omni_avsr.toy.mouth import lip_track

FRAMES = 500


def main(
    detector: Annotated[str | None, typer.Option(help="The face detector's file.")] = None, frames: int = FRAMES
) -> None:
    """Prints frames a second of each step, and of all."""
    cv2.setNumThreads(1)
    table = Table("video", "decode", "detect", "decode and warp", "encode", "all: frames/s", "times real time")
    with tempfile.TemporaryDirectory() as folder:
        for size in ((288, 360), (720, 900)):
            seconds = measure(raw_video(Path(folder) / "x.mp4", frames, size), detector)
            rates = [f"{frames / value:.0f}" for value in seconds]
            total = frames / (seconds[1] + seconds[2] + seconds[3])  # finding a face decodes, too
            table.add_row(f"{size[1]} x {size[0]}", *rates, f"{total:.0f}", f"{total / 25:.1f}")
    Console().print(table)


def raw_video(file: Path, frames: int, size: tuple[int, int]) -> Path:
    """A drawn face of this size."""
    rng = np.random.default_rng(0)
    phonemes = [(0.2 * i, 0.2 * i + 0.2, "a" if i % 2 else "m") for i in range(frames // 5)]
    video = render_face(lip_track(phonemes, frames, make_face(rng), rng), seed=0)[0]
    media.write_video(file, np.stack([cv2.resize(frame, size[::-1]) for frame in video]))
    return file


def measure(file: Path, detector: str | None) -> list[float]:
    """Seconds of decoding, of decoding and detecting, of decoding and warping, and of encoding."""
    detect = mouth.yunet(detector)
    clock = [time.perf_counter()]
    count = sum(1 for _ in media.video_frames(file))
    clock.append(time.perf_counter())
    tracks, _ = mouth.follow(media.video_frames(file), detect)
    clock.append(time.perf_counter())
    found = mouth.locate_mouth(tracks[0], count)
    crops = np.stack(list(mouth.crops(media.video_frames(file), found)))
    clock.append(time.perf_counter())
    media.write_video(file.with_name("y.mp4"), crops)
    clock.append(time.perf_counter())
    return [float(s) for s in np.diff(clock)]


if __name__ == "__main__":
    typer.run(main)
