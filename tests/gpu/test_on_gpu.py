"""Training, validation, decoding and saving on a GPU that is only pretended.

Every operation that mixes devices fails, and the CPU waits for the GPU only where it has to.
"""

import copy
from dataclasses import replace

import lightning
import pytest
import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import SingleDeviceStrategy

from omni_avsr import OmniAVSR
from omni_avsr.decode.decode import Decoder
from omni_avsr.methods import METHODS
from omni_avsr.tasks import Route, Task
from omni_avsr.train import fit as fitting
from omni_avsr.train.fit import fit
from tests.support.pretend import GPU, pretended_gpu, waits
from tests.support.runs import assert_same_weights, at_step, weights_of_model

LIMITS = [2, 6, 4]  # of new tokens: clips leave the batch one after another


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_validates_decodes_and_saves_on_a_gpu(on_gpu, method, tmp_path):
    made = on_gpu(method)
    loss = made.step(made.batch(), torch.bfloat16)
    assert loss.device == GPU
    assert loss.isfinite()
    trained = [weight for weight in made.model.parameters() if weight.requires_grad]
    assert {weight.device for weight in trained} == {GPU}
    assert {weight.grad.device for weight in trained if weight.grad is not None} == {GPU}

    made.model.eval()
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        made.training.validation_step(made.batch(), 0)
    for mean in made.training.validated.values():
        assert mean.compute().isfinite()

    made.model.save_pretrained(tmp_path)
    loaded = OmniAVSR.from_pretrained(tmp_path).state_dict()
    for name, weight in made.model.state_dict().items():
        assert torch.equal(loaded[name], weight.cpu()), name


@pytest.mark.parametrize(
    ("dtype", "autocast"),
    [
        (torch.float32, None),
        (torch.float32, torch.float16),
        (torch.bfloat16, None),
        (torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.float16),
    ],
)
def test_a_step_trains_in_every_precision(on_gpu, dtype, autocast):
    made = on_gpu(dtype=dtype)
    loss = made.step(made.batch(), autocast)
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    for name, weight in made.model.named_parameters():
        if weight.requires_grad:
            assert weight.dtype == torch.float32, name


def test_a_step_on_a_gpu_is_that_of_the_cpu(setup):
    on_cpu = setup(sink_loss_weight=0.5)
    features = on_cpu.features()
    with pretended_gpu():
        on_gpu = copy.deepcopy(on_cpu)
        on_gpu.training.to(GPU)
        from_media = on_gpu.training.training_step(on_gpu.batch(), 0).item()
        from_features = on_gpu.training.training_step(on_gpu.batch(features), 0).item()
    expected = on_cpu.training.training_step(on_cpu.batch(features), 0).item()
    assert from_media == pytest.approx(expected, rel=1e-4)
    assert from_features == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("beams", [1, 5])
def test_a_gpu_decodes_what_the_cpu_decodes(setup, beams):
    made = setup()
    made.model.eval()
    route = Route(Task.AVSR, 4, 2)
    expected = made.model.generate(made.processor.batch(made.media, route), beams, LIMITS)
    with pretended_gpu():
        made.model.to(GPU)
        batch = made.processor.batch(made.media.to(GPU), route)
        found = made.model.generate(batch, beams, LIMITS)
        assert found.device == GPU
        assert torch.equal(found.cpu(), expected)
        decoder = Decoder(made.model, made.processor, "small")
        features = made.model.encode(made.media.to(GPU))
        texts = [decoded.text for decoded in decoder.transcribe(features, route, beams, 6)]
    assert len(texts) == 3


def test_ids_and_lengths_may_be_on_the_gpu_too(on_gpu):
    made = on_gpu()
    made.model.eval()
    batch = made.processor.batch(made.media, Route(Task.AVSR, 4, 2), list("abc"))
    media = batch.media._with(lambda tensor: tensor.to(GPU))
    moved = replace(batch._with(lambda tensor: tensor.to(GPU)), media=media)
    assert moved.labels.device == moved.media.audio_lengths.device == GPU
    with torch.no_grad():
        loss = made.model(batch.to(GPU)).loss
        assert made.model(moved).loss.item() == pytest.approx(loss.item())
    prefix = made.processor.batch(made.media.to(GPU), Route(Task.ASR, 4))
    ids = made.model.generate(prefix, 2, 4)
    moved = prefix._with(lambda tensor: tensor.to(GPU))
    assert torch.equal(made.model.generate(moved, 2, 4), ids)


