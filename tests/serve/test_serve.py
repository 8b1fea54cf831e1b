"""Clients of other people's making are served: OpenAI's, HTTP ones, and a WebSocket's."""

import base64
import importlib.util
import io
import json
import tempfile
import threading
import wave
from pathlib import Path

import cv2
import httpx
import numpy as np
import openai
import pytest
import srt
import webvtt
from starlette.testclient import TestClient
from websockets.sync.client import connect

from omni_avsr import Transcriber, transcribe
from omni_avsr.data import manifest
from omni_avsr.decode.live import Live
from omni_avsr.media import streams
from omni_avsr.run import no_progress
from omni_avsr.serve.app import create_app
from omni_avsr.settings import ServeSettings
from omni_avsr.settings.shared import ToyOptions
from omni_avsr.toy import toy_corpus
from tests.support.serving import served

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("espeakng_loader"), reason="no espeak: omni-avsr[toy]"
)


@pytest.fixture(scope="module")
def transcriber():
    return Transcriber("tiny", download=False)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Videos with sound, and what is said in them."""
    folder = tmp_path_factory.mktemp("clips")
    labels = toy_corpus(ToyOptions(toy_clips=240), ["test"], no_progress)["test"]
    found = []
    for clip in manifest.read(labels)[:4]:
        file = folder / f"{len(found)}.mp4"
        sound = (streams.read_audio(clip.audio) * 32767).round().astype(np.int16)
        streams.write_video(file, streams.read_video(clip.video), sound)
        found.append((file, clip.text))
    return found


@pytest.fixture(scope="module")
def address(transcriber):
    """Where a server listens that takes three requests at a time."""
    settings = ServeSettings(api_key="secret", max_requests=3, max_upload_mb=1, max_seconds=60)
    with served(transcriber, settings) as address:
        yield address


@pytest.fixture
def client(address):
    return openai.OpenAI(base_url=f"http://{address}/v1", api_key="secret", max_retries=0)


@pytest.fixture
def http(address):
    headers = {"authorization": "Bearer secret"}
    with httpx.Client(base_url=f"http://{address}", headers=headers, timeout=60) as client:
        yield client


def post(http, file, **fields):
    with file.open("rb") as content:
        return http.post("/v1/audio/transcriptions", files={"file": content}, data=fields)


def test_openais_client_sends_a_video_and_reads_words(client, clips):
    file, _ = clips[0]
    found = client.audio.transcriptions.create(
        model="tiny",
        file=file,
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    expected = transcribe(file, checkpoint="tiny")
    assert found.text == expected.text
    words = [(word.word, word.start, word.end) for word in found.words]
    assert words == [(word.word, word.start, word.end) for word in expected.words]
    assert found.segments[0].task == "avsr"
    assert client.models.list().data[0].id == client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError, match="there is no model 'large'"):
        client.models.retrieve("large")


def test_openais_client_reads_a_stream(client, clips):
    file, _ = clips[1]
    events = list(client.audio.transcriptions.create(model="tiny", file=file, stream=True))
    assert [event.type for event in events] == ["transcript.text.delta", "transcript.text.done"]
    assert events[0].delta == events[1].text == transcribe(file, checkpoint="tiny").text


def test_openais_client_reads_the_probabilities_of_tokens(client, clips):
    file, _ = clips[0]
    found = client.audio.transcriptions.create(model="tiny", file=file, include=["logprobs"])
    assert (
        "".join(one.token for one in found.logprobs).split() == found.text.replace(" ", "").split()
    )
    assert all(one.logprob <= 0 for one in found.logprobs)


def test_subtitles_are_read_by_their_own_parsers(http, clips):
    file, _ = clips[0]
    text = transcribe(file, checkpoint="tiny").text
    (cue,) = srt.parse(post(http, file, response_format="srt").text)
    assert cue.content.replace("\n", " ") == text
    (caption,) = webvtt.from_string(post(http, file, response_format="vtt").text)
    assert caption.text.replace("\n", " ") == text
    assert post(http, file, response_format="text").text == f"{text}\n"


def test_our_own_fields_choose_the_task_and_the_rates(http, clips):
    file, _ = clips[0]
    for fields in (
        {"task": "vsr", "video_rate": 5},
        {"task": "asr", "audio_rate": 16, "beams": 3},
        {"rates": "auto", "budget": 12},
    ):
        found = post(http, file, **fields)
        assert found.json() == {"text": transcribe(file, checkpoint="tiny", **fields).text}


def test_the_mouths_that_were_seen_are_sent_if_they_are_asked_for(http, clips):
    file, _ = clips[0]
    (segment,) = post(http, file, response_format="verbose_json", mouths="true").json()["segments"]
    assert (segment["audio_rate"], segment["video_rate"]) == (4, 2)
    seen = segment["mouths"]
    _, _, content = seen["picture"].partition("base64,")
    picture = np.frombuffer(base64.b64decode(content), np.uint8)
    sheet = cv2.imdecode(picture, cv2.IMREAD_GRAYSCALE)
    mouths = streams.read_video(file)[round(25 * segment["start"]) :]
    assert sheet.shape[1] == 25 * 96
    for place in (0, 24, 25, seen["frames"] - 1):
        top, left = 96 * (place // 25), 96 * (place % 25)
        shown = sheet[top : top + 96, left : left + 96].astype(float)
        assert np.abs(shown - mouths[place]).mean() < 3  # grey levels
    assert seen["squares"] == []  # as it is a mouth clip
    (segment,) = post(http, file, response_format="verbose_json").json()["segments"]
    assert "mouths" not in segment


def test_noise_is_mixed_in_and_can_be_heard(http, clips):
    file, _ = clips[0]
    fields = {"task": "asr", "response_format": "verbose_json"}
    clean, white, babble = (
        post(http, file, **fields, **noise).json()["segments"][0]["confidence"]
        for noise in ({}, {"snr": -5}, {"snr": -5, "noise": "babble"})
    )
    assert clean > max(white, babble)
    assert white != babble
    assert http.get("/page/noises").json() == ["white", "babble"]
    for kind in ("white", "babble"):
        with wave.open(io.BytesIO(http.get(f"/page/noises/{kind}").content)) as sound:
            assert (sound.getframerate(), sound.getnframes()) == (16_000, 160_000)
            samples = np.frombuffer(sound.readframes(160_000), "<i2") / 32767
            assert np.sqrt(np.mean(samples**2)) == pytest.approx(0.1, abs=0.01)
    assert http.get("/page/noises/music").status_code == 404


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"language": "en"}, "language", "leave it out"),
        ({"prompt": "hello"}, "prompt", "takes no prompt"),
        ({"temperature": "0.7"}, "temperature", "'0.7' is not '0'"),
        ({"response_format": "diarized_json"}, "response_format", "none of json"),
        ({"timestamp_granularities[]": "letter"}, "timestamp_granularities", "none of word"),
        ({"model": "whisper-1"}, "model", "is not 'tiny'"),
        ({"colour": "blue"}, "colour", "there is no field"),
        ({"include[]": "logprobs", "response_format": "text"}, "include", "as json only"),
        ({"audio_rate": "fast"}, "audio_rate", "is not a number"),
        ({"beams": "1000"}, "beams", "more than 32"),
        ({"mouths": "true"}, "mouths", "of verbose_json only"),
        ({"noise": "babble"}, "noise", "needs its snr"),
        ({"timestamp_granularities[]": "word"}, "timestamp_granularities", "verbose_json only"),
        ({"stream": "true", "response_format": "srt"}, "stream", "a stream is of text"),
        ({"noise": "music"}, "noise", "none of white, babble"),
        ({"audio_rate": "3"}, None, "audio rate 3 was not trained"),
        ({"budget": "12"}, None, "a budget is for auto"),
    ],
)
def test_what_cannot_be_done_is_refused_in_openais_shape(http, clips, fields, field, message):
    response = post(http, clips[0][0], **fields)
    error = response.json()["error"]
    assert response.status_code == 400
    assert (error["type"], error["param"]) == ("invalid_request_error", field)
    assert message in error["message"]


def test_files_that_cannot_be_read_are_the_clients_fault(http, client, clips, tmp_path):
    garbage = tmp_path / "garbage.mp4"
    garbage.write_bytes(bytes(range(256)) * 40)
    response = post(http, garbage)
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith("the file cannot be read")
    large = tmp_path / "large.wav"
    large.write_bytes(bytes(3 << 20))
    assert post(http, large).status_code == 413
    long = tmp_path / "long.wav"
    with wave.open(str(long), "wb") as out:
        out.setparams((1, 1, 8_000, 0, "NONE", ""))
        out.writeframes(bytes(8_000 * 70))
    assert "longer than the 60 seconds" in post(http, long).json()["error"]["message"]
    assert http.post("/v1/audio/transcriptions", data={"model": "tiny"}).status_code == 400
    with pytest.raises(openai.BadRequestError, match="cannot be read"):
        client.audio.transcriptions.create(model="tiny", file=garbage)
    assert post(http, clips[0][0]).status_code == 200


def test_without_its_key_nobody_is_served(address, clips):
    stranger = openai.OpenAI(base_url=f"http://{address}/v1", api_key="guess", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.audio.transcriptions.create(model="tiny", file=clips[0][0])
    assert httpx.get(f"http://{address}/health").json() == {"status": "ok"}


def test_requests_at_the_same_time_share_batches_and_have_their_own_texts(http, clips):
    texts: dict[int, str] = {}

    def ask(number):
        texts[number] = post(http, clips[number][0]).json()["text"]

    threads = [threading.Thread(target=ask, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(3):
        assert texts[number] == transcribe(clips[number][0], checkpoint="tiny").text
    figures = http.get("/metrics").text
    assert "omni_avsr_requests_total" in figures
    assert "omni_avsr_queued_windows 0.0" in figures


def test_a_server_that_is_full_says_when_to_come_again(transcriber, clips):
    app = create_app(ServeSettings(max_requests=1), transcriber, "tiny")
    client = TestClient(app)
    with client.websocket_connect("/v1/realtime") as socket:
        socket.receive_json()
        response = post(client, clips[0][0])
        assert response.status_code == 503
        assert response.headers["retry-after"]
        socket.send_json({"type": "input_audio_buffer.commit"})
        assert socket.receive_json()["type"] == "transcription.done"
    assert post(client, clips[0][0]).status_code == 200


def test_nothing_that_was_uploaded_is_kept(http, clips):
    post(http, clips[0][0])
    post(http, clips[0][0], stream="true")
    left = list(Path(tempfile.gettempdir()).glob("omni-avsr-*"))
    assert left == []


def spoken(file):
    sound = (streams.read_audio(file) * 32767).round().astype("<i2")
    return sound, list(streams.read_video(file))


def test_a_task_is_chosen_before_anything_is_said(transcriber):
    client = TestClient(create_app(ServeSettings(max_requests=1), transcriber, "tiny"))
    for _ in range(2):  # the first session leaves its place to the second
        with client.websocket_connect("/v1/realtime") as socket:
            socket.receive_json()
            socket.send_json({"type": "session.update", "task": "asr"})
            socket.send_json({"type": "input_audio_buffer.append", "audio": "AAAA"})
            socket.send_json({"type": "session.update", "task": "vsr"})
            assert "before the first sound" in socket.receive_json()["error"]["message"]


def events_of(sound, mouths):
    """What a client sends, a frame at a time."""
    for number, mouth in enumerate(mouths):
        piece = sound[640 * number : 640 * (number + 1)].tobytes()
        for kind, name, content in (
            ("input_audio_buffer.append", "audio", piece),
            ("input_video_buffer.append", "mouth", mouth.tobytes()),
        ):
            yield {"type": kind, name: base64.b64encode(content).decode()}


def test_a_busy_model_takes_all_that_has_come_at_once(transcriber, clips, monkeypatch):
    feed, is_free, fed = Live.feed, threading.Event(), []

    def busy_feed(live, sound=None, pictures=()):
        is_free.wait(60)
        fed.append(0 if sound is None else len(sound))
        return feed(live, sound, pictures)

    monkeypatch.setattr(Live, "feed", busy_feed)
    file, _ = clips[0]
    sound, mouths = spoken(file)
    client = TestClient(create_app(ServeSettings(), transcriber, "tiny"))
    with client.websocket_connect("/v1/realtime") as socket:
        for event in events_of(sound, mouths):
            socket.send_json(event)
        is_free.set()
        socket.send_json({"type": "input_audio_buffer.commit"})
        while (event := socket.receive_json())["type"] != "transcription.done":
            pass
    assert event["text"] == transcribe(file, checkpoint="tiny").text
    assert sum(fed) == 640 * len(mouths)
    assert len(fed) < len(mouths) / 10


def test_a_websocket_hears_sees_and_captions(address, clips):
    file, text = clips[0]
    sound, mouths = spoken(file)
    said, tentative = [], 0
    headers = {"authorization": "Bearer secret"}
    with connect(f"ws://{address}/v1/realtime", additional_headers=headers) as socket:
        assert json.loads(socket.recv())["type"] == "session.created"
        for event in events_of(sound, mouths):
            socket.send(json.dumps(event))
        socket.send(json.dumps({"type": "input_audio_buffer.commit", "final": True}))
        for message in socket:
            event = json.loads(message)
            said.append(event.get("delta", ""))
            tentative += len(event.get("tentative", []))
    assert event["type"] == "transcription.done"
    assert event["text"] == "".join(said)
    assert tentative > 0
    assert event["text"].split()[0] == text.split()[0]


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ("nonsense", "no JSON"),
        ("[" * 100_000, "no JSON"),
        (b"hello", "the message is binary"),
        ('{"type": "input_audio_buffer.append", "audio": "\u00e4"}', "needs 'audio' in base64"),
        ('{"type": "session.update", "model": "another"}', "the model is 'tiny'"),
        ('{"type": "session.update", "language": "en"}', "has no language"),
        ("[]", "no JSON object"),
        ('{"type": "dance"}', "there is no event 'dance'"),
        ('{"type": "input_audio_buffer.append"}', "needs 'audio' in base64"),
        ('{"type": "input_video_buffer.append", "mouth": "AAAA"}', "96 x 96 bytes, 3 came"),
        ('{"type": "input_video_buffer.append", "image": "AAAA"}', "an image is a JPEG"),
        ('{"type": "session.update", "task": "smell"}', "'smell' is not one of"),
    ],
)
def test_what_a_websocket_cannot_take_is_said(transcriber, event, message):
    client = TestClient(create_app(ServeSettings(), transcriber, "tiny"))
    with client.websocket_connect("/v1/realtime") as socket:
        socket.receive_json()
        (socket.send_bytes if isinstance(event, bytes) else socket.send_text)(event)
        assert message in socket.receive_json()["error"]["message"]


def test_a_jpeg_that_announces_too_much_is_not_decoded(transcriber):
    picture = cv2.imencode(".jpg", np.zeros((8, 2000, 3), np.uint8))[1].tobytes()
    event = {"type": "input_video_buffer.append", "image": base64.b64encode(picture).decode()}
    client = TestClient(create_app(ServeSettings(), transcriber, "tiny"))
    with client.websocket_connect("/v1/realtime") as socket:
        socket.receive_json()
        socket.send_json(event)
        assert "at most 1920 pixels" in socket.receive_json()["error"]["message"]
