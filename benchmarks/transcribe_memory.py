"""The memory that `omni-avsr transcribe` takes for long files: it should not grow with their length.

    python -m benchmarks.transcribe_memory --minutes 10,60

Clips of the toy corpus, one after another with pauses between them, as one mouth video with sound; each length in a
process of its own. Measured on two cores: 861 MiB at 10 minutes, 947 at 60, 943 at 120, of which 530 are libraries and
the model; 76 and 79 times real time.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from omni_avsr import transcribe
from omni_avsr.media import streams as media
from omni_avsr.tasks import SAMPLES_PER_VIDEO_FRAME, VIDEO_FPS
from omni_avsr.toy import generate_shards

PAUSE = 20  # frames
CLIPS = 100


def main(minutes: Annotated[str, typer.Option(help="Lengths of the files.")] = "10,60", task: str = "avsr") -> None:
    """Prints peak memory and speed for each length."""
    with tempfile.TemporaryDirectory() as folder:
        for length in map(float, minutes.split(",")):
            file = long_file(Path(folder) / f"{length:g}.mp4", length)
            subprocess.run([sys.executable, "-m", "benchmarks.transcribe_memory", "one", str(file), task], check=True)


def long_file(file: Path, minutes: float) -> Path:
    """A file of toy speech of this length."""
    sounds, mouths = [], []
    for clip in generate_shards("grid", "test", CLIPS, 0):
        still = np.repeat(clip.video[-1:], PAUSE, 0)
        sounds += [clip.audio, np.zeros(PAUSE * SAMPLES_PER_VIDEO_FRAME, np.int16)]
        mouths += [clip.video, still]
    sound, mouth = np.concatenate(sounds), np.concatenate(mouths)
    frames = round(minutes * 60 * VIDEO_FPS)
    media.write_video(file, _Repeated(mouth, frames), np.resize(sound, frames * SAMPLES_PER_VIDEO_FRAME))
    return file


class _Repeated:
    """Frames again and again, without a copy of them."""

    def __init__(self, frames: np.ndarray, count: int):
        self.frames, self.shape, self.ndim = frames, (count, *frames.shape[1:]), 3

    def __iter__(self):
        return (self.frames[i % len(self.frames)] for i in range(self.shape[0]))


def one(file: str, task: str) -> None:
    """Transcribes one file and prints what it took."""
    started = time.perf_counter()
    transcript = transcribe(file, task=task, checkpoint="tiny")
    seconds, peak = time.perf_counter() - started, _peak()
    length = transcript.segments[-1].end
    print(
        f"{length / 60:.0f} minutes: peak {peak:.0f} MiB, {len(transcript.segments)} windows, "
        f"{seconds:.0f} s, {length / seconds:.1f} times real time",
        flush=True,
    )


def _peak() -> float:
    """MiB of this process; ru_maxrss would be that of the process that started it, if it was larger."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        one(*sys.argv[2:])
    else:
        typer.run(main)
