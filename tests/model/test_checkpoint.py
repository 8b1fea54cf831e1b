import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor

from omni_avsr import OmniAVSR, OmniAVSRProcessor
from omni_avsr.model.config import FORMAT
from tests.support.towers import SMALL, TEXTS, clips


def losses(model, processor):
    batches = [processor(**clips(30, 12), text=TEXTS[:2], task=task) for task in model.config.tasks]
    return torch.stack([model(**batch).loss for batch in batches])


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("settings", [{}, {"adapters": ["scale"]}, {"adapters": [], "video_lora_rank": 0}])
def test_a_saved_model_is_the_same_again(make, tmp_path, full, settings):
    model, processor = make(**settings)
    model.save_pretrained(tmp_path, full=full)
    processor.save_pretrained(tmp_path)
    for load, load_processor in ((OmniAVSR, OmniAVSRProcessor), (AutoModel, AutoProcessor)):
        again, processor_again = load.from_pretrained(tmp_path), load_processor.from_pretrained(tmp_path)
        assert torch.equal(losses(again, processor_again), losses(model, processor))
    trainable = [{name for name, w in m.named_parameters() if w.requires_grad} for m in (model, again)]
    assert trainable[0] == trainable[1]


def test_only_what_was_trained_is_saved_by_default(make, tmp_path):
    model, _ = make()
    model.save_pretrained(tmp_path)
    names = load_file(tmp_path / "model.safetensors").keys()
    assert {name.split(".")[0] for name in names} == {"audio_compressor", "video_compressor", "markers"}
    assert not (tmp_path / "towers").exists()
    towers = json.loads((tmp_path / "config.json").read_text())["towers"]
    assert all(towers[kind]["name"] and towers[kind]["sha256"] for kind in ("audio", "video", "llm"))


def test_a_processor_finds_the_llms_tokenizer(make, tmp_path):
    model, processor = make()
    model.save_pretrained(tmp_path)
    again = OmniAVSRProcessor.from_pretrained(tmp_path)
    assert (
        again(**clips(12), task="asr")["input_ids"].tolist() == processor(**clips(12), task="asr")["input_ids"].tolist()
    )


def test_adapters_load_with_plain_peft(make, tmp_path, tower_folders):
    model, _ = make()
    model.save_pretrained(tmp_path)
    plain = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tower_folders["llm"]), tmp_path / "adapters" / "asr"
    )
    weights = {n.replace(".default.", ".asr."): w for n, w in plain.named_parameters() if "lora_" in n}
    ours = dict(model.llm.named_parameters())
    assert len(weights) == 16
    assert all(torch.equal(weight, ours[name]) for name, weight in weights.items())


def test_a_moved_tower_is_found_where_the_user_says(make, tmp_path, tower_folders):
    model, processor = make()
    model.save_pretrained(tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    config["towers"]["llm"]["name"] = str(tmp_path / "gone")
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"the llm tower .*gone is gone; give towers="):
        OmniAVSR.from_pretrained(tmp_path / "model")
    again = OmniAVSR.from_pretrained(tmp_path / "model", towers={"llm": tower_folders["llm"]})
    assert torch.equal(losses(again, processor), losses(model, processor))


def test_a_tower_with_other_weights_is_refused(make, tmp_path, tower_folders):
    model, _ = make()
    shutil.copytree(tower_folders["video"], tmp_path / "video")
    model.save_pretrained(tmp_path / "model")
    weights = load_file(tmp_path / "video/model.safetensors")
    weights["video_proj.bias"] += 1e-3
    save_file(weights, tmp_path / "video/model.safetensors", {"format": "pt"})
    with pytest.raises(
        ValueError, match=r"the video tower .* is not the one of this checkpoint: sha256 \w{12}, \w{12} expected"
    ):
        OmniAVSR.from_pretrained(tmp_path / "model", towers={"video": tmp_path / "video"})


def test_random_towers_are_saved_only_in_full(tower_folders, tmp_path):
    from tests.support.towers import avhubert_config

    model = OmniAVSR.from_towers(**{**tower_folders, "video": avhubert_config()}, **SMALL)
    with pytest.raises(ValueError, match="the video towers have no name to find them by; save with full=True"):
        model.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path, full=True)


def test_a_checkpoint_of_a_newer_version_is_refused(make, tmp_path):
    model, _ = make()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "format": FORMAT + 1}))
    with pytest.raises(ValueError, match=f"this checkpoint has format {FORMAT + 1}, made by a newer omni-avsr"):
        OmniAVSR.from_pretrained(tmp_path)


def test_weights_that_do_not_fit_the_config_are_named(make, tmp_path):
    model, _ = make()
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("video_compressor.projectors.5.0.bias")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"keys of only one of them: video_compressor\.projectors\.5\.0\.bias"):
        OmniAVSR.from_pretrained(tmp_path)
    shutil.rmtree(tmp_path / "adapters/vsr")
    with pytest.raises(ValueError, match="lacks the adapters vsr"):
        OmniAVSR.from_pretrained(tmp_path)


def test_a_loaded_model_is_saved_again_anywhere(make, tmp_path):
    model, processor = make()
    model.save_pretrained(tmp_path / "full", full=True)
    OmniAVSR.from_pretrained(tmp_path / "full").save_pretrained(tmp_path / "again")
    assert torch.equal(losses(OmniAVSR.from_pretrained(tmp_path / "again"), processor), losses(model, processor))


def test_a_relative_tower_folder_is_checked_too(make, tmp_path, tower_folders, monkeypatch):
    model, _ = make()
    model.save_pretrained(tmp_path / "model")
    shutil.copytree(tower_folders["llm"], tmp_path / "other")
    config = json.loads((tmp_path / "other/config.json").read_text())
    (tmp_path / "other/config.json").write_text(json.dumps({**config, "num_attention_heads": 8}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="is not the one of this checkpoint"):
        OmniAVSR.from_pretrained("model", towers={"llm": "other"})


def test_unknown_options_are_refused(make, tmp_path, tower_folders):
    model, processor = make()
    model.save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="does not know torch_dtype"):
        OmniAVSR.from_pretrained(tmp_path, torch_dtype="bfloat16")
    with pytest.raises(TypeError, match="unknown arguments do_sample"):
        model.generate(**processor(**clips(12), task="asr"), do_sample=True)
    with pytest.raises(ValueError, match="unknown settings lora_rnk"):
        OmniAVSR.from_towers(**tower_folders, lora_rnk=3)
    with pytest.raises(ValueError, match="there is no folder /nonexistent"):
        OmniAVSR.from_pretrained("/nonexistent")
    with pytest.raises(ValueError, match="no-such-model is no folder here, and the hub does not give it"):
        OmniAVSR.from_pretrained("no-such-model")


def test_a_model_in_bfloat16_runs_trains_and_decodes(make, tmp_path):
    model, processor = make()
    model.save_pretrained(tmp_path, full=True)
    half = OmniAVSR.from_pretrained(tmp_path, dtype="bfloat16")
    batch = processor(**clips(30, 12), text=TEXTS[:2], task="avsr")
    loss = half(**batch).loss
    assert loss.item() == pytest.approx(model(**batch).loss.item(), rel=0.02)
    loss.backward()
    assert half.generate(**processor(**clips(30, 12), task="avsr"), num_beams=2).shape[0] == 2
