"""Training in 16-mixed survives an overflow; what is sensitive to rounding is not rounded.

Lightning trains in float16 on GPUs only. Its plugin is given a scaler of gradients on the CPU here.
"""

from dataclasses import replace
from itertools import pairwise

import lightning
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch.utils._python_dispatch import TorchDispatchMode

from omni_avsr.model.precision import allow_tf32
from omni_avsr.model.whisper import log_mel
from omni_avsr.run import read_run
from omni_avsr.train import fit as fitting
from omni_avsr.train.step import Training
from tests.support.pretend import GPU, pretended_gpu
from tests.support.runs import TRAINING_STEP, read_metrics

STEPS = 4
SCALE = 2.0**10


@pytest.fixture
def scaler(monkeypatch):
    """Trains in 16-mixed on the CPU, with gradients scaled by this."""
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE)
    plugin = MixedPrecision("16-mixed", "cpu", scaler)
    trainer = lightning.Trainer

    def make_trainer(precision, plugins, **options):
        assert precision == "16-mixed"
        return trainer(plugins=[*plugins, plugin], **options)

    monkeypatch.setattr(fitting, "chosen_precision", lambda name, *_: name)
    monkeypatch.setattr(lightning, "Trainer", make_trainer)
    return scaler


def test_a_step_that_overflows_in_float16_is_skipped_and_the_scale_is_lowered(
    settings, scaler, monkeypatch, caplog
):
    weights = []
    scales = []

    def overflowing(self, batch, step):
        weight, *_ = self._trained().values()
        weights.append(weight.detach().clone())
        scales.append(scaler.get_scale())
        loss = TRAINING_STEP(self, batch, step)
        return loss * torch.finfo(torch.float32).max if step == 1 else loss

    monkeypatch.setattr(Training, "training_step", overflowing)
    fitting.fit(replace(settings, precision="16-mixed", max_steps=STEPS, cache_copies=0))
    assert caplog.text.count("skipped: its gradients are not finite; clips ") == 1
    assert scales == [SCALE, SCALE, SCALE / 2, SCALE / 2]
    changed = [not torch.equal(*pair) for pair in pairwise(weights)]
    assert changed == [True, False, True]
    assert read_run(settings.out).trained["steps_left_out"] == 1
    last = read_metrics(settings.out)[-1]
    assert all(float(last[name]) >= 0 for name in last if name.startswith("valid/loss/"))


class Products(TorchDispatchMode):
    """Notes of each product whether a GPU might round it to TF32."""

    def __init__(self):
        super().__init__()
        self.rounded = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._overloadpacket in (torch.ops.aten.mm, torch.ops.aten.bmm, torch.ops.aten.addmm):
            allowed = torch.backends.cuda.matmul.allow_tf32
            self.rounded.append(allowed and args[-1].dtype == torch.float32)
        return func(*args, **kwargs or {})


@pytest.fixture
def tf32():
    """Allows TF32, and restores what was allowed before."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    allow_tf32()
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def test_layers_may_round_to_tf32_and_log_mel_may_not(make, tf32):
    with pretended_gpu(), Products() as of_mel:
        log_mel(torch.zeros(2, 16_000, device=GPU), 80, 50)
    assert of_mel.rounded == [False]
    with Products() as of_layer:
        torch.nn.Linear(2, 2)(torch.zeros(1, 2))
    assert of_layer.rounded == [True]


def test_rotary_angles_are_no_products_of_matrices(make, tf32):
    """Which TF32 would round, from position 2,048 even the positions themselves."""
    model, _ = make()
    decoder = model.llm.get_base_model().get_decoder()
    with Products() as products:
        decoder.rotary_emb(torch.zeros(1, 9, 8), torch.arange(9)[None])
    assert products.rounded == []
