"""Kills a training run at random moments and starts it again until it has finished.

It has to end with the weights and metrics of a run that was never killed, bit by bit.

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

from omni_avsr.run import is_trained
from tests.support.runs import assert_same

SHORTEST = 5.0  # seconds that the run lives before it is killed
OPTIONS = [
    *("--toy-clips", "64"),
    *("--max-frames", "400"),
    *("--valid-clips", "4"),
    *("--valid-every", "20"),
    *("--save-every", "5"),
    *("--cache-copies", "0"),
    *("--logger", "csv"),
]


def main(
    steps: Annotated[int, typer.Option(help="Optimizer steps of the run.")] = 300,
    longest: Annotated[
        float, typer.Option(help="Seconds that the run lives at most before it is killed.")
    ] = 20.0,
    seed: Annotated[int, typer.Option(help="Seed of the moments.")] = 0,
) -> None:
    """Prints how often the run was killed, or fails with what differs."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        killed = Path(folder) / "killed"
        subprocess.run(command(whole, steps), check=True, capture_output=True)
        kills = 0
        started = time.perf_counter()
        while not is_trained(killed):
            if was_killed(command(killed, steps), chance.uniform(SHORTEST, longest)):
                kills += 1
        seconds = time.perf_counter() - started
        assert_same(whole, killed)
    print(f"killed {kills} times in {seconds:.0f} s; weights and metrics are the same")


def command(out: Path, steps: int) -> list[str]:
    """The training of this run."""
    train = [sys.executable, "-m", "omni_avsr", "train"]
    return [*train, "--out", str(out), "--max-steps", str(steps), *OPTIONS]


def was_killed(command: list[str], seconds: float) -> bool:
    """Runs the command for at most so many seconds; returns whether it had to be killed."""
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        code = run.wait(seconds)
    except subprocess.TimeoutExpired:
        run.send_signal(signal.SIGKILL)
        run.wait()
        return True
    assert code == 0, f"{' '.join(command)} failed with exit code {code}"
    return False


if __name__ == "__main__":
    typer.run(main)