def test_a_training_step_waits_for_the_gpu_only_where_it_must(on_gpu):
    made = on_gpu()
    batch = made.batch()
    made.step(batch)  # makes what is kept for later steps
    with waits() as found:
        made.step(batch, torch.bfloat16)
    assert found == {
        # Transformers looks whether HuBERT's mask hides anything, and in each pass of the LLM
        # whether several sequences share a row
        "model/avhubert.py in_context: _local_scalar_dense": 1,
        "model/omni.py _run_llm: _local_scalar_dense": 3,
        # A step whose gradients are not finite is skipped
        "train/step.py configure_gradient_clipping: _local_scalar_dense": 1,
    }


@pytest.mark.parametrize("beams", [1, 3])
def test_decoding_waits_for_the_gpu_once_for_each_token(on_gpu, beams):
    made = on_gpu()
    made.model.eval()
    features = made.model.encode(made.media.to(GPU))
    batch = made.processor.batch(features, Route(Task.AVSR, 4, 2))
    found = {}
    for tokens in (3, 8):
        with waits() as counted:
            ids = made.model.generate(batch, beams, tokens)
        assert ids.shape[1] == tokens
        found[tokens] = counted
    more = found[8] - found[3]
    assert more == {"model/beams.py step: copied to the CPU": 5}
    before_the_first = found[3].total() - 3
    # Damaged features, whether there is padding, the cache of each layer, and the longest row
    layers = made.model.config.llm_config.num_hidden_layers
    assert before_the_first <= 2 + 2 + 2 * layers + 1


class PretendedAccelerator(CPUAccelerator):
    """Does what Lightning asks of the CPU, for another device."""

    def setup_device(self, device: torch.device) -> None:
        pass


@pytest.fixture
def lightning_on_gpu(monkeypatch):
    """Lightning trains on the pretended GPU, in a precision that the test chooses."""
    make_trainer = lightning.Trainer
    chosen = {}

    def trainer(**options):
        precision = options.pop("precision")
        scaler = torch.amp.GradScaler("cuda") if precision == "16-mixed" else None
        options["plugins"] = [*options["plugins"], MixedPrecision(precision, "cuda", scaler)]
        options["strategy"] = SingleDeviceStrategy(GPU, PretendedAccelerator())
        return make_trainer(**options)

    monkeypatch.setattr(lightning, "Trainer", trainer)
    monkeypatch.setattr(fitting, "chosen_precision", lambda *_: chosen["precision"])
    monkeypatch.setattr(torch.cuda, "get_rng_state", torch.get_rng_state)
    monkeypatch.setattr(torch.cuda, "set_rng_state", torch.set_rng_state)
    return chosen


HEARING = {"method": "llama-avsr", "tasks": (Task.ASR,), "max_new_tokens": 2}


def test_a_run_in_float16_trains_validates_and_saves_on_a_gpu(settings, lightning_on_gpu):
    lightning_on_gpu["precision"] = "16-mixed"
    with pretended_gpu():
        fit(replace(settings, **HEARING))
    weights = weights_of_model(settings.out)
    assert all(weight.isfinite().all() for weight in weights.values())


def test_an_interrupted_run_is_resumed_on_a_gpu(settings, lightning_on_gpu, tmp_path):
    lightning_on_gpu["precision"] = "bf16-mixed"
    saving = replace(settings, **HEARING, save_every=1, cache_copies=0)
    whole = replace(saving, out=tmp_path / "whole")
    interrupted = replace(saving, out=tmp_path / "interrupted")

    def stop():
        raise RuntimeError("the power has failed")

    with pretended_gpu():
        fit(whole)
        with pytest.MonkeyPatch.context() as patch:
            at_step(patch, 1, stop)
            with pytest.raises(RuntimeError, match="power"):
                fit(interrupted)
        fit(interrupted)
    assert_same_weights(weights_of_model(whole.out), weights_of_model(interrupted.out))
