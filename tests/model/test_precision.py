"""The number types of a model: half precision for what is frozen, float32 for the rest."""

from contextlib import nullcontext

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from omni_avsr import OmniAVSR, OmniAVSRProcessor
from omni_avsr.errors import InputError
from omni_avsr.model.adapters import leave_casting_to_autocast
from omni_avsr.model.precision import chosen_dtype, chosen_precision
from tests.support.towers import TEXTS, clips

HALVES = [torch.bfloat16, torch.float16]


@pytest.fixture(scope="module")
def single():
    return OmniAVSR.from_pretrained("tiny")


@pytest.fixture(scope="module", params=HALVES, ids=str)
def half(request):
    return OmniAVSR.from_pretrained("tiny", dtype=request.param)


@pytest.fixture(scope="module")
def processor():
    return OmniAVSRProcessor.from_pretrained("tiny")


def dtypes(model, *parts):
    """The types of the weights and buffers whose names have these parts."""
    named = [*model.named_parameters(), *model.named_buffers()]
    floats = {name: value for name, value in named if value.is_floating_point()}
    return {value.dtype for name, value in floats.items() if all(part in name for part in parts)}


def test_only_what_is_frozen_is_in_half_precision(half):
    for name, weight in half.named_parameters():
        is_norm = ".bn" in name or "downsample.1" in name
        expected = torch.float32 if weight.requires_grad or is_norm else half.llm.dtype
        assert weight.dtype == expected, name
    assert dtypes(half, "running") == {torch.float32}
    assert dtypes(half, "inv_freq") == {torch.float32}


def test_statistics_of_norms_are_read_unrounded(single, half):
    expected = dict(single.video_encoder.named_buffers())
    for name, statistics in half.video_encoder.named_buffers():
        assert torch.equal(statistics, expected[name]), name


def test_random_towers_in_half_precision_have_the_same_types():
    shipped = OmniAVSR.from_pretrained("tiny").config
    configs = [getattr(shipped, f"{kind}_config") for kind in ("audio", "video", "llm")]
    model = OmniAVSR.from_towers(*configs, dtype="bfloat16")
    assert dtypes(model, "running") == dtypes(model, "inv_freq") == {torch.float32}
    assert dtypes(model, "layers", "q_proj.base_layer.weight") == {torch.bfloat16}
    assert dtypes(model, "lora_") == dtypes(model, "compressor") == {torch.float32}


def test_losses_and_transcripts_hardly_depend_on_the_precision(single, half, processor):
    media = clips(30, 41)
    batch = processor(**media, text=TEXTS[:2], task="avsr")
    prefix = processor(**media, task="avsr")
    with torch.no_grad():
        assert half(batch).loss.dtype == torch.float32
        assert half(batch).loss.item() == pytest.approx(single(batch).loss.item(), rel=0.02)
    found = half.generate_with_scores(prefix, 3, 4)
    expected = single.generate_with_scores(prefix, 3, 4)
    assert found.scores.dtype == torch.float32
    assert torch.allclose(found.scores, expected.scores, atol=0.1)


class Kept:
    """The tensors that a forward pass keeps for the backward pass."""

    def __init__(self, model, autocast):
        self.model = model
        self.autocast = autocast
        self.tensors = []

    def loss(self, batch):
        self.tensors.clear()
        with saved_tensors_hooks(self._note, lambda tensor: tensor), self._precision():
            return self.model(batch).loss

    def _precision(self):
        return torch.autocast("cpu", torch.bfloat16) if self.autocast else nullcontext()

    def _note(self, tensor):
        self.tensors.append(tensor)
        return tensor


@pytest.mark.parametrize("autocast", [True, False], ids=["bf16-mixed", "32-true"])
def test_a_step_keeps_no_copy_of_a_frozen_weight(processor, autocast):
    model = OmniAVSR.from_pretrained("tiny", dtype="bfloat16").train()
    own = {weight.data_ptr() for weight in model.parameters()}
    shapes = {weight.shape for weight in model.parameters() if not weight.requires_grad}
    kept = Kept(model, autocast)
    kept.loss(processor(**clips(30, 41), text=TEXTS[:2], task="avsr")).backward()
    copies = [value for value in kept.tensors if value.data_ptr() not in own]
    assert not [value.shape for value in copies if value.shape in shapes]
    trained = [weight for weight in model.parameters() if weight.grad is not None]
    assert {weight.grad.dtype for weight in trained} == {torch.float32}


def test_under_autocast_loras_keep_no_copies_of_their_inputs(processor):
    batch = processor(**clips(30, 41), text=TEXTS[:2], task="avsr")
    sizes, losses = [], []
    for leave in (False, True):
        model = OmniAVSR.from_pretrained("tiny", dtype="bfloat16").train()
        if leave:
            leave_casting_to_autocast(model)
        kept = Kept(model, autocast=True)
        losses.append(kept.loss(batch).item())
        storages = {value.untyped_storage().data_ptr(): value for value in kept.tensors}
        sizes.append(sum(value.untyped_storage().nbytes() for value in storages.values()))
    assert losses[0] == losses[1]
    assert sizes[1] < 0.8 * sizes[0]


def on_gpu(monkeypatch, has_bfloat16):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has_bfloat16)


@pytest.mark.parametrize(
    ("device", "has_bfloat16", "dtype", "precision"),
    [
        ("cpu", False, torch.float32, "32-true"),
        ("mps", False, torch.float32, "32-true"),
        ("cuda:1", True, torch.bfloat16, "bf16-mixed"),
        ("cuda", False, torch.float32, "16-mixed"),
    ],
)
def test_the_defaults_are_what_the_device_can_do(
    device, has_bfloat16, dtype, precision, monkeypatch
):
    on_gpu(monkeypatch, has_bfloat16)
    assert chosen_dtype("auto", device) == dtype
    assert chosen_precision(None, dtype, device) == precision


@pytest.mark.parametrize("dtype", ["auto", "bf16", torch.int8])
def test_an_unknown_type_is_refused_with_those_that_there_are(dtype):
    with pytest.raises(InputError, match=r"unknown dtype .*; available: float32, bfloat16"):
        OmniAVSR.from_pretrained("tiny", dtype=dtype)


def test_the_precision_follows_the_type_of_the_towers(monkeypatch):
    on_gpu(monkeypatch, True)
    assert chosen_precision(None, torch.float16, "cuda") == "16-mixed"
    assert chosen_precision(None, torch.bfloat16, "cpu") == "bf16-mixed"
    assert chosen_precision("32-true", torch.bfloat16, "cpu") == "32-true"


@pytest.mark.parametrize(
    ("name", "dtype", "device", "message"),
    [
        ("16-mixed", torch.bfloat16, "cuda", "bfloat16 need --precision bf16-mixed or 32-true,"),
        ("bf16-mixed", torch.float16, "cuda", "float16 need --precision 16-mixed, not bf16-mixed"),
        ("32-true", torch.float16, "cuda", "float16 need --precision 16-mixed, not 32-true"),
        ("16-mixed", torch.float32, "cpu", "float16 trains on a GPU only"),
        (None, torch.float16, "cpu", "float16 trains on a GPU only"),
    ],
)
def test_a_mixture_of_half_precisions_is_refused(name, dtype, device, message):
    with pytest.raises(InputError, match=message):
        chosen_precision(name, dtype, device)
