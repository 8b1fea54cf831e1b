"""Checkpoint folders: what is written, that it loads again, and what is refused."""

import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoProcessor

from omni_avsr import OmniAVSR, OmniAVSRProcessor
from omni_avsr.errors import InputError
from omni_avsr.model import checkpoint
from omni_avsr.model.config import FORMAT
from omni_avsr.model.towers import build
from tests.support.towers import SMALL, TEXTS, avhubert_config, clips


def losses(model, processor):
    """The loss of every task."""
    found = []
    for task in model.config.tasks:
        batch = processor(**clips(30, 12), text=TEXTS[:2], task=task)
        found.append(model(batch).loss)
    return torch.stack(found)


def trainable(model):
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


def edit_json(file, change):
    """Rewrites a JSON file after changing its contents."""
    contents = json.loads(file.read_text())
    change(contents)
    file.write_text(json.dumps(contents))


@pytest.fixture(scope="module")
def saved(make, tmp_path_factory):
    """A saved model with its folder; not to be changed."""
    model, processor = make()
    folder = tmp_path_factory.mktemp("saved")
    model.save_pretrained(folder)
    return model, processor, folder


@pytest.fixture
def copied(saved, tmp_path):
    """A copy of the saved model's folder, for tests that damage it."""
    return shutil.copytree(saved[2], tmp_path / "model")


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    "settings", [{}, {"adapters": ["scale"]}, {"adapters": [], "video_lora_rank": 0}]
)
def test_a_loaded_model_is_the_model_that_was_saved(make, tmp_path, full, settings):
    model, processor = make(**settings)
    model.save_pretrained(tmp_path, full=full)
    processor.save_pretrained(tmp_path)
    expected = losses(model, processor)
    for model_class, processor_class in (
        (OmniAVSR, OmniAVSRProcessor),
        (AutoModel, AutoProcessor),
    ):
        loaded = model_class.from_pretrained(tmp_path)
        loaded_processor = processor_class.from_pretrained(tmp_path)
        assert torch.equal(losses(loaded, loaded_processor), expected)
        assert trainable(loaded) == trainable(model)


def test_only_what_was_trained_is_saved_by_default(saved):
    _, _, folder = saved
    names = load_file(folder / "model.safetensors").keys()
    parts = {name.split(".")[0] for name in names}
    assert parts == {"audio_compressor", "video_compressor", "markers"}
    assert not (folder / "towers").exists()
    towers = json.loads((folder / "config.json").read_text())["towers"]
    for kind in ("audio", "video", "llm"):
        assert towers[kind]["name"]
        assert towers[kind]["sha256"]


def test_a_processor_without_a_tokenizer_takes_that_of_the_llm(saved):
    _, processor, folder = saved
    loaded = OmniAVSRProcessor.from_pretrained(folder)
    expected = processor(**clips(12), task="asr").input_ids
    assert torch.equal(loaded(**clips(12), task="asr").input_ids, expected)


def test_adapters_load_with_plain_peft(saved, tower_folders):
    model, _, folder = saved
    llm = AutoModelForCausalLM.from_pretrained(tower_folders["llm"])
    plain = PeftModel.from_pretrained(llm, folder / "adapters" / "asr")
    ours = dict(model.llm.named_parameters())
    loras = {name: weight for name, weight in plain.named_parameters() if "lora_" in name}
    assert len(loras) == 16
    for name, weight in loras.items():
        assert torch.equal(weight, ours[name.replace(".default.", ".asr.")])


def test_a_moved_tower_is_found_where_the_user_says(saved, copied, tower_folders):
    model, processor, _ = saved

    def move_llm(config):
        config["towers"]["llm"]["name"] = str(copied / "gone")

    edit_json(copied / "config.json", move_llm)
    with pytest.raises(InputError, match=r"the llm tower .*gone does not exist; give towers="):
        OmniAVSR.from_pretrained(copied)
    loaded = OmniAVSR.from_pretrained(copied, towers={"llm": tower_folders["llm"]})
    assert torch.equal(losses(loaded, processor), losses(model, processor))


