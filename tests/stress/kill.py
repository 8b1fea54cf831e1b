"""A training run is killed at random moments and started again until it ends, as an undisturbed one does, bit by bit.

python -m tests.stress.kill
"""

import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from omni_avsr.train.resume import finished
from tests.support.runs import assert_same

TOY = ["--toy-clips", "64", "--max-frames", "400", "--valid-clips", "4", "--logger", "csv", "--cache-copies", "0"]


def main(
    steps: Annotated[int, typer.Option(help="Optimizer steps of the run.")] = 300,
    longest: Annotated[float, typer.Option(help="Seconds that the run lives at most before it is killed.")] = 20.0,
    seed: int = 0,
) -> None:
    """Prints how often it was killed, or fails with what differs."""
    chance = random.Random(seed)
    options = [*TOY, "--max-steps", str(steps), "--valid-every", "20", "--save-every", "5"]
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        subprocess.run([*command(whole), *options], check=True, capture_output=True)
        kills, started = 0, time.perf_counter()
        while not ((killed / "run.json").is_file() and finished(killed)):
            run = subprocess.Popen([*command(killed), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                run.wait(chance.uniform(5, longest))
            except subprocess.TimeoutExpired:
                run.send_signal(signal.SIGKILL)
                run.wait()
                kills += 1
        assert_same(whole, killed)
        print(f"killed {kills} times in {time.perf_counter() - started:.0f} s; weights and metrics are the same")


def command(out: Path) -> list[str]:
    """The training of this run."""
    return [sys.executable, "-m", "omni_avsr", "train", "--out", str(out)]


if __name__ == "__main__":
    typer.run(main)
