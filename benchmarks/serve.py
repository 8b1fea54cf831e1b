"""The server under load: requests per second and latency with more and more clients.

    python -m benchmarks.serve

Starts `omni-avsr serve` with the shipped model, and sends it toy clips with sound and lips. The
last rows are of a short clip while a long recording is transcribed, and of captions for several
people who speak at a time.
"""

import base64
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import httpx
import numpy as np
import typer
from websockets.sync.client import connect

from benchmarks import yardstick
from omni_avsr.media import streams
from omni_avsr.tasks import SAMPLE_RATE, SAMPLES_PER_VIDEO_FRAME, VIDEO_FPS
from omni_avsr.toy import ToyClip, generate_shards

PATH = "/v1/audio/transcriptions"
LOAD = ("clients", "requests", "a second", "median s", "95 % s", "99 % s")
WARM = 8  # requests before those that are timed
LIVE = ("live clients", "seconds late, mean", "95 %", "most")
FAIR = ("a short clip", "median s", "most s")


def main(
    clients: Annotated[str, typer.Option(help="Numbers of clients.")] = "1,4,16,64",
    clips: Annotated[int, typer.Option(help="Clips that are sent, at least one a client.")] = 96,
    live: Annotated[str, typer.Option(help="Numbers of live clients.")] = "1,4",
    minutes: Annotated[float, typer.Option(help="Length of the long recording.")] = 20.0,
) -> None:
    """Prints the tables."""
    with TemporaryDirectory() as folder, server() as (address, _):
        toys = list(generate_shards("open", "test", clips, seed=0, processes=1))
        contents = written(toys, Path(folder))
        client = httpx.Client(base_url=address, timeout=600)
        for content in contents[:WARM]:
            _ask(client, content)
        rows = [_load(client, contents, int(count)) for count in clients.split(",")]
        yardstick.show(yardstick.Sheet(f"Load, {yardstick.machine(2)}", LOAD, rows))
        long = Path(folder) / "long.wav"
        spoken = np.concatenate([clip.audio for clip in toys])
        streams.write_audio(long, np.resize(spoken, round(minutes * 60 * SAMPLE_RATE)))
        rows = _fairness(client, contents, long.read_bytes())
        yardstick.show(yardstick.Sheet("Beside a long recording", FAIR, rows))
        rows = [_live(address, toys, int(count)) for count in live.split(",")]
        yardstick.show(yardstick.Sheet("Live captions", LIVE, rows))


@contextmanager
def server(checkpoint: str = "tiny", *own: str) -> Iterator[tuple[str, int]]:
    """The address and the process of a server with some options of its own, while it is needed."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [sys.executable, "-m", "omni_avsr", "serve", "--checkpoint", checkpoint, *own]
    options = ["--port", str(port), "--max-requests", "128", "--no-download"]
    address = f"http://127.0.0.1:{port}"
    process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, env={**os.environ})
    try:
        while not answers(address):
            time.sleep(0.2)
        yield address, process.pid
    finally:
        process.terminate()
        process.wait()


def answers(address: str) -> bool:
    """Whether a server is there, and well."""
    try:
        return httpx.get(f"{address}/health").is_success
    except httpx.TransportError:
        return False


def written(clips: Sequence[ToyClip], folder: Path) -> list[bytes]:
    """The clips as the contents of video files."""
    contents = []
    for clip in clips:
        file = folder / "clip.mp4"
        streams.write_video(file, clip.video, clip.audio)
        contents.append(file.read_bytes())
    return contents


def _ask(client: httpx.Client, content: bytes) -> float:
    """The seconds of a request."""
    started = time.perf_counter()
    answer = client.post(PATH, files={"file": content})
    answer.raise_for_status()
    return time.perf_counter() - started


def _load(client: httpx.Client, contents: Sequence[bytes], clients: int) -> Sequence[str]:
    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        seconds = list(pool.map(lambda content: _ask(client, content), contents))
    rate = len(contents) / (time.perf_counter() - started)
    quantiles = [f"{np.percentile(seconds, share):.2f}" for share in (50, 95, 99)]
    return str(clients), str(len(contents)), f"{rate:.1f}", *quantiles


def _fairness(client: httpx.Client, contents: Sequence[bytes], long: bytes) -> list[Sequence[str]]:
    alone = [_ask(client, content) for content in contents[:10]]
    thread = threading.Thread(target=_ask, args=[client, long])
    thread.start()
    time.sleep(1)  # until it is decoded
    beside = []
    while thread.is_alive() and len(beside) < len(alone):
        beside.append(_ask(client, contents[len(beside)]))
    thread.join()
    rows = []
    for name, seconds in (("alone", alone), ("beside a long recording", beside)):
        rows.append((name, f"{np.median(seconds):.2f}", f"{np.max(seconds):.2f}"))
    return rows


def _live(address: str, clips: Sequence[ToyClip], clients: int) -> Sequence[str]:
    with ThreadPoolExecutor(clients) as pool:
        late = list(pool.map(lambda number: listen(address, clips[number:][:5]), range(clients)))
    seconds = [one for of_client in late for one in of_client]
    spread = np.mean(seconds), np.percentile(seconds, 95), np.max(seconds)
    return str(clients), *(f"{value:.2f}" for value in spread)


def listen(address: str, clips: Sequence[ToyClip]) -> list[float]:
    """How late words settle after their end, of clips that one client hears one after another."""
    late: list[float] = []
    begun = 0.0

    def hear() -> None:
        for message in client:
            event = json.loads(message)
            for word in event.get("words", []):
                late.append(time.perf_counter() - begun - word["end"])

    with connect(f"{address.replace('http', 'ws')}/v1/realtime") as client:
        client.recv()
        client.send(json.dumps({"type": "session.update", "task": "avsr"}))
        begun = time.perf_counter()
        thread = threading.Thread(target=hear)
        thread.start()
        frames = 0
        for clip in clips:
            sounds = clip.audio[: len(clip.video) * SAMPLES_PER_VIDEO_FRAME]
            for sound, mouth in zip(np.split(sounds, len(clip.video)), clip.video, strict=True):
                _send(client, "audio", sound.astype("<i2").tobytes())
                _send(client, "mouth", mouth.tobytes())
                frames += 1
                time.sleep(max(0.0, begun + frames / VIDEO_FPS - time.perf_counter()))
        client.send(json.dumps({"type": "input_audio_buffer.commit"}))
        thread.join()
    return late


def _send(client: "connect", name: str, content: bytes) -> None:
    kind = "input_audio_buffer.append" if name == "audio" else "input_video_buffer.append"
    coded = base64.b64encode(content).decode()
    client.send(json.dumps({"type": kind, name: coded}))


if __name__ == "__main__":
    typer.run(main)
