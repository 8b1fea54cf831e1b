"""Every method trains; what it writes can be loaded and decoded; each mistake is one sentence."""

import csv
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from omni_avsr import OmniAVSR, OmniAVSRConfig
from omni_avsr.decode.decode import decode_file
from omni_avsr.methods import METHODS
from omni_avsr.model import adapters
from omni_avsr.settings import DecodeSettings
from omni_avsr.train import fit as training
from omni_avsr.train.fit import fit, routes
from tests.support.corpus import write_split


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_two_steps(settings, method):
    model = OmniAVSR.from_pretrained(fit(replace(settings, method=method)))
    assert model.config.method == method
    assert tuple(model.config.adapters) == METHODS[method].adapters


def losses(run):
    rows = csv.DictReader((run / "metrics.csv").open())
    return [sum(float(row[task]) for task in ("asr", "vsr", "avsr")) for row in rows if row["asr"]]


def test_the_loss_falls_and_the_run_can_be_decoded(settings, tmp_path, files):
    longer = replace(settings, max_steps=120, lr=1e-2, noise_probability=0.2, valid_every=60)
    folder = fit(longer)
    falling = losses(tmp_path / "run")
    assert falling[-1] < 0.6 * falling[0]
    _, row, failed = decode_file(DecodeSettings(task="avsr", checkpoint=str(tmp_path / "run"), data=files["train"]))
    assert (failed, row["clips"], row["checkpoint"]) == (0, 24, str(folder))


def test_cached_and_fresh_features_train_the_same_model(settings, tmp_path):
    still = replace(settings, noise_probability=0.0)
    models = []
    for copies in (0, 1):
        clean = replace(still, cache_copies=copies, out=str(tmp_path / f"run{copies}"), max_steps=1)
        models.append(OmniAVSR.from_pretrained(fit(clean)).state_dict())
    for name, weight in models[0].items():
        torch.testing.assert_close(models[1][name].float(), weight.float(), atol=5e-3, rtol=0, msg=name)


def test_kept_features_train_the_same_model_without_encoding_again(settings, tmp_path, monkeypatch):
    keep = {"cache_copies": 1, "feature_cache": str(tmp_path / "features")}
    first = OmniAVSR.from_pretrained(fit(replace(settings, **keep, out=str(tmp_path / "first"))))
    monkeypatch.setattr("omni_avsr.train.fit.Batches._cached", None)
    second = OmniAVSR.from_pretrained(fit(replace(settings, **keep, out=str(tmp_path / "second")))).state_dict()
    assert all(torch.equal(weight, second[name]) for name, weight in first.state_dict().items())
    with pytest.raises(TypeError):  # another seed augments otherwise
        fit(replace(settings, **keep, out=str(tmp_path / "third"), seed=9))


def test_the_model_of_a_run_is_its_best_not_its_last(settings, tmp_path, monkeypatch):
    log = training.Training.log

    def growing(self, name, value, **options):
        log(self, name, value + self.global_step if name == "valid/wer" else value, **options)

    monkeypatch.setattr(training.Training, "log", growing)
    saved = load_file(fit(replace(settings, max_steps=4, valid_every=2)) / "model.safetensors")
    best = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    assert best["global_step"] == 2
    compressors = [name for name in saved if "_compressor." in name]
    assert compressors
    assert all(torch.equal(saved[name], best["state_dict"][f"model.{name}"]) for name in compressors)


def test_layers_are_computed_again_on_the_way_back_where_that_is_asked_for(settings, tmp_path, monkeypatch):
    calls, context = [], adapters.recompute_context
    monkeypatch.setattr(adapters, "recompute_context", lambda model: calls.append(model) or context(model))
    plain = fit(replace(settings, out=str(tmp_path / "plain")))
    assert not calls
    again = fit(replace(settings, gradient_checkpointing=True))
    assert len(calls) == 2 * 3 * OmniAVSRConfig.from_pretrained(again).llm_config.num_hidden_layers  # steps, passes
    for name, weight in load_file(plain / "model.safetensors").items():
        torch.testing.assert_close(load_file(again / "model.safetensors")[name], weight)


def test_a_run_is_the_same_again_with_its_seed(settings, tmp_path):
    runs = [OmniAVSR.from_pretrained(fit(replace(settings, out=str(tmp_path / name)))).state_dict() for name in "ab"]
    assert all(torch.equal(weight, runs[1][name]) for name, weight in runs[0].items())


