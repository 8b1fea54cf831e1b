"""Every method trains; what it writes can be loaded and decoded; each mistake is one sentence."""

import json
import pickle
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from omni_avsr import OmniAVSR, OmniAVSRConfig
from omni_avsr.data.default import no_corpus
from omni_avsr.data.loading import ClipKey, buckets
from omni_avsr.data.seed import generator
from omni_avsr.errors import InputError
from omni_avsr.measure.evaluate import decode_file
from omni_avsr.methods import METHODS
from omni_avsr.model import adapters
from omni_avsr.model.towers import SHIPPED, build
from omni_avsr.run import no_progress, read_run
from omni_avsr.settings import DecodeSettings
from omni_avsr.tasks import Route, Task
from omni_avsr.train.batches import Batches
from omni_avsr.train.clips import clips_of_run
from omni_avsr.train.fit import fit
from omni_avsr.train.step import Training, routes_of_step
from tests.support.corpus import write_split
from tests.support.runs import assert_same_weights, read_metrics
from tests.support.towers import whisper_config


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_two_steps(settings, method):
    model = OmniAVSR.from_pretrained(fit(replace(settings, method=method)))
    assert model.config.method == method
    assert tuple(model.config.adapters) == METHODS[method].adapters


def test_the_loss_falls_and_the_run_can_be_decoded(settings):
    longer = replace(settings, max_steps=80, lr=2e-2, noise_probability=0.2, valid_every=40)
    folder = fit(replace(longer, lora_rank=16, lora_alpha=32.0, projector_width=64))
    losses = _losses(settings.out)
    assert losses[-1] < 0.6 * losses[0]
    decoding = DecodeSettings(task=Task.AVSR, checkpoint=str(settings.out), data=settings.data)
    evaluation = decode_file(decoding)
    (result,) = evaluation.results
    assert evaluation.unreadable == 0
    assert result.clips == 12
    assert result.checkpoint == str(folder)


def test_towers_in_bfloat16_train_and_decode_nearly_as_in_float32(settings, tmp_path):
    settings = replace(settings, max_steps=10)
    fit(settings)
    for precision in ("bf16-mixed", "32-true"):
        half = replace(settings, dtype="bfloat16", precision=precision, out=tmp_path / precision)
        fit(half)
        assert _losses(half.out) == pytest.approx(_losses(settings.out), rel=0.01)
    decoding = DecodeSettings(checkpoint=str(half.out), dtype="bfloat16", data=settings.data)
    (result,) = decode_file(decoding).results
    assert result.dtype == "bfloat16"


def _losses(run):
    """The sum of the losses of all tasks, every ten steps."""
    logged = [row for row in read_metrics(run) if row["asr"]]
    return [float(row["asr"]) + float(row["vsr"]) + float(row["avsr"]) for row in logged]


@pytest.mark.parametrize("rank", [0, 2])
def test_cached_and_fresh_features_train_the_same_model(settings, tmp_path, rank):
    clean = replace(settings, noise_probability=0.0, max_steps=1, video_lora_rank=rank)
    fresh = fit(replace(clean, cache_copies=0, out=tmp_path / "fresh"))
    cached = fit(replace(clean, cache_copies=1, out=tmp_path / "cached"))
    weights = OmniAVSR.from_pretrained(cached).state_dict()
    for name, weight in OmniAVSR.from_pretrained(fresh).state_dict().items():
        torch.testing.assert_close(weights[name], weight, atol=5e-3, rtol=0, msg=name)


def test_the_feature_cache_trains_the_same_model_without_encoding_again(
    settings, trained, tmp_path, monkeypatch
):
    keep = replace(settings, cache_copies=1, feature_cache=tmp_path / "features")
    first = fit(replace(keep, out=tmp_path / "first"))
    monkeypatch.setattr(Batches, "_encode", None)
    second = fit(replace(keep, out=tmp_path / "second"))
    for folder in (first, second):
        assert_same_weights(_weights(folder), _weights(trained / "model"))
    with pytest.raises(TypeError):  # another seed augments differently, so it has to encode
        fit(replace(keep, out=tmp_path / "third", seed=9))


def _weights(folder):
    return OmniAVSR.from_pretrained(folder).state_dict()


