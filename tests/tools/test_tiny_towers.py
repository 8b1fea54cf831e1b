"""The maker of the tiny towers: every stage runs, and what ships is what it writes."""

import importlib.util
import itertools
import json
import shutil
from functools import partial

import pytest
import torch
import typer
from transformers import AutoTokenizer
from typer.testing import CliRunner

from omni_avsr import OmniAVSR, OmniAVSRProcessor
from omni_avsr.model import AVHubertEncoder, Media
from omni_avsr.model.towers import SHIPPED
from omni_avsr.tasks import SAMPLES_PER_VIDEO_FRAME
from omni_avsr.toy import corpus as toy_corpus
from omni_avsr.toy.sentences import multi_sentences
from tools import augment, encoders, package, reading, tiny_towers
from tools.adapters import MODELS
from tools.card import card
from tools.corpus import FRAME_FACTORS, Corpus, Frames, Source
from tools.encoded import EncodedClips, encode_clips
from tools.encoders import FOLDERS, video_encoder_behind
from tools.language_models import SIZES
from tools.tokenizer import new_tokenizer

needs_espeak = pytest.mark.skipif(
    not importlib.util.find_spec("espeakng_loader"), reason="needs espeak-ng"
)
CPU = torch.device("cpu")


def make(folder, *options):
    app = typer.Typer()
    app.command()(tiny_towers.main)
    small = ["--clips", "80", "--read", "120", "--held-out", "2"]
    where = ["--processes", "2", "--device", "cpu"]
    places = ["--out", str(folder / "out"), "--work", str(folder / "work")]
    return CliRunner().invoke(app, [*small, *where, *places, "--steps", "2,2,2,2,2", *options])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder in which all stages ran for two steps."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "MAX_NEW_TOKENS", 2)
        # What has not learned to stop takes long to decode; test_calibrate.py calibrates
        patch.setattr(package, "calibrate", lambda settings, corpus: [settings.checkpoint])
        # One process is enough: these clips need not be the same ones again.
        patch.setattr(toy_corpus, "in_fresh_processes", lambda work, tasks, _: map(work, tasks))
        result = make(folder)
    assert result.exit_code == 0, result.output
    return folder


@needs_espeak
def test_every_stage_writes_what_the_next_one_reads(made):
    out = made / "out"
    for name in (*FOLDERS.values(), *SIZES, *MODELS):
        assert (out / name / "model.safetensors").is_file(), name
    results = json.loads((out / "results.json").read_text())
    assert set(results) == {"corpus", *FOLDERS.values(), *SIZES, *MODELS}
    assert all(results[size]["steps"] == 2 for size in SIZES)
    assert (out / "README.md").read_text() == card(results, out)
    assert not list((out / "omni-avsr-st").rglob("README.md"))
    assert set(package.WORLDS) == set(MODELS)


def test_the_shipped_card_is_that_of_the_shipped_results():
    results = json.loads((SHIPPED / "results.json").read_text())
    assert (SHIPPED / "README.md").read_text() == card(results, SHIPPED)


@needs_espeak
@pytest.mark.parametrize("name", MODELS)
def test_the_models_find_their_towers_and_decode(made, name):
    folder = made / "out" / name
    model = OmniAVSR.from_pretrained(folder)
    processor = OmniAVSRProcessor.from_pretrained(folder)
    video = torch.zeros(10, 96, 96, dtype=torch.uint8)
    audio = torch.randn(10 * SAMPLES_PER_VIDEO_FRAME)
    batch = processor([audio], [video], task="avsr")
    assert len(model.generate(batch, max_new_tokens=2)) == 1


