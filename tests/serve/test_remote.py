"""A server whose LLM runs in an engine."""

import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from omni_avsr import Transcriber
from omni_avsr.convert.vllm import export_vllm
from omni_avsr.media import streams
from omni_avsr.settings import ServeSettings
from tests.support.engine import ReferenceEngine, engine
from tests.support.serving import served

CLIP = sorted(Path("omni_avsr/serve/clips").iterdir())[-1]
SAID = "my happy judge danced quickly beside the town"


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "vllm"
    export_vllm("tiny", folder)
    return folder, ReferenceEngine(folder)


@pytest.fixture
def server(reference):
    """The engine, and the address of a server that sends it prefixes."""
    folder, own = reference
    with engine(own) as address:
        transcriber = Transcriber(folder / "front", engine_url=address, download=False)
        with served(transcriber, ServeSettings(engine_url=address)) as listens:
            yield own, listens


def ask(address, **fields):
    with CLIP.open("rb") as file:
        url = f"http://{address}/v1/audio/transcriptions"
        return httpx.post(url, files={"file": file}, data=fields, timeout=60)


def test_an_upload_is_transcribed_on_any_task(server):
    reference, address = server
    for task in ("asr", "avsr"):
        assert ask(address, task=task).json()["text"] == SAID
        assert reference.asked[-1]["model"] == f"shared-{task}"


def test_beams_are_refused(server):
    answer = ask(server[1], beams=5)
    assert answer.status_code == 400
    assert "an engine decodes greedily" in answer.json()["error"]["message"]


def test_an_engine_that_fails_is_no_fault_of_the_client(server, monkeypatch):
    reference, address = server
    monkeypatch.setattr(reference, "complete", lambda asked: 1 / 0)
    answer = ask(address)
    assert answer.status_code == 502
    assert answer.json()["error"]["message"] == "the engine of the language model failed"
    events = ask(address, stream="true").text
    assert '"type": "error"' in events
    monkeypatch.undo()
    assert ask(address).json()["text"] == SAID


def test_one_window_that_fails_is_nobody_elses_fault(server, monkeypatch):
    reference, address = server
    complete, waiting = reference.complete, threading.Barrier(4)
    first = iter([True])

    def fails_once(asked):
        waiting.wait(60)  # until all four are there
        return complete(asked) if next(first, False) is False else 1 / 0

    monkeypatch.setattr(reference, "complete", fails_once)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ask(address, task="asr"), range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 502]


def test_captions_come_from_the_engine(server):
    _, address = server
    sound = (streams.read_audio(CLIP) * 32767).astype("<i2")
    with connect(f"ws://{address}/v1/realtime") as client:
        client.recv()
        client.send(json.dumps({"type": "session.update", "task": "asr"}))
        coded = base64.b64encode(sound.tobytes()).decode()
        client.send(json.dumps({"type": "input_audio_buffer.append", "audio": coded}))
        client.send(json.dumps({"type": "input_audio_buffer.commit"}))
        events = [json.loads(message) for message in client]
    assert events[-1] == {"type": "transcription.done", "text": SAID}