def test_a_tower_with_other_weights_is_refused(saved, tmp_path, tower_folders):
    _, _, folder = saved
    other = shutil.copytree(tower_folders["video"], tmp_path / "video")
    weights = load_file(other / "model.safetensors")
    weights["video_proj.bias"] += 1e-3
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    message = (
        r"the video tower .* is not the one of this checkpoint: "
        r"sha256 \w{12}, \w{12} expected"
    )
    with pytest.raises(InputError, match=message):
        OmniAVSR.from_pretrained(folder, towers={"video": other})


def test_random_towers_are_saved_only_in_full(tower_folders, tmp_path):
    model = OmniAVSR.from_towers(**{**tower_folders, "video": avhubert_config()}, **SMALL)
    message = "the video towers have no name to find them by; save with full=True"
    with pytest.raises(InputError, match=message):
        model.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path, full=True)
    assert trainable(OmniAVSR.from_pretrained(tmp_path)) == trainable(model)


def test_a_checkpoint_of_a_newer_version_is_refused(copied):
    edit_json(copied / "config.json", lambda config: config.update(format=FORMAT + 1))
    message = f"this checkpoint has format {FORMAT + 1}, made by a newer omni-avsr"
    with pytest.raises(InputError, match=message):
        OmniAVSR.from_pretrained(copied)


def test_weights_that_do_not_fit_the_config_are_named(copied):
    weights = load_file(copied / "model.safetensors")
    weights.pop("video_compressor.projectors.5.0.bias")
    save_file(weights, copied / "model.safetensors")
    message = r"only one of them has, .*, video_compressor\.projectors\.5\.0\.bias"
    with pytest.raises(InputError, match=message):
        OmniAVSR.from_pretrained(copied)


def test_weights_of_another_shape_than_the_config_says_are_named(copied):
    edit_json(copied / "config.json", lambda config: config.update(projector_width=8))
    message = r"or in another shape, audio_compressor\.projectors\.16\.0\.bias"
    with pytest.raises(InputError, match=message):
        OmniAVSR.from_pretrained(copied)


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "adapters/shared/adapter_model.safetensors",
        "adapters/shared/adapter_config.json",
    ],
)
def test_a_file_that_was_not_written_completely_is_refused_with_its_folder(copied, name):
    content = (copied / name).read_bytes()
    (copied / name).write_bytes(content[:100])
    with pytest.raises(InputError, match=f"{copied} is damaged or not complete"):
        OmniAVSR.from_pretrained(copied)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"{}", None])
def test_a_damaged_tower_is_refused_with_its_folder(tower_folders, tmp_path, name, content):
    folder = shutil.copytree(tower_folders["llm"], tmp_path / "llm")
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=f"the llm tower {folder} cannot be read"):
        build("llm", folder, torch.float32)


def test_a_tower_without_a_shard_or_with_half_a_bin_file_is_refused(tower_folders, tmp_path):
    llm = build("llm", tower_folders["llm"], torch.float32)
    llm.save_pretrained(tmp_path, max_shard_size="50KB")
    index = tmp_path / "model.safetensors.index.json"
    shards = sorted(tmp_path.glob("*.safetensors"))
    shards[-1].unlink()
    with pytest.raises(InputError, match=f"{tmp_path} cannot be read"):
        build("llm", tmp_path, torch.float32)
    for file in (index, *shards[:-1]):
        file.unlink()
    torch.save(llm.state_dict(), tmp_path / "pytorch_model.bin")
    content = (tmp_path / "pytorch_model.bin").read_bytes()
    (tmp_path / "pytorch_model.bin").write_bytes(content[:2000])
    with pytest.raises(InputError, match=f"{tmp_path} cannot be read"):
        build("llm", tmp_path, torch.float32)


def test_a_new_model_needs_a_tokenizer_beside_its_llm(tower_folders, tmp_path):
    folder = shutil.copytree(tower_folders["llm"], tmp_path / "llm")
    for file in folder.glob("token*"):
        file.unlink()
    with pytest.raises(InputError, match=f"no tokenizer can be read from {folder}"):
        OmniAVSR.from_towers(**{**tower_folders, "llm": folder})