def test_a_tokenizer_keeps_every_letter_and_most_words_whole(tmp_path):
    texts = [text for _, text in itertools.islice(multi_sentences("train", 0), 3000)]
    new_tokenizer(texts, 3072, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    unseen = [text for _, text in itertools.islice(multi_sentences("test", 0), 200)]
    rows = tokenizer(unseen, add_special_tokens=False)["input_ids"]
    assert tokenizer.batch_decode(rows) == unseen
    words = sum(len(text.split()) for text in unseen)
    assert sum(map(len, rows)) / words < 1.3


@needs_espeak
def test_the_front_end_of_the_video_encoder_is_the_one_that_was_trained(made):
    encoder = AVHubertEncoder.from_pretrained(made / "out" / "tiny-video")
    trained = video_encoder_behind(made / "work" / "front_end.pt")
    for name, weight in trained.frontend.named_parameters():
        assert torch.equal(encoder.frontend.get_parameter(name), weight.half().float()), name


@needs_espeak
def test_finished_stages_are_skipped_and_an_interrupted_one_is_resumed(made, tmp_path):
    shutil.copytree(made, tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "out" / "tiny-video")
    result = make(tmp_path / "again", "--stages", "audio,video", "--steps", "2,2,3,2,2")
    assert result.exit_code == 0, result.output
    assert "tiny-audio is in" in result.output
    assert "video: resumed at step 2" in result.output
    results = json.loads((tmp_path / "again" / "out" / "results.json").read_text())
    assert results["tiny-audio"]["steps"] == 2
    assert results["tiny-video"]["steps"] == 3


def test_an_unknown_stage_is_refused_with_those_that_exist(tmp_path):
    result = make(tmp_path, "--stages", "audio,towers")
    assert result.exit_code == 2
    assert "unknown stages towers" in result.output


@needs_espeak
def test_a_frame_is_seen_with_its_neighbours_of_the_same_clip():
    corpus = Corpus(Source(seed=0, processes=1).clips({"grid": 2}, "test"), CPU, ["video"])
    frames = Frames(corpus)
    first_of_second = corpus.lengths[0]
    places = [0, 10, first_of_second - 1, first_of_second]
    windows = frames.batch(places, 0, None).media.video  # (4, 5, 88, 88)
    whole = corpus.batch([0, 1], 0, None).media.video
    assert torch.equal(windows[1], whole[0, 8:13])
    assert torch.equal(windows[2, :3], whole[0, first_of_second - 3 : first_of_second])
    assert not windows[2, 3:].any()
    assert not windows[3, :2].any()
    assert torch.equal(windows[3, 2:], whole[1, :3])


@needs_espeak
def test_encoded_clips_are_what_the_encoders_make_of_them(tmp_path):
    corpus = Corpus(Source(seed=0, processes=1).clips({"grid": 3}, "test"), CPU)
    towers = encoders.made(SHIPPED, CPU)
    file = tmp_path / "features.pt"
    encode_clips(file, [corpus], partial(encoders.encoded, towers))
    clips = EncodedClips([file, file], CPU)
    assert clips.texts == corpus.texts * 2
    batch = clips.batch([4, 2], 0, None)
    for modality in ("audio", "video"):
        values, lengths = batch.features.of(modality)
        assert lengths.tolist() == [FRAME_FACTORS[modality] * corpus.lengths[n] for n in (1, 2)]
        targets = clips.targets(batch, modality)
        assert torch.equal(targets, corpus.targets(corpus.batch([1, 2], 0, None), modality))
        assert values.shape[:2] == targets.shape


@needs_espeak
def test_a_clean_batch_is_what_the_processor_makes_of_the_clips():
    corpus = Corpus(Source(seed=0, processes=1).clips({"grid": 3}, "test"), CPU)
    media = corpus.batch([0, 1, 2], 0, None).media
    processor = OmniAVSRProcessor.from_pretrained("tiny")
    sounds, mouths = [], []
    for start, end in zip(corpus.starts[:-1], corpus.starts[1:], strict=True):
        samples = slice(start * SAMPLES_PER_VIDEO_FRAME, end * SAMPLES_PER_VIDEO_FRAME)
        sounds.append(corpus.media["audio"][samples].float() / 32768)
        mouths.append(corpus.media["video"][start:end])
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
