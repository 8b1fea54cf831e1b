"""Captions settle soon, are never taken back, and come whatever the pieces of sound and picture."""

import itertools
import json
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from omni_avsr import Live
from omni_avsr.cli.app import app
from omni_avsr.decode import words as words_module
from omni_avsr.decode.decode import load_decoder
from omni_avsr.decode.live import LAG, played
from omni_avsr.decode.transcripts import Word
from omni_avsr.decode.windows import Window
from omni_avsr.errors import InputError
from omni_avsr.media import devices as media_devices
from omni_avsr.media import streams
from omni_avsr.media.devices import recorded
from omni_avsr.settings import CheckpointOptions, LiveSettings
from omni_avsr.tasks import SAMPLE_RATE, SAMPLES_PER_VIDEO_FRAME, VIDEO_FPS, Task
from tests.support.towers import clips

MOUTH = np.full((96, 96), 90, np.uint8)
WORD = 0.4  # seconds of each word that is said


@pytest.fixture(scope="module")
def checkpoint(make, tmp_path_factory):
    """The folder of a model that can tell when words are said, but has learned nothing."""
    folder = tmp_path_factory.mktemp("live") / "model"
    model, processor = make()
    model.add_aligner("abcdefghijklmnopqrstuvwxyz")
    model.save_pretrained(folder, full=True)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def live(checkpoint, monkeypatch):
    """Captions of a model that hears a word in every 0.4 s, and guesses two words ahead."""

    def heard(self, window):
        tasks.append(window.task)
        latest = self.settled[-1].end if self.settled else window.start
        words = []
        while latest + WORD <= window.end:
            words.append(Word(f"w{round(latest / WORD)}", latest, latest + WORD, 0.9))
            latest += WORD
        words.append(Word("guess", latest, window.end, 0.1))
        words.append(Word(f"guess{self.until:.2f}", window.end, window.end, 0.1))
        return words

    tasks = []
    monkeypatch.setattr(Live, "_words", heard)
    live = Live(checkpoint)
    live.heard_tasks = tasks
    return live


def speech(seconds, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * SAMPLE_RATE)).astype("f4")


def silence(seconds):
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def settled(captions):
    return [word for caption in captions for word in caption.words]


def assert_rising(words, until):
    latest = 0.0
    for word in words:
        assert latest - 1e-6 <= word.start <= word.end <= until + 1e-6
        latest = word.end


def test_words_settle_while_speech_goes_on(live):
    captions = []
    for _ in range(20):
        captions += live.feed(speech(0.2))
    words = settled(captions)
    assert len(words) >= 6  # of the eight that are more than a patience old
    assert not any("guess" in word.word for word in words)
    assert all("guess" in caption.tentative[-1].word for caption in captions)
    for caption in captions:
        assert all(word.end <= caption.until - live.patience + 1e-6 for word in caption.words)
    assert_rising(words, live.until)


def test_a_pause_settles_everything_and_begins_a_new_caption(live):
    sound = np.concatenate([speech(1.2), silence(1.0), speech(0.8)])
    captions = [*live.feed(sound), *live.finish()]
    ended = [caption for caption in captions if caption.ended]
    assert len(ended) == 2
    assert not any(caption.tentative for caption in ended)
    assert_rising(settled(captions), live.until)
    assert ended[1].words[0].start >= 2.0


def test_nothing_is_said_in_silence(live):
    assert not [*live.feed(silence(30)), *live.finish()]
    assert len(live.held.moments) < VIDEO_FPS


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    parts=st.lists(st.tuples(st.booleans(), st.integers(1, 60)), min_size=1, max_size=8),
    pieces=st.lists(st.integers(1, 4000), min_size=1, max_size=6),
    seen=st.lists(st.booleans(), max_size=6),
)
def test_what_has_settled_stays_whatever_comes(checkpoint, live, parts, pieces, seen):
    """Speech and silence in any pieces, with faces that come and go."""
    live.__init__(checkpoint)
    sounds = [(speech if spoken else silence)(frames / VIDEO_FPS) for spoken, frames in parts]
    sound = np.concatenate(sounds)
    shown = []
    captions = []
    place = 0
    for size, has_face in zip(itertools.cycle(pieces), itertools.cycle(seen or [True])):
        if place >= len(sound):
            break
        place += size
        count = min(place, len(sound)) // SAMPLES_PER_VIDEO_FRAME - len(shown)
        pictures = [MOUTH if has_face else None] * max(count, 0)
        shown += pictures
        captions += live.feed(sound[place - size : place], pictures)
        assert len(live.held.moments) <= live.most_frames
    captions += live.finish()
    assert_rising(settled(captions), live.until)
    assert live.until == pytest.approx(len(sound) / SAMPLE_RATE, abs=1 / VIDEO_FPS)
    assert [caption.until for caption in captions] == sorted(caption.until for caption in captions)