def test_a_tokenizer_that_was_not_written_completely_is_refused(saved, copied):
    _, processor, _ = saved
    processor.save_pretrained(copied)
    (copied / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(InputError, match=f"no tokenizer can be read from {copied}"):
        OmniAVSRProcessor.from_pretrained(copied)


def test_a_field_of_another_type_is_named(copied):
    edit_json(copied / "config.json", lambda config: config.update(audio_rates="4,16"))
    with pytest.raises(InputError, match=r"config\.json: .* 'audio_rates'"):
        OmniAVSR.from_pretrained(copied)


def test_a_folder_of_something_else_is_no_model(tower_folders, tmp_path):
    for folder in (tmp_path, tower_folders["llm"]):
        for kind in (OmniAVSR, OmniAVSRProcessor):
            with pytest.raises(InputError, match=r"no config\.json of a model of type omni-avsr"):
                kind.from_pretrained(folder)


@pytest.mark.parametrize("full", [False, True])
def test_a_model_that_was_half_written_over_another_is_no_model(saved, copied, full, monkeypatch):
    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(OSError, match="No space left"):
        saved[0].save_pretrained(copied, full=full)
    with pytest.raises(InputError, match="the model was not written completely"):
        OmniAVSR.from_pretrained(copied)


def test_a_tower_that_is_missing_from_its_model_is_not_looked_for_on_the_hub(saved, tmp_path):
    saved[0].save_pretrained(tmp_path, full=True)
    shutil.rmtree(tmp_path / "towers/llm")
    with pytest.raises(InputError, match=f"the llm tower {tmp_path}/towers/llm does not exist"):
        OmniAVSR.from_pretrained(tmp_path)


def test_a_disk_that_is_full_is_said_to_be(saved, tmp_path, monkeypatch):
    def fail(*_):
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(InputError, match=r"cannot be written: .* No space left"):
        saved[0].save_pretrained(tmp_path)


def test_a_config_can_be_given_to_the_auto_classes(saved):
    config = AutoConfig.from_pretrained(saved[2])
    assert isinstance(AutoModel.from_pretrained(saved[2], config=config), OmniAVSR)


def test_missing_adapters_are_named(copied):
    shutil.rmtree(copied / "adapters/vsr")
    with pytest.raises(InputError, match="lacks the adapters vsr"):
        OmniAVSR.from_pretrained(copied)


def test_a_loaded_model_can_be_saved_in_another_folder(saved, tmp_path):
    model, processor, _ = saved
    model.save_pretrained(tmp_path / "full", full=True)
    OmniAVSR.from_pretrained(tmp_path / "full").save_pretrained(tmp_path / "again")
    loaded = OmniAVSR.from_pretrained(tmp_path / "again")
    assert torch.equal(losses(loaded, processor), losses(model, processor))


def test_a_tower_in_a_relative_folder_is_verified_too(copied, tower_folders, monkeypatch):
    other = shutil.copytree(tower_folders["llm"], copied.parent / "other")
    edit_json(other / "config.json", lambda config: config.update(num_attention_heads=8))
    monkeypatch.chdir(copied.parent)
    with pytest.raises(InputError, match="is not the one of this checkpoint"):
        OmniAVSR.from_pretrained("model", towers={"llm": "other"})


def test_unknown_options_are_refused(saved, tower_folders):
    model, processor, folder = saved
    with pytest.raises(TypeError, match="does not know torch_dtype"):
        OmniAVSR.from_pretrained(folder, torch_dtype="bfloat16")
    with pytest.raises(TypeError, match="unexpected keyword argument 'do_sample'"):
        model.generate(processor(**clips(12), task="asr"), do_sample=True)
    with pytest.raises(InputError, match="unknown settings lora_rnk"):
        OmniAVSR.from_towers(**tower_folders, lora_rnk=3)


def test_a_folder_or_model_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match="there is no folder /nonexistent"):
        OmniAVSR.from_pretrained("/nonexistent")
    message = "no-such-model is not a folder here, and the hub does not provide it"
    with pytest.raises(InputError, match=message):
        OmniAVSR.from_pretrained("no-such-model")


def test_a_model_in_bfloat16_runs_trains_and_decodes(saved, tmp_path):
    model, processor, _ = saved
    model.save_pretrained(tmp_path, full=True)
    half = OmniAVSR.from_pretrained(tmp_path, dtype="bfloat16")
    batch = processor(**clips(30, 12), text=TEXTS[:2], task="avsr")
    loss = half(batch).loss
    assert loss.item() == pytest.approx(model(batch).loss.item(), rel=0.02)
    loss.backward()
    assert len(half.generate(processor(**clips(30, 12), task="avsr"), num_beams=2)) == 2