def test_a_run_folder_says_everything(settings, tmp_path):
    fit(settings)
    run = json.loads((tmp_path / "run/run.json").read_text())
    assert run["settings"]["method"] == "omni-avsr-st"
    assert {"python", "torch", "transformers", "peft", "lightning"} <= run["versions"].keys()
    header = (tmp_path / "run/metrics.csv").read_text().splitlines()[0]
    for name in ("asr(4)", "asr(16)", "vsr(2)", "vsr(5)", "avsr(4,2)", "avsr(16,5)"):
        assert f"valid/wer/{name}" in header.replace('"', "")
        assert f"valid/loss/{name}" in header.replace('"', "")
    checkpoint = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    assert not [name for name in checkpoint["state_dict"] if "lora_" not in name and "compressor" not in name]


def test_passes_in_a_step_are_the_methods(make):
    model, _ = make()
    from omni_avsr.data.augment import generator

    assert [len(routes(model.config, mode, generator(1))) for mode in ("fixed", "sampled", "all")] == [3, 3, 8]
    drawn = {routes(model.config, "sampled", generator(i))[2] for i in range(50)}
    assert drawn == {("avsr", a, v) for a in (4, 16) for v in (2, 5)}
    assert routes(model.config, "all")[:2] == [("asr", 4, None), ("asr", 16, None)]


def test_a_trained_video_lora_trains(settings):
    lora = replace(settings, video_lora_rank=2, cache_copies=0, max_steps=2)
    model = OmniAVSR.from_pretrained(fit(lora))
    assert all(w.any() for name, w in model.video_encoder.named_parameters() if "lora_B" in name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "omni"}, "unknown method 'omni'; available"),
        ({"tasks": "asr,tts"}, "unknown task 'tts'; available: asr, vsr, avsr"),
        ({"audio_rates": "4,x"}, "'4,x' is not a list of whole numbers"),
        ({"logger": "mlflow"}, "unknown logger 'mlflow'; available: tensorboard, wandb, csv, none"),
        ({"task_weights": "1,2"}, "task_weights '1,2' are not three numbers"),
        ({"task_weights": "1,2,3,4"}, "task_weights '1,2,3,4' are not three numbers"),
        ({"method": "llama-avsr", "tasks": "asr,vsr"}, "llama-avsr trains one task, asr,vsr were given"),
        ({"video_lora_rank": 4}, "cached features and a trained video encoder exclude each other"),
        ({"valid": None}, "give both data and valid"),
        ({"max_frames": 5}, "all 24 clips are longer than the budget of 5 frames"),
        ({"data": "/nowhere.csv"}, "label file /nowhere.csv does not exist"),
    ],
)
def test_a_mistake_in_the_settings_is_one_sentence(settings, changes, message):
    with pytest.raises(ValueError, match=message):
        fit(replace(settings, **changes))


def test_validation_clips_are_neither_test_nor_training_clips(settings, files):
    with pytest.raises(ValueError, match="validates on clips of the test file"):
        fit(replace(settings, test=files["valid"]))


def test_a_folder_that_holds_another_run_is_left_alone(settings, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="run holds another run"):
        fit(settings)
    assert (tmp_path / "run/notes.txt").read_text() == "mine"


def test_unreadable_and_long_clips_are_named_and_skipped(settings, tmp_path, caplog):
    file = write_split(tmp_path / "broken", "train", 6, 9)
    for i in range(3):
        (tmp_path / f"broken/corpus/train/00{i}.mp4").write_bytes(b"not a video")
    file.write_text(file.read_text() + "corpus,train/long.mp4,9999,0,too long\n")
    fit(replace(settings, data=str(file), max_unreadable=0.5))
    assert "train/long has 9999 frames, over the budget of 120" in caplog.text
    assert "000.mp4 cannot be read" in caplog.text
    assert "step 2: 3 clips unreadable, 0 steps left out so far" in caplog.text


@pytest.mark.parametrize(("task", "unread"), [("asr", "read_video"), ("vsr", "read_audio")])
@pytest.mark.parametrize("copies", [0, 1])
def test_a_task_alone_reads_what_it_takes(settings, files, monkeypatch, task, unread, copies):
    monkeypatch.setattr(f"omni_avsr.media.streams.{unread}", None)
    folder = fit(replace(settings, method="llama-avsr", tasks=task, cache_copies=copies))
    _, row, failed = decode_file(DecodeSettings(task=task, checkpoint=str(folder), data=files["train"]))
    assert (failed, row["clips"]) == (0, 24)


def test_kept_features_are_of_what_a_run_takes(settings, tmp_path):
    keep = {"cache_copies": 1, "feature_cache": str(tmp_path / "features")}
    fit(replace(settings, **keep, method="llama-avsr", tasks="asr", out=str(tmp_path / "first")))
    fit(replace(settings, **keep, out=str(tmp_path / "second")))
    fit(replace(settings, **keep, audio_context="padded", out=str(tmp_path / "third")))
    assert len(list((tmp_path / "features").iterdir())) == 3
