"""The towers and the model that ship: complete, small, and as accurate as their card says."""

import hashlib
import importlib.util
import shutil

import numpy as np
import pytest

from omni_avsr import Live, Transcriber, transcribe
from omni_avsr.data import manifest
from omni_avsr.measure.evaluate import evaluate
from omni_avsr.media import streams
from omni_avsr.model.towers import SHIPPED
from omni_avsr.run import no_progress
from omni_avsr.settings import EvaluateSettings
from omni_avsr.settings.shared import ToyOptions
from omni_avsr.tasks import Condition, Route, Task
from omni_avsr.text import total_errors
from omni_avsr.toy import toy_corpus

needs_espeak = pytest.mark.skipif(
    not importlib.util.find_spec("espeakng_loader"), reason="no espeak: omni-avsr[toy]"
)
CLIPS = 320  # training clips; an eighth as many are test clips
LARGEST = 25_000_000  # bytes of what ships
CLEAN = Condition()
BABBLE = Condition(0, "babble")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("OMNI_AVSR_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def test_every_file_that_ships_is_the_one_that_was_measured():
    sums = {}
    for line in (SHIPPED / "SHA256SUMS").read_text().splitlines():
        checksum, name = line.split("  ")
        sums[name] = checksum
    files = {str(path.relative_to(SHIPPED)): path for path in SHIPPED.rglob("*") if path.is_file()}
    assert set(files) == {*sums, "SHA256SUMS"}
    for name, checksum in sums.items():
        assert hashlib.sha256(files[name].read_bytes()).hexdigest() == checksum, name
    assert sum(path.stat().st_size for path in files.values()) < LARGEST


@needs_espeak
def test_the_shipped_model_hears_reads_lips_and_does_both(tmp_path):
    settings = EvaluateSettings(
        checkpoint="tiny", toy_clips=CLIPS, snr=("clean", "0"), out=tmp_path / "evaluation"
    )
    results = evaluate(settings, corpus=toy_corpus).results
    percent = {(result.route, result.condition): result.percent for result in results}
    hearing = Route(Task.ASR, audio_rate=4)
    seeing = Route(Task.VSR, video_rate=2)
    both = Route(Task.AVSR, audio_rate=4, video_rate=2)
    assert results[0].clips == CLIPS // 8
    assert percent[hearing, CLEAN] < 10
    assert percent[both, CLEAN] < 10
    assert percent[seeing, CLEAN] < 45
    assert percent[both, BABBLE] < percent[hearing, BABBLE]


@needs_espeak
def test_a_recording_is_transcribed_from_both_from_its_sound_and_from_its_lips(tmp_path):
    labels = toy_corpus(ToyOptions(toy_clips=CLIPS), ["test"], no_progress)["test"]
    pairs: dict[Task, list[tuple[str, str]]] = {task: [] for task in Task}
    for number, clip in enumerate(manifest.read(labels)[:8]):
        sound = (streams.read_audio(clip.audio) * 32767).round().astype(np.int16)
        files = {
            Task.AVSR: tmp_path / f"{number}.mp4",
            Task.ASR: tmp_path / f"{number}.wav",
            Task.VSR: tmp_path / f"{number} silent.mp4",
        }
        streams.write_video(files[Task.AVSR], streams.read_video(clip.video), sound)
        shutil.copy(clip.audio, files[Task.ASR])
        shutil.copy(clip.video, files[Task.VSR])
        for task, file in files.items():
            transcript = transcribe(file, checkpoint="tiny")
            assert {segment.task for segment in transcript.segments} == {task}
            pairs[task].append((clip.text, transcript.text))
    wers = {task: 100 * total_errors(texts).wer for task, texts in pairs.items()}
    assert wers[Task.AVSR] < 12
    assert wers[Task.ASR] < 12
    assert wers[Task.VSR] < 50


def test_where_nobody_speaks_no_words_are_invented():
    second = np.arange(48_000) / 16_000
    noise = np.random.default_rng(0).normal(0, 0.1, 48_000)
    transcriber = Transcriber("tiny", task="asr")
    for sound in (noise, np.cumsum(noise) / 100, 0.2 * np.sin(2 * np.pi * 440 * second)):
        transcript = transcriber(sound.astype(np.float32), sampling_rate=16_000)
        assert transcript.text == ""
        assert transcript.words == []
    still = np.full((75, 96, 96), 90, np.uint8)
    live = Live("tiny", task="vsr")
    captions = [*live.feed(pictures=list(still)), *live.finish()]
    assert not any(caption.words for caption in captions)