def test_the_feature_cache_tells_apart_what_runs_encode(settings, tmp_path):
    keep = replace(settings, cache_copies=1, feature_cache=tmp_path / "features", max_steps=1)
    hearing = {"method": "llama-avsr", "tasks": (Task.ASR,)}
    fit(replace(keep, out=tmp_path / "hearing", **hearing))
    fit(replace(keep, out=tmp_path / "both"))
    fit(replace(keep, out=tmp_path / "padded", audio_context="padded", **hearing))
    fit(replace(keep, out=tmp_path / "trained lips", video_lora_rank=2))
    assert len(list((tmp_path / "features").glob("*.features"))) == 4


def test_the_model_of_a_run_is_its_best_and_not_its_last(settings, monkeypatch):
    log = Training.log

    def log_growing_wer(self, name, value, **options):
        grown = value + self.global_step if name == "valid/wer" else value
        log(self, name, grown, **options)

    monkeypatch.setattr(Training, "log", log_growing_wer)
    saved = load_file(fit(replace(settings, max_steps=4, valid_every=2)) / "model.safetensors")
    best = torch.load(settings.out / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["global_step"] == 2
    compressors = [name for name in saved if "_compressor." in name]
    assert compressors
    for name in compressors:
        assert torch.equal(saved[name], best["state_dict"][f"model.{name}"])


def test_layers_are_recomputed_only_with_gradient_checkpointing(settings, tmp_path, monkeypatch):
    recomputed = []
    recompute_context = adapters.recompute_context

    def counted(model):
        recomputed.append(model)
        return recompute_context(model)

    monkeypatch.setattr(adapters, "recompute_context", counted)
    plain = fit(replace(settings, out=tmp_path / "plain"))
    assert not recomputed
    again = fit(replace(settings, out=tmp_path / "again", gradient_checkpointing=True))
    layers = OmniAVSRConfig.from_pretrained(again).llm_config.num_hidden_layers
    steps, passes = 2, 3
    assert len(recomputed) == steps * passes * layers
    weights = load_file(again / "model.safetensors")
    for name, weight in load_file(plain / "model.safetensors").items():
        torch.testing.assert_close(weights[name], weight)


def test_a_run_is_reproduced_with_its_seed(settings, trained):
    assert_same_weights(_weights(fit(settings)), _weights(trained / "model"))


def test_a_run_folder_records_settings_versions_and_metrics(trained):
    run = json.loads((trained / "run.json").read_text())
    assert run["settings"]["method"] == "omni-avsr-st"
    assert {"python", "torch", "transformers", "peft", "lightning"} <= run["versions"].keys()
    metrics = read_metrics(trained)[0]
    for route in ("asr-a4", "asr-a16", "vsr-v2", "vsr-v5", "avsr-a4-v2", "avsr-a16-v5"):
        assert f"valid/wer/{route}" in metrics
        assert f"valid/loss/{route}" in metrics
    checkpoint = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["state_dict"]
    for name in checkpoint["state_dict"]:
        assert "lora_" in name or "compressor" in name or "aligner" in name


def test_the_passes_of_a_step_follow_from_the_method(make):
    config = make()[0].config
    passes = {}
    for rates in ("fixed", "sampled", "all"):
        passes[rates] = len(routes_of_step(config, rates, generator(1)))
    assert passes == {"fixed": 3, "sampled": 3, "all": 8}
    drawn = {routes_of_step(config, "sampled", generator(seed))[2] for seed in range(50)}
    assert drawn == {
        Route(Task.AVSR, 4, 2),
        Route(Task.AVSR, 4, 5),
        Route(Task.AVSR, 16, 2),
        Route(Task.AVSR, 16, 5),
    }
    first, second = routes_of_step(config, "all")[:2]
    assert first == Route(Task.ASR, 4)
    assert second == Route(Task.ASR, 16)


@pytest.mark.parametrize("copies", [0, 1])
def test_the_lora_of_the_video_encoder_is_trained(settings, copies):
    model = OmniAVSR.from_pretrained(fit(replace(settings, video_lora_rank=2, cache_copies=copies)))
    trained = []
    for name, weight in model.video_encoder.named_parameters():
        if "lora_B" in name:
            trained.append(bool(weight.any()))
    assert trained
    assert all(trained)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "omni"}, "unknown method 'omni'; available"),
        ({"tasks": "asr,tts"}, "unknown task 'tts'; available: asr, vsr, avsr"),
        ({"audio_rates": "4,x"}, "'4,x' is not a list of whole numbers"),
        ({"logger": "mlflow"}, "unknown logger 'mlflow'; available: tensorboard, wandb, csv, none"),
        ({"task_weights": "1,2"}, "task_weights 1,2 are not three numbers"),
        ({"task_weights": "1,2,3,4"}, "task_weights 1,2,3,4 are not three numbers"),
        (
            {"method": "llama-avsr", "tasks": "asr,vsr"},
            "llama-avsr trains one task, asr,vsr were given",
        ),
        ({"valid": None}, "give both data and valid"),
        ({"valid": "0%"}, "valid 0% is no share: more than 0% and less than 100% is one"),
        ({"valid": "100%"}, "valid 100% is no share"),
        ({"max_frames": 5}, "all 12 clips are longer than the 5 frames of a batch"),
        ({"precision": "bf16-true"}, "unknown precision 'bf16-true'; available: 32-true, bf16-m"),
        ({"devices": "0"}, "devices '0' is neither a number from 1 nor auto"),
        ({"devices": "0,1"}, "devices '0,1' is neither a number from 1 nor auto"),
        ({"data": "/nowhere.csv"}, "label file /nowhere.csv does not exist"),
        ({"data": None, "valid": None}, "no label file for train, valid, test is given"),
    ],
)
def test_a_mistake_in_the_settings_is_one_sentence(settings, changes, message):
    with pytest.raises(InputError, match=message):
        fit(replace(settings, **changes))


