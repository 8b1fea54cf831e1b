"""A language model in a GGUF file is an LLM like any other."""

import pytest
import torch

from omni_avsr import OmniAVSR, OmniAVSRProcessor
from omni_avsr.errors import InputError
from omni_avsr.measure.rehearsal import tower_config
from omni_avsr.model import gguf, towers
from omni_avsr.model.quantize import quantization_of
from tests.support.gguf import random_llama, write_gguf
from tests.support.towers import SMALL, whisper_config

pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def llama():
    torch.manual_seed(0)
    return random_llama()


@pytest.fixture(scope="module")
def file(llama, tmp_path_factory):
    return write_gguf(llama, tmp_path_factory.mktemp("gguf") / "small.gguf")


@pytest.fixture(scope="module")
def model(file):
    settings = {"method": "llama-avsr", "tasks": ("asr",), **SMALL}
    return OmniAVSR.from_towers(audio=whisper_config(), llm=str(file), **settings)


def embeddings(model):
    return model.llm.get_input_embeddings().weight


def test_the_weights_are_numbers_again(llama, file):
    found = towers.build("llm", file, torch.float32).state_dict()
    for name, expected in llama.state_dict().items():
        assert torch.equal(found[name], expected), name


def test_a_plan_takes_the_sizes_of_the_file(llama, file):
    assert tower_config("llm", str(file)).hidden_size == llama.config.hidden_size


def test_its_name_may_be_in_capitals():
    assert gguf.is_gguf("MODEL.GGUF")


def test_the_tokenizer_is_in_the_file(model):
    tokenizer = OmniAVSRProcessor.of(model).tokenizer
    ids = tokenizer("the", add_special_tokens=False)["input_ids"]
    assert len(ids) == 2
    assert tokenizer.decode(ids) == "the"


def test_a_model_on_a_gguf_file_is_saved_and_found_again(model, file, tmp_path):
    model.config.towers["audio"] = None
    model.save_pretrained(tmp_path / "full", full=True)
    OmniAVSRProcessor.of(model).save_pretrained(tmp_path / "full")
    found = model.config.towers["llm"]
    assert found == towers.find("llm", found, tmp_path)
    assert found == {"name": str(file), "revision": None, "sha256": towers.checksum(file)}
    full = OmniAVSR.from_pretrained(tmp_path / "full")
    assert torch.equal(
        full.llm.get_input_embeddings().weight, model.llm.get_input_embeddings().weight
    )
    # The other towers are those of the full folder, the LLM is the file, in half precision.
    full.config.towers["llm"] = found
    full.save_pretrained(tmp_path / "light")
    light = OmniAVSR.from_pretrained(tmp_path / "light", dtype="bfloat16")
    assert light.llm.get_input_embeddings().weight.dtype == torch.bfloat16


def test_another_file_in_its_place_is_refused(model, llama, tmp_path):
    other = write_gguf(llama, tmp_path / "other.gguf")
    found = dict(model.config.towers["llm"], name=str(other))
    towers.verify("llm", found)
    content = bytearray(other.read_bytes())
    content[-1] ^= 1
    other.write_bytes(content)
    with pytest.raises(InputError, match=r"other\.gguf is not the one of this checkpoint"):
        towers.verify("llm", found)


def test_a_moved_file_is_found(model, file, tmp_path):
    moved = tmp_path / "moved.gguf"
    moved.write_bytes(file.read_bytes())
    found = towers.find("llm", model.config.towers["llm"], tmp_path, moved)
    towers.verify("llm", found)
    assert found["name"] == str(moved)


def test_what_is_missing_is_said(file, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"there is no file .*none\.gguf"):
        towers.build("llm", tmp_path / "none.gguf", torch.float32)
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs gguf: pip install 'omni-avsr\[gguf\]'"):
        towers.build("llm", file, torch.float32)


@pytest.mark.parametrize("length", [0, 3, 20, 200, -5000])
def test_a_file_that_is_cut_off_is_refused(file, tmp_path, length):
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(file.read_bytes()[:length])
    with pytest.raises(InputError, match=r"cut\.gguf"):
        towers.build("llm", cut, torch.float32)


def test_it_is_quantised_like_any_other(llama, file):
    pytest.importorskip("bitsandbytes")
    llm = towers.build("llm", file, torch.float32, quantize="4bit")
    assert quantization_of(llm) == "4bit"
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        found = llm(ids).logits.flatten()
        expected = llama(ids).logits.flatten()
    assert torch.cosine_similarity(found, expected, dim=0) > 0.9
