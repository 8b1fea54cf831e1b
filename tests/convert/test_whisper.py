"""Whisper in openai's and in CTranslate2's layout becomes transformers' Whisper, or is refused."""

import json
import random
import struct
import tracemalloc

import pytest
import torch
from transformers import WhisperForConditionalGeneration, WhisperModel
from typer.testing import CliRunner

from omni_avsr.cli.app import app
from omni_avsr.convert.whisper import convert_whisper
from omni_avsr.errors import InputError
from omni_avsr.model import towers
from tests.support import whisper

MEL = torch.linspace(-1, 1, 20 * 3000).reshape(1, 20, 3000)
TOKENS = torch.tensor([[3, 1, 4]])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return whisper.random_whisper()


@pytest.fixture(scope="module")
def variables(model):
    return whisper.ctranslate2_variables(model)


@pytest.fixture
def in_ctranslate2(variables, tmp_path):
    """Writes the model, perhaps after a change of its variables, and returns the folder."""

    def write(change=None, **options):
        changed = dict(variables)
        if change:
            change(changed)
        return whisper.write_ctranslate2(changed, tmp_path / "faster/model.bin", **options).parent

    return write


@torch.no_grad()
def logits(model):
    """What the encoder and the decoder make of some sound and text."""
    return model(input_features=MEL, decoder_input_ids=TOKENS).logits


def test_ctranslate2_and_openai_become_the_same_model(model, in_ctranslate2, tmp_path):
    torch.save(whisper.openai_state(model), tmp_path / "tiny.pt")
    for source, out in ((in_ctranslate2(), "a"), (tmp_path / "tiny.pt", "b")):
        convert_whisper(source, tmp_path / out)
        loaded = WhisperForConditionalGeneration.from_pretrained(tmp_path / out)
        assert torch.equal(logits(loaded), logits(model))
        assert loaded.generation_config.no_timestamps_token_id == 50362
        WhisperModel.from_pretrained(tmp_path / out)


@pytest.mark.parametrize(("dtype", "error"), [(torch.int8, 1 / 127), (torch.int16, 1 / 1023)])
def test_quantised_weights_are_numbers_again(variables, tmp_path, dtype, error):
    numbers = whisper.quantised(variables, dtype)
    convert_whisper(whisper.write_ctranslate2(numbers, tmp_path / "model.bin"), tmp_path / "out")
    loaded = WhisperForConditionalGeneration.from_pretrained(tmp_path / "out")
    restored = whisper.ctranslate2_variables(loaded)
    for name, expected in variables.items():
        largest = float(expected.abs().max())
        assert torch.allclose(restored[name], expected, rtol=0, atol=largest * error / 2 + 1e-6)