def test_a_run_without_label_files_trains_on_the_corpus_of_its_caller(settings, files):
    asked = []

    def make_corpus(options, splits, progress):
        asked.append((options.toy_world, options.toy_clips, list(splits)))
        return files

    fit(replace(settings, data=None, valid=None, toy_world="open", toy_clips=8), corpus=make_corpus)
    assert asked == [("open", 8, ["train", "valid", "test"])]
    trained = json.loads((settings.out / "run.json").read_text())["trained"]
    assert trained["clips"] > 0
    assert (trained["dtype"], trained["precision"]) == ("float32", "32-true")


def test_validation_clips_are_neither_test_nor_training_clips(settings, files):
    with pytest.raises(InputError, match=r"validates on 6 clips \(valid/000, .* of the test file"):
        fit(replace(settings, test=files["valid"]))
    with pytest.raises(InputError, match=r"validates on 12 clips \(.*train\.csv trains on: take"):
        fit(replace(settings, valid=settings.data))


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_a_training_clip_among_the_validation_clips_is_found_behind_a_link(
    settings, tmp_path, link
):
    labels = write_split(tmp_path, "valid", 2, 8)
    video = tmp_path / "corpus" / "valid" / "001.mp4"
    training_clip = clips_of_run(settings, no_progress, no_corpus).train[3]
    video.unlink()
    link(video, training_clip.video)
    with pytest.raises(InputError, match=r"valid\.csv validates on 1 clip \(valid/001\) that"):
        fit(replace(settings, valid=labels))


@pytest.mark.parametrize("split", ["data", "valid"])
def test_clips_without_text_are_refused_before_anything_else(settings, tmp_path, split):
    labels = write_split(tmp_path, "own", 6, 8)
    lines = labels.read_text().splitlines()
    for index in (0, 1, 2, 5):
        lines[index] = lines[index].rpartition(",")[0] + ", "
    labels.write_text("\n".join(lines))
    message = r"own\.csv has no text for 4 clips \(own/000, own/001, own/002, \.\.\.\): training"
    with pytest.raises(InputError, match=message):
        fit(replace(settings, **{split: labels}, llm="no/such/llm"))


def test_validation_clips_of_which_no_file_is_there_are_refused(settings, tmp_path):
    labels = tmp_path / "valid.csv"
    labels.write_text("corpus,valid/one.mp4,9,0,we talk\ncorpus,valid/two.mp4,9,0,we talk\n")
    message = r"valid\.csv: there is none of its 2 clips \(.*one.*\); of the first, .*one\.mp4 is"
    with pytest.raises(InputError, match=message):
        fit(replace(settings, valid=labels))