def test_sound_and_picture_may_be_out_of_step(live, checkpoint):
    sound = speech(3.0)
    pictures = [MOUTH] * 75
    live.feed(sound[: 20 * SAMPLES_PER_VIDEO_FRAME])
    assert live.until == 0.0  # it waits for the pictures
    for frame in range(0, 75, 5):
        last = (frame + 25) * SAMPLES_PER_VIDEO_FRAME
        live.feed(sound[last - 5 * SAMPLES_PER_VIDEO_FRAME : last], pictures[frame:][:5])
    assert set(live.heard_tasks) == {Task.AVSR}
    assert live.until == 3.0


def test_where_no_camera_is_there_the_sound_waits_only_at_first(live):
    live.feed(speech(0.8))
    assert live.until == 0.0
    live.feed(speech(1.2))
    assert live.until == 2.0
    assert set(live.heard_tasks) == {Task.ASR}


def test_a_camera_that_stops_is_waited_for_no_longer_than_a_second(live):
    live.feed(speech(1.0), [MOUTH] * 25)
    for _ in range(20):
        live.feed(speech(0.2))
    assert live.until == pytest.approx(5.0 - LAG / VIDEO_FPS, abs=0.1)
    assert live.heard_tasks[0] == Task.AVSR
    assert live.heard_tasks[-1] == Task.ASR


def test_lips_alone_are_read(live):
    captions = []
    for _ in range(10):
        captions += live.feed(pictures=[MOUTH] * 5)
    captions += live.feed(pictures=[MOUTH] * 25)
    assert set(live.heard_tasks) == {Task.VSR}
    assert settled(captions)


def test_speech_without_a_pause_is_decoded_in_parts(live):
    captions = []
    for _ in range(200):
        captions += live.feed(speech(0.2))
        assert len(live.held.moments) <= live.most_frames
    assert_rising(settled(captions), live.until)
    assert len(settled(captions)) > 80


def test_a_caption_ends_even_if_its_last_words_have_settled_long_before(live):
    captions = []
    for _ in range(8):
        captions += live.feed(speech(0.2))
    assert settled(captions)
    live._words = lambda window: []  # noise, in which nothing is said
    for _ in range(60):
        captions += live.feed(speech(0.2))
    captions += live.feed(silence(2.0))
    assert sum(caption.ended for caption in captions) == 1
    assert not live.is_open


def test_a_word_of_another_picture_at_the_end_is_not_heard_by_itself(live):
    captions = [*live.feed(speech(2.0), [MOUTH] * 47), *live.finish()]  # the camera ends early
    assert set(live.heard_tasks) == {Task.AVSR}
    assert sum(caption.ended for caption in captions) == 1


def test_a_camera_that_begins_late_is_seen_from_then_on(live):
    live.feed(speech(2.0))
    for _ in range(10):
        live.feed(speech(0.2), [MOUTH] * 5)
    assert live.heard_tasks[0] == Task.ASR
    assert live.heard_tasks[-1] == Task.AVSR


@pytest.mark.parametrize(
    ("sound", "message"),
    [
        (np.zeros((2, 100), np.float32), "one channel"),
        (np.zeros(100, np.int32), "floats between -1 and 1, or int16"),
    ],
)
def test_sound_of_another_kind_is_refused(live, sound, message):
    with pytest.raises(InputError, match=message):
        live.feed(sound)


def test_int16_is_as_loud_as_its_floats(live):
    live.feed((speech(1.2) * 32767).astype(np.int16))
    assert live.loudness[0] == pytest.approx(0.1, rel=0.1)


def test_without_a_face_detector_the_sound_goes_on(checkpoint, monkeypatch, tmp_path):
    monkeypatch.delenv("OMNI_AVSR_FACE_DETECTOR", raising=False)
    monkeypatch.setenv("OMNI_AVSR_CACHE", str(tmp_path))
    live = Live(checkpoint, download=False, max_new_tokens=2)
    live.feed(speech(2.0), [np.zeros((120, 160, 3), np.uint8)] * 50)
    assert live.until == 2.0
    assert "only heard" in live.notes[0]


