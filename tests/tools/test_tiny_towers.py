"""The maker of the tiny towers: every stage runs, and what ships is what it writes."""

import importlib.util
import json
import shutil

import pytest
import torch
import typer
from typer.testing import CliRunner

from omni_avsr import OmniAVSR, OmniAVSRProcessor
from omni_avsr.model import Media
from omni_avsr.model.towers import SHIPPED
from omni_avsr.tasks import SAMPLES_PER_VIDEO_FRAME
from tools import augment, reading, tiny_towers
from tools.card import card
from tools.corpus import Source
from tools.encoders import FOLDERS
from tools.language_models import SIZES

needs_espeak = pytest.mark.skipif(
    not importlib.util.find_spec("espeakng_loader"), reason="needs espeak-ng"
)
CPU = torch.device("cpu")


def make(folder, *options):
    app = typer.Typer()
    app.command()(tiny_towers.main)
    small = ["--clips", "40", "--held-out", "2", "--processes", "2", "--device", "cpu"]
    places = ["--out", str(folder / "out"), "--work", str(folder / "work")]
    short = ["--steps", "2", "--batches", "4,4,4,4"]
    return CliRunner().invoke(app, [*small, *places, *short, *options])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder in which all stages ran for two steps."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "MAX_NEW_TOKENS", 2)
        result = make(folder)
    assert result.exit_code == 0, result.output
    return folder


@needs_espeak
def test_every_stage_writes_what_the_next_one_reads(made):
    out = made / "out"
    for name in (*FOLDERS.values(), *SIZES, "omni-avsr-st"):
        assert (out / name / "model.safetensors").is_file(), name
    results = json.loads((out / "results.json").read_text())
    assert set(results) == {"corpus", *FOLDERS.values(), *SIZES, "omni-avsr-st"}
    assert all(results[size]["steps"] == 2 for size in SIZES)
    assert (out / "README.md").read_text() == card(results, out)
    assert not list((out / "omni-avsr-st").rglob("README.md"))


@needs_espeak
def test_the_model_finds_its_towers_and_decodes(made):
    folder = made / "out" / "omni-avsr-st"
    model = OmniAVSR.from_pretrained(folder)
    processor = OmniAVSRProcessor.from_pretrained(folder)
    video = torch.zeros(10, 96, 96, dtype=torch.uint8)
    audio = torch.randn(10 * SAMPLES_PER_VIDEO_FRAME)
    batch = processor([audio], [video], task="avsr")
    assert len(model.generate(batch, max_new_tokens=2)) == 1


@needs_espeak
def test_finished_stages_are_skipped_and_an_interrupted_one_is_resumed(made, tmp_path):
    shutil.copytree(made, tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "out" / "tiny-video")
    result = make(tmp_path / "again", "--stages", "encoders", "--steps", "3")
    assert result.exit_code == 0, result.output
    assert "tiny-audio is in" in result.output
    assert "video: resumed at step 2" in result.output
    results = json.loads((tmp_path / "again" / "out" / "results.json").read_text())
    assert results["tiny-audio"]["steps"] == 2
    assert results["tiny-video"]["steps"] == 3


def test_an_unknown_stage_is_refused_with_those_that_exist(tmp_path):
    result = make(tmp_path, "--stages", "encoders,towers")
    assert result.exit_code == 2
    assert "unknown stages towers" in result.output


def test_the_shipped_card_is_that_of_the_shipped_results():
    results = json.loads((SHIPPED / "results.json").read_text())
    assert (SHIPPED / "README.md").read_text() == card(results, SHIPPED)


@needs_espeak
def test_a_clean_batch_is_what_the_processor_makes_of_the_clips():
    (corpus,) = Source(seed=0, processes=1, device=CPU).generate("grid", "test", 3)
    media = corpus.batch([0, 1, 2], 0, None).media
    processor = OmniAVSRProcessor.from_pretrained("tiny")
    sounds, mouths = [], []
    for start, end in zip(corpus.starts[:-1], corpus.starts[1:], strict=True):
        samples = slice(start * SAMPLES_PER_VIDEO_FRAME, end * SAMPLES_PER_VIDEO_FRAME)
        sounds.append(corpus.audio[samples].float() / 32768)
        mouths.append(corpus.video[start:end])
    expected = processor.media(sounds, mouths)
    for name in Media.__dataclass_fields__:
        assert torch.allclose(getattr(media, name), getattr(expected, name), atol=1e-4), name


def test_babble_at_0_db_is_as_loud_as_the_clip():
    random = torch.Generator().manual_seed(0)
    audio = torch.randn(4, 20 * SAMPLES_PER_VIDEO_FRAME, generator=random)
    frames = torch.tensor([20, 20, 20, 20])
    noisy = augment.add_babble(audio, frames, augment.ZERO_DB, random)
    babble = noisy - audio
    assert torch.allclose(babble.square().sum(1), audio.square().sum(1), rtol=1e-3)


def test_gaps_are_whole_video_frames():
    random = torch.Generator().manual_seed(0)
    audio = torch.ones(16, 30 * SAMPLES_PER_VIDEO_FRAME)
    frames = augment.hide(audio, SAMPLES_PER_VIDEO_FRAME, random).unflatten(1, (30, -1))
    assert torch.equal(frames.amin(2), frames.amax(2))
    assert 0 < (frames == 0).float().mean() < 0.5