def test_workers_that_do_not_share_memory_can_be_given_the_clips(make, settings):
    """Python starts them with pickled copies on macOS, and everywhere from version 3.14."""
    data = Batches(*make(), settings, no_progress)
    clips = clips_of_run(settings, no_progress, no_corpus)
    data.prepare(clips.train, clips.valid)
    for loader in (data.training(), data.validation()):
        dataset, collate = pickle.loads(pickle.dumps((loader.dataset, loader.collate_fn)))
        assert len(collate([dataset[ClipKey(0, 0)]]).texts) == 1


@pytest.mark.parametrize(("precision", "fused"), [("bf16-mixed", True), ("16-mixed", False)])
def test_scaled_gradients_are_not_left_to_the_optimizer_to_unscale(
    make, settings, precision, fused
):
    """They are unscaled before they are clipped; a fused optimizer would unscale them after it."""
    training = Training(*make(), settings, data=None)
    training._device = torch.device("cuda", 0)
    trainer = SimpleNamespace(precision=precision)
    training.trainer = trainer
    optimizer = training.configure_optimizers()["optimizer"]
    assert getattr(optimizer, "_step_supports_amp_scaling", False) == fused


def test_a_share_of_the_training_clips_is_validated_on_and_not_trained_on(settings):
    shared = replace(settings, valid="25%")
    every = clips_of_run(settings, no_progress, no_corpus).train
    clips = clips_of_run(shared, no_progress, no_corpus)
    assert len(clips.valid) == len(every) / 4
    assert sorted(clip.id for clip in clips.train + clips.valid) == [clip.id for clip in every]
    other_seed = clips_of_run(replace(shared, seed=5), no_progress, no_corpus)
    assert other_seed == clips
    fit(shared)
    fewest = clips_of_run(replace(shared, valid="0.001%"), no_progress, no_corpus)
    assert len(fewest.valid) == 1


def test_clips_that_the_audio_encoder_cannot_take_are_left_out(settings, tmp_path, caplog):
    """In both splits: those that the label file says are too long, and those that are."""
    encoder = build("audio", whisper_config(max_source_positions=30), torch.float32)
    encoder.save_pretrained(tmp_path / "short")
    files = {}
    for split in ("train", "valid"):
        files[split] = write_split(tmp_path, split, 12, 3)
        lines = [line.split(",") for line in files[split].read_text().splitlines()]
        long = [fields for fields in lines if int(fields[2]) > 15]
        long[0][2] = "10"
        files[split].write_text("\n".join(map(",".join, lines)))
    fit(
        replace(
            settings,
            data=files["train"],
            valid=files["valid"],
            audio_encoder=str(tmp_path / "short"),
            valid_clips=12,
            max_unreadable=0.5,
        )
    )
    for split in ("train", "valid"):
        assert re.search(rf"{split}/\d+ has 0\.\d\d s of sound .*encoder takes 0\.6 s", caplog.text)
        assert re.search(rf"{split}/\d+ has 1\d frames, at most 15 fit", caplog.text)


def gradients_of_step(settings, monkeypatch):
    """The gradients of a run of one step."""
    clip = Training.configure_gradient_clipping
    found = []

    def keep(self, optimizer, *given, **options):
        clip(self, optimizer, *given, **options)
        for name, weight in self.model.named_parameters():
            if weight.grad is not None:
                found.append((name, weight.grad.clone()))

    with monkeypatch.context() as patch:
        patch.setattr(Training, "configure_gradient_clipping", keep)
        fit(settings)
    return dict(found)


def test_accumulated_batches_have_the_gradients_of_one_batch(settings, tmp_path, monkeypatch):
    step = replace(
        settings,
        max_steps=1,
        noise_probability=0.0,
        audio_rates=(4,),
        video_rates=(2,),
        clip=0.0,
        cache_copies=0,
    )
    clips = clips_of_run(step, no_progress, no_corpus).train
    lengths = [clip.frames for clip in clips]
    batches = buckets(lengths, 70, generator(step.seed, "batches", 0))
    assert len(batches) > 2
    parts = replace(step, max_frames=70, accumulate=len(batches), out=tmp_path / "parts")
    found = gradients_of_step(parts, monkeypatch)
    expected = gradients_of_step(replace(step, max_frames=1000), monkeypatch)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4, msg=name)


