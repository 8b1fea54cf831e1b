"""A server gets damaged media by the thousand: each is answered, and it goes on serving.

python -m tests.stress.serve
"""

import random
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import httpx
import typer

from benchmarks.serve import PATH, server
from tests.support.fuzzing import damaged
from tests.support.serving import ANSWERS, CLIPS, memory

AT_A_TIME = 8


def main(
    uploads: Annotated[int, typer.Option(help="Damaged files.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the damage.")] = 0,
) -> None:
    """Prints the answers, or fails with the first that is the server's fault."""
    clips = [file.read_bytes() for file in CLIPS]
    started = time.perf_counter()
    with server() as (address, process):
        url = f"{address}{PATH}"

        def ask(number: int) -> int:
            chance = random.Random(f"{seed} {number}")
            content = damaged(chance.choice(clips), chance)
            name = chance.choice(["clip.mp4", "clip.wav", "../../etc/passwd", "\u202e4pm.gnp", ""])
            answer = httpx.post(url, files={"file": (name, content)}, timeout=120)
            assert answer.status_code in ANSWERS, f"upload {number}: {answer.text}"
            return answer.status_code

        ask(0)  # is warm now
        before = memory(process)
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            answers = Counter(pool.map(ask, range(uploads)))
        text = httpx.post(url, files={"file": clips[-1]}, timeout=60).json()["text"]
        after = memory(process)
    left = list(Path(tempfile.gettempdir()).glob("omni-avsr-*"))
    assert text == "my happy judge danced quickly beside the town"
    assert not left, f"{len(left)} uploads were kept"
    seconds = time.perf_counter() - started
    print(f"{dict(answers)} in {seconds:.0f} s, memory {before:.0f} MiB before, {after:.0f} after")


if __name__ == "__main__":
    typer.run(main)