def test_decoding_goes_on_from_the_words_that_have_settled(monkeypatch):
    monkeypatch.setattr(words_module, "LEAST_HEARD", 0.0)  # what is decoded is noise
    decoder = load_decoder(CheckpointOptions(checkpoint="tiny"))
    model, processor = decoder.model, decoder.processor
    features = model.encode(processor.media(**clips(60)))
    route = model.config.choose("asr")
    (whole,) = decoder.transcribe(features, route, 1, None)
    words = whole.text.split()
    assert len(words) > 2
    batch = processor.batch(features, route, begun=[" ".join(words[:2])])
    rest = processor.batch_decode(model.generate(batch))
    assert rest == [" ".join(words[2:])]
    live = Live("tiny", task="asr")
    live.settled = [Word(word, 0.0, 0.1, 0.9) for word in words[:2]]
    window = Window(0.0, 2.4, clips(60)["audio"][0].numpy(), None)
    assert [word.word for word in live._words(window)] == words[2:]


def test_a_real_pass_goes_on_from_what_has_settled(checkpoint):
    live = Live(checkpoint, task="asr", patience=0.0, max_new_tokens=5)
    captions = []
    for _ in range(6):
        captions += live.feed(speech(0.4))
    captions += live.finish()
    assert_rising(settled(captions), live.until)


def test_a_model_that_cannot_tell_times_is_refused(make, tmp_path):
    model, processor = make()
    model.save_pretrained(tmp_path, full=True)
    processor.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="train --aligner only --from"):
        Live(tmp_path)


def test_the_command_prints_captions_of_a_clip(checkpoint, tmp_path):
    clip = tmp_path / "clip.mp4"
    streams.write_video(clip, np.stack([MOUTH] * 30), (speech(1.2) * 32767).astype(np.int16))
    sound, pictures = next(played(clip))
    assert len(sound) == 5 * SAMPLES_PER_VIDEO_FRAME
    assert pictures[0].shape == (96, 96)
    options = [
        "live",
        str(clip),
        "--checkpoint",
        str(checkpoint),
        "--fast",
        "--max-new-tokens",
        "5",
    ]
    result = CliRunner().invoke(app, [*options, "--format", "jsonl"])
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert all({"words", "tentative", "ended", "until"} == row.keys() for row in rows)
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 0, result.output


@pytest.fixture
def devices(monkeypatch):
    """FFmpeg's own sources stand in for devices; their names say what they make."""
    monkeypatch.setattr(media_devices, "FORMATS", {sys.platform: ("lavfi", "lavfi")})


def test_a_microphone_and_a_camera_are_recorded(devices):
    pieces = list(recorded("sine=duration=1.5", "testsrc=duration=1.5:size=64x48:rate=30"))
    heard = np.concatenate([sound for sound, _ in pieces])
    seen = [picture for _, pictures in pieces for picture in pictures]
    assert abs(len(heard) - 1.5 * SAMPLE_RATE) < 100
    assert abs(len(seen) - 1.5 * VIDEO_FPS) <= 1
    assert seen[0].shape == (48, 64, 3)


def test_what_is_recorded_is_shown(devices, checkpoint):
    options = [
        "live",
        "--checkpoint",
        str(checkpoint),
        "--max-new-tokens",
        "5",
        "--format",
        "jsonl",
    ]
    result = CliRunner().invoke(app, [*options, "--mic", "sine=duration=1.2:frequency=300"])
    assert result.exit_code == 0, result.output
    assert LiveSettings(mic="default").recorded_task == Task.ASR
    assert LiveSettings(camera="0").recorded_task == Task.VSR
    assert LiveSettings(camera="0", mic=":0").recorded_task == "auto"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--mic", "nothing"], "--mic: nothing cannot be read"),
        (["--camera", "nothing"], "--camera: nothing cannot be read"),
        (["talk.mp4", "--mic", "default"], "name a file to play, or --mic or --camera to record"),
        ([], "name a file to play, or --mic or --camera to record"),
    ],
)
def test_what_cannot_be_recorded_is_said_in_one_sentence(devices, checkpoint, given, message):
    result = CliRunner().invoke(app, ["live", *given, "--checkpoint", str(checkpoint)])
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)