def test_a_run_starts_from_the_weights_of_another(settings, tmp_path):
    source = replace(settings, method="llama-mtsk-mss", out=tmp_path / "source", lr=1e-2)
    weights = OmniAVSR.from_pretrained(fit(source)).state_dict()
    tuning = replace(settings, from_=str(source.out), max_steps=1, lr=1e-12)
    tuned = OmniAVSR.from_pretrained(fit(tuning))
    assert tuned.config.method == "llama-mtsk-mss"
    torch.testing.assert_close(tuned.state_dict(), weights)
    record = read_run(settings.out)
    assert record.settings["from_"] == str(source.out)
    assert len(read_metrics(settings.out)) == 1
    refused = replace(tuning, lora_rank=8, audio_rates=(4,), out=tmp_path / "refused")
    message = (
        r"--from .*source has audio_rates 4,16, not 4; lora_rank 4, not 8: leave these options out"
    )
    with pytest.raises(InputError, match=message):
        fit(refused)
    with pytest.raises(InputError, match=r"llm tower .* is not the one of this checkpoint"):
        fit(replace(tuning, llm=str(SHIPPED / "tiny-s"), out=tmp_path / "refused"))
    with pytest.raises(InputError, match=r"there is no folder /nowhere/run"):
        fit(replace(tuning, from_="/nowhere/run", out=tmp_path / "refused"))


def test_an_aligner_is_learned_for_a_model_that_is_complete(settings, tmp_path):
    source = replace(settings, aligner="no", out=tmp_path / "source")
    before = OmniAVSR.from_pretrained(fit(source))
    assert before.aligner is None
    only = replace(settings, aligner="only", from_=str(source.out), max_steps=30, lr=1e-2)
    after = OmniAVSR.from_pretrained(fit(only))
    losses = [row["aligner"] for row in read_metrics(settings.out) if row.get("aligner")]
    assert float(losses[-1]) < 0.8 * float(losses[0])
    assert after.aligner.characters == "".join(sorted(after.aligner.characters))
    weights = after.state_dict()
    for name, weight in before.state_dict().items():
        assert torch.equal(weights[name], weight), name
    with pytest.raises(InputError, match="aligner only needs from"):
        replace(only, from_=None)
    with pytest.raises(InputError, match="aligner only changes no text"):
        replace(only, valid_every=10)
    again = replace(settings, aligner="no", from_=str(settings.out), out=tmp_path / "again")
    kept = OmniAVSR.from_pretrained(fit(again)).aligner
    assert_same_weights(kept.state_dict(), after.aligner.state_dict())


def test_a_folder_that_holds_another_run_is_left_alone(settings):
    settings.out.mkdir()
    notes = settings.out / "notes.txt"
    notes.write_text("mine")
    with pytest.raises(InputError, match="run holds another run"):
        fit(settings)
    assert notes.read_text() == "mine"


def test_unreadable_and_long_clips_are_named_and_skipped(settings, tmp_path, caplog):
    file = write_split(tmp_path / "broken", "train", 6, 9)
    for name in ("000", "001", "002"):
        (tmp_path / "broken" / "corpus" / "train" / f"{name}.mp4").write_bytes(b"not a video")
    with file.open("a") as lines:
        lines.write("corpus,train/long.mp4,9999,0,too long\n")
    fit(replace(settings, data=file, max_unreadable=0.5))
    assert "train/long has 9999 frames, at most 120 fit" in caplog.text
    assert "000.mp4 cannot be read" in caplog.text
    assert "step 2: 3 clips unreadable and 0 steps skipped so far" in caplog.text


@pytest.mark.parametrize(
    ("task", "unused_reader"), [(Task.ASR, "read_video"), (Task.VSR, "read_audio")]
)
@pytest.mark.parametrize("copies", [0, 1])
def test_a_run_of_one_task_reads_only_what_the_task_needs(
    settings, files, monkeypatch, task, unused_reader, copies
):
    monkeypatch.setattr(f"omni_avsr.media.streams.{unused_reader}", None)
    folder = fit(replace(settings, method="llama-avsr", tasks=(task,), cache_copies=copies))
    decoding = DecodeSettings(task=task, checkpoint=str(folder), data=files["test"])
    evaluation = decode_file(decoding)
    (result,) = evaluation.results
    assert evaluation.unreadable == 0
    assert result.clips == 6
