"""A server under half an hour of everything: clips, long sounds, speech, garbage, hang-ups.

python -m tests.stress.soak
"""

import random
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import httpx
import numpy as np
import typer

from benchmarks.serve import PATH, listen, server
from omni_avsr.media import streams
from omni_avsr.tasks import SAMPLE_RATE
from omni_avsr.toy import ToyClip, generate_shards
from tests.support.fuzzing import damaged
from tests.support.serving import ANSWERS, CLIPS, memory

AT_A_TIME = 6
SAMPLES = 60  # of the memory
TOLERANCE = 1.05  # by how much memory may grow from the second fifth of the time to the last


class Clients:
    """What clients of all kinds send to a server."""

    def __init__(self, address: str, toys: list[ToyClip], long: bytes):
        self.address = address
        self.toys = toys
        self.long = long
        self.clips = [file.read_bytes() for file in CLIPS]
        self.kinds: dict[Callable[[random.Random], str], int] = {
            self.send_clip: 50,
            self.send_garbage: 30,
            self.hang_up: 15,
            self.send_long: 3,
            self.speak: 2,
        }

    def one(self, number: int) -> str:
        """Does something; what it is depends on its number alone."""
        chance = random.Random(number)
        (kind,) = chance.choices(list(self.kinds), list(self.kinds.values()))
        return kind(chance)

    def send_clip(self, chance: random.Random) -> str:
        """A clip in one of the formats, on one of the tasks."""
        fields = {
            "task": chance.choice(["auto", "asr", "vsr", "avsr"]),
            "response_format": chance.choice(["json", "text", "srt", "vtt", "verbose_json"]),
            "rates": chance.choice(["", "auto"]),
        }
        if fields["response_format"] == "json":
            fields["stream"] = chance.choice(["false", "true"])
        given = {name: value for name, value in fields.items() if value}
        answer = self.post(chance.choice(self.clips), given)
        assert answer.status_code == 200, answer.text
        return "clip"

    def send_garbage(self, chance: random.Random) -> str:
        """A damaged file, or none at all."""
        content = chance.choice(
            [damaged(chance.choice(self.clips), chance), chance.randbytes(chance.randrange(99_999))]
        )
        answer = self.post(content, {})
        assert answer.status_code in ANSWERS, answer.text
        return f"garbage, {answer.status_code}"

    def hang_up(self, chance: random.Random) -> str:
        """A client that goes: while it sends, or while it waits."""
        content = self.long if chance.random() < 0.5 else chance.choice(self.clips)
        request = httpx.Request("POST", self.address + PATH, files={"file": content})
        lines = [f"{name}: {value}" for name, value in request.headers.items()]
        head = "\r\n".join([f"POST {PATH} HTTP/1.1", *lines, "", ""]).encode()
        whole = head + request.read()
        most = len(whole) if chance.random() < 0.5 else chance.randrange(len(whole))
        with socket.create_connection((request.url.host, request.url.port)) as connection:
            connection.sendall(whole[:most])
            time.sleep(chance.random())
        return "hang-up"

    def send_long(self, _: random.Random) -> str:
        """A recording of minutes."""
        answer = self.post(self.long, {"task": "asr"})
        assert answer.status_code == 200, answer.text
        return "long"

    def speak(self, chance: random.Random) -> str:
        """Someone who speaks, and is captioned."""
        first = chance.randrange(len(self.toys) - 2)
        assert listen(self.address, self.toys[first : first + 2])
        return "speech"

    def post(self, content: bytes, fields: dict[str, str]) -> httpx.Response:
        url = self.address + PATH
        return httpx.post(url, files={"file": content}, data=fields, timeout=600)


def main(minutes: Annotated[float, typer.Option(help="How long it lasts.")] = 30.0) -> None:
    """Prints what was sent and the memory, or fails with the first that is the server's fault."""
    toys = list(generate_shards("open", "test", 48, seed=0, processes=1))
    with server() as (address, process), ThreadPoolExecutor(AT_A_TIME) as pool:
        clients = Clients(address, toys, _long(toys))
        held: list[float] = []
        ended = threading.Event()
        every = 60 * minutes / SAMPLES
        threading.Thread(target=_watch, args=[process, held, ended, every], daemon=True).start()
        sent: Counter[str] = Counter()
        until = time.monotonic() + 60 * minutes
        number = 0
        while time.monotonic() < until:
            sent.update(pool.map(clients.one, range(number, number + 100)))
            number += 100
        ended.set()
    left = list(Path(tempfile.gettempdir()).glob("omni-avsr-*"))
    assert not left, f"{len(left)} uploads were kept"
    print(dict(sorted(sent.items())))
    print("MiB:", *(f"{one:.0f}" for one in held))
    fifth = len(held) // 5
    before, after = np.mean(held[fifth : 2 * fifth]), np.mean(held[-fifth:])
    assert after < TOLERANCE * before, "memory grows"


def _watch(process: int, held: list[float], ended: threading.Event, every: float) -> None:
    """Notes the memory of a process every so many seconds."""
    while not ended.wait(every):
        held.append(memory(process))


def _long(toys: list[ToyClip]) -> bytes:
    """A sound of three minutes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "long.wav"
        spoken = np.concatenate([toy.audio for toy in toys])
        streams.write_audio(file, np.resize(spoken, 180 * SAMPLE_RATE))
        return file.read_bytes()


if __name__ == "__main__":
    typer.run(main)
