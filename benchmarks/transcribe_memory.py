"""The memory that `omni-avsr transcribe` takes for long files, which should not grow with them.

    python -m benchmarks.transcribe_memory --minutes 10,60

The files are mouth videos with sound: clips of the toy corpus, one after another, with pauses
between them. Each length is transcribed in a process of its own. Measured on two cores: 861 MiB at
10 minutes, 947 at 60 and 943 at 120, of which 530 are libraries and the model; 76 and 79 times real
time.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from omni_avsr import transcribe
from omni_avsr.media import streams
from omni_avsr.tasks import SAMPLES_PER_VIDEO_FRAME, VIDEO_FPS
from omni_avsr.toy import generate_shards

MODULE = "benchmarks.transcribe_memory"
PAUSE = 20  # frames
CLIPS = 100


def main(
    minutes: Annotated[str, typer.Option(help="Lengths of the files.")] = "10,60",
    task: Annotated[str, typer.Option(help="asr, vsr or avsr.")] = "avsr",
) -> None:
    """Prints peak memory and speed for each length."""
    with tempfile.TemporaryDirectory() as folder:
        for length in minutes.split(","):
            file = long_file(Path(folder) / f"{length}.mp4", float(length))
            command = [sys.executable, "-m", MODULE, "one", str(file), task]
            subprocess.run(command, check=True)


def long_file(file: Path, minutes: float) -> Path:
    """Writes a file of toy speech of this length."""
    sounds, mouths = [], []
    silence = np.zeros(PAUSE * SAMPLES_PER_VIDEO_FRAME, np.int16)
    for clip in generate_shards("grid", "test", CLIPS, 0):
        still = np.repeat(clip.video[-1:], PAUSE, 0)
        sounds += [clip.audio, silence]
        mouths += [clip.video, still]
    frames = round(minutes * 60 * VIDEO_FPS)
    sound = np.resize(np.concatenate(sounds), frames * SAMPLES_PER_VIDEO_FRAME)
    video = _Repeated(np.concatenate(mouths), frames)
    streams.write_video(file, video, sound)  # type: ignore[arg-type]  # only iterated over
    return file


class _Repeated:
    """Frames again and again, without a copy of them, as far as `write_video` needs an array."""

    def __init__(self, frames: np.ndarray, count: int):
        self.frames = frames
        self.shape = (count, *frames.shape[1:])
        self.ndim = frames.ndim

    def __iter__(self) -> Iterator[np.ndarray]:
        for index in range(self.shape[0]):
            yield self.frames[index % len(self.frames)]


def one(file: str, task: str) -> None:
    """Transcribes one file and prints what it took."""
    started = time.perf_counter()
    transcript = transcribe(file, task=task, checkpoint="tiny")
    seconds = time.perf_counter() - started
    length = transcript.segments[-1].end
    print(
        f"{length / 60:.0f} minutes: peak {peak_memory():.0f} MiB, "
        f"{len(transcript.segments)} windows, {seconds:.0f} s, "
        f"{length / seconds:.1f} times real time",
        flush=True,
    )


def peak_memory() -> float:
    """Returns the MiB of this process.

    ru_maxrss would be those of the process that started it, if that had more.
    """
    status = Path("/proc/self/status").read_text()
    _, _, peak = status.partition("VmHWM:")
    kibibytes, *_ = peak.split()
    return int(kibibytes) / 1024


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        one(*sys.argv[2:])
    else:
        typer.run(main)