def test_half_precision_stays_half_precision(in_ctranslate2, variables, tmp_path):
    def halve(changed):
        for name, variable in changed.items():
            changed[name] = variable.half() if variable.dtype == torch.float32 else variable

    convert_whisper(in_ctranslate2(halve), tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "float16"


def test_the_folder_is_an_audio_encoder(model, in_ctranslate2, tmp_path):
    arguments = ["convert", "whisper", str(in_ctranslate2()), str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "encoder/layer_N/ffn/linear_0/bias -> encoder.layers.N.fc1.bias (2)" in result.output
    encoder = towers.build("audio", tmp_path / "out", torch.float32)
    encoder.save_pretrained(tmp_path / "again")
    with torch.no_grad():
        expected = model.model.encoder(MEL).last_hidden_state
        assert torch.equal(encoder(MEL).last_hidden_state, expected)


def test_a_tokenizer_beside_is_kept(in_ctranslate2, tmp_path):
    source = in_ctranslate2()
    (source / "tokenizer.json").write_text("{}")
    convert_whisper(source, tmp_path / "out")
    assert (tmp_path / "out/tokenizer.json").read_text() == "{}"


def test_the_multilingual_vocabularies_know_their_languages(tmp_path):
    for size, languages in ((51865, 99), (51866, 100)):
        state = whisper.openai_state(whisper.random_whisper(size))
        torch.save(state, tmp_path / f"{size}.pt")
        convert_whisper(tmp_path / f"{size}.pt", tmp_path / f"{size}")
        config = json.loads((tmp_path / f"{size}/generation_config.json").read_text())
        assert len(config["lang_to_id"]) == languages
        assert config["task_to_id"]["transcribe"] == 50260 + languages
        assert config["no_timestamps_token_id"] == 50264 + languages


def rename(changed):
    changed["encoder/extra"] = changed.pop("encoder/layer_0/self_attention/linear_0/weight")


def bias_keys(changed):
    bias = torch.ones_like(changed["encoder/layer_1/self_attention/linear_0/bias"])
    changed["encoder/layer_1/self_attention/linear_0/bias"] = bias


def forget_a_scale(changed):
    changed["encoder/conv1/weight"] = changed["encoder/conv1/weight"].to(torch.int8)


def pack(changed):
    changed["encoder/conv1/weight"] = changed["encoder/conv1/weight"].to(torch.int32)


def scale_in_two(changed):
    forget_a_scale(changed)
    changed["encoder/conv1/weight_scale"] = torch.ones(2)


def spoil(changed):
    changed["encoder/conv1/bias"] = torch.full((8,), torch.nan)


def shorten(changed):
    name = "decoder/layer_0/attention/linear_1/bias"
    changed[name] = changed[name][:15]


def add_tokens(changed):
    changed["decoder/embeddings/weight"] = torch.ones(70, 8)


def three_heads(changed):
    changed["decoder/num_heads"] = torch.tensor(3, dtype=torch.int16)


WRONG = [
    (rename, r"4 keys do not fit: encoder/extra has no place; .*linear_0\.query/weight is missing"),
    (bias_keys, r"encoder/layer_1/self_attention/linear_0\.key/bias has no place"),
    (forget_a_scale, r"conv1/weight is quantised in a way that cannot be undone"),
    (pack, r"conv1/weight is quantised in a way that cannot be undone"),
    (scale_in_two, r"conv1/weight_scale is float32 of shape \(2,\), one float32 per row"),
    (spoil, r"encoder/conv1/bias has values that are NaN"),
    (shorten, r"linear_1/bias has shape \(15,\), rows for key, value expected"),
    (add_tokens, r"a vocabulary of 70 tokens, Whisper's have 51864, 51865, 51866"),
    (three_heads, r"it has 3 heads, a divisor of 8 expected"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[change.__name__ for change, _ in WRONG])
def test_what_does_not_fit_is_named_and_nothing_written(in_ctranslate2, tmp_path, change, message):
    with pytest.raises(InputError, match=rf"model\.bin: .*{message}"):
        convert_whisper(in_ctranslate2(change), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_kind_of_model_is_refused(in_ctranslate2, tmp_path):
    with pytest.raises(InputError, match="of the kind TransformerSpec, WhisperSpec expected"):
        convert_whisper(in_ctranslate2(kind="TransformerSpec"), tmp_path / "out")


def test_an_older_layout_is_refused(in_ctranslate2, tmp_path):
    file = in_ctranslate2() / "model.bin"
    file.write_bytes(struct.pack("<I", 5) + file.read_bytes()[4:])
    with pytest.raises(InputError, match="version 5 of CTranslate2's layout, 6 expected"):
        convert_whisper(file, tmp_path / "out")


def test_a_folder_and_a_file_of_something_else_are_refused(model, tmp_path):
    with pytest.raises(InputError, match=r"holds no model\.bin"):
        convert_whisper(tmp_path, tmp_path / "out")
    torch.save(whisper.openai_state(model)["model_state_dict"], tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"x\.pt holds no 'dims'"):
        convert_whisper(tmp_path / "x.pt", tmp_path / "out")


def test_a_tensor_that_repeats_its_values_is_refused(model, tmp_path):
    state = whisper.openai_state(model)
    state["model_state_dict"]["encoder.conv1.bias"] = torch.ones(1).expand(10**12)
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"of shape \(1000000000000,\) repeats its values"):
        convert_whisper(tmp_path / "x.pt", tmp_path / "out")


def small_file(tmp_path):
    variables = {"a/weight": torch.ones(2, 3), "b": torch.ones((), dtype=torch.int8)}
    return whisper.write_ctranslate2(variables, tmp_path / "model.bin")


def test_a_file_that_is_cut_off_anywhere_is_refused(tmp_path):
    file = small_file(tmp_path)
    whole = file.read_bytes()
    for length in range(4, len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"model\.bin: "):
            convert_whisper(file, tmp_path / "out")


def test_a_damaged_file_never_takes_more_memory_than_it_has_bytes(tmp_path):
    file = small_file(tmp_path)
    whole = file.read_bytes()
    chance = random.Random(0)
    tracemalloc.start()
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[chance.randrange(4, len(whole))] = chance.randrange(256)
        file.write_bytes(damaged)
        with pytest.raises(InputError):
            convert_whisper(file, tmp_path / "out")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20
