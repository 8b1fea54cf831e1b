"""What ships: the towers and the model are whole, small, and do what their card says on clips of unseen speakers."""

import hashlib
import importlib.util
import shutil

import numpy as np
import pytest

from omni_avsr import transcribe
from omni_avsr.data import manifest
from omni_avsr.decode.decode import evaluate
from omni_avsr.media import streams as media
from omni_avsr.model.towers import SHIPPED
from omni_avsr.settings import EvaluateSettings
from omni_avsr.text import total_errors
from omni_avsr.toy import cached_corpus

needs_espeak = pytest.mark.skipif(not importlib.util.find_spec("espeakng_loader"), reason="no espeak: omni-avsr[toy]")
CLIPS = 320  # of which an eighth are test clips


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("OMNI_AVSR_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def test_every_file_that_ships_is_the_one_that_was_measured():
    lines = (SHIPPED / "SHA256SUMS").read_text().splitlines()
    sums = {name: checksum for checksum, name in (line.split("  ") for line in lines)}
    files = {str(path.relative_to(SHIPPED)): path for path in SHIPPED.rglob("*") if path.is_file()}
    assert set(files) == {*sums, "SHA256SUMS"}
    for name, checksum in sums.items():
        assert hashlib.sha256(files[name].read_bytes()).hexdigest() == checksum, name
    assert sum(path.stat().st_size for path in files.values()) < 15_000_000


@needs_espeak
def test_the_shipped_model_hears_reads_lips_and_does_both():
    rows, _ = evaluate(EvaluateSettings(checkpoint="tiny", toy_clips=CLIPS, snr="clean,0"))
    wer = {(row["task"], row["audio_rate"], row["video_rate"], row["snr"]): 100 * row["wer"] for row in rows}
    assert rows[0]["clips"] == CLIPS // 8
    assert wer["asr", 4, None, None] < 10
    assert wer["avsr", 4, 2, None] < 10
    assert wer["vsr", None, 2, None] < 45
    assert wer["avsr", 4, 2, 0] < wer["asr", 4, None, 0]


@needs_espeak
def test_a_recording_is_transcribed_from_both_from_its_sound_and_from_its_lips(tmp_path):
    test = cached_corpus("grid", CLIPS, splits=("test",), sizes={"valid": CLIPS // 16, "test": CLIPS // 8})["test"]
    clips = manifest.read(test)[:8]
    pairs: dict[str, list[tuple[str, str]]] = {"avsr": [], "asr": [], "vsr": []}
    for i, clip in enumerate(clips):
        sound = (media.read_audio(clip.audio) * 32767).round().astype(np.int16)
        media.write_video(tmp_path / f"{i}.mp4", media.read_video(clip.video), sound)
        shutil.copy(clip.video, tmp_path / f"{i} silent.mp4")
        shutil.copy(clip.audio, tmp_path / f"{i}.wav")
        for task, name in {"avsr": f"{i}.mp4", "asr": f"{i}.wav", "vsr": f"{i} silent.mp4"}.items():
            transcript = transcribe(tmp_path / name, checkpoint="tiny")
            assert {segment.task for segment in transcript.segments} == {task}
            pairs[task].append((clip.text, transcript.text))
    wers = {task: 100 * total_errors(texts).wer for task, texts in pairs.items()}
    assert wers["avsr"] < 12
    assert wers["asr"] < 12
    assert wers["vsr"] < 50
