"""Every adapter that a step used gets its gradient, however the step is run."""

import itertools

import pytest
import torch

from omni_avsr.methods import METHODS
from omni_avsr.model.config import FACTORS
from omni_avsr.model.sums import adapter_names, all_adapter_names
from omni_avsr.tasks import Route, Task
from tests.support.towers import TEXTS, clips

COMBINATIONS = [factors for count in range(4) for factors in itertools.combinations(FACTORS, count)]


def step(model, processor, jointly: bool) -> dict[str, torch.Tensor]:
    """The gradients of one step over all tasks: one backward at the end, or one per task."""
    model.zero_grad()
    features = model.encode(processor.media(**clips(30, 12)))
    losses = []
    for task in model.config.tasks:
        route = model.config.choose(task, 4, 2)
        loss = model(processor.batch(features, route, TEXTS[:2])).loss
        losses.append(loss)
        if not jointly:
            loss.backward(retain_graph=True)
    if jointly:
        sum(losses).backward()
    return gradients(model)


def gradients(model) -> dict[str, torch.Tensor]:
    named = model.named_parameters()
    return {name: weight.grad.clone() for name, weight in named if weight.grad is not None}


def with_gradient(model) -> list[str]:
    """The names of the weights with a gradient that is not zero everywhere."""
    return [name for name, gradient in gradients(model).items() if gradient.any()]


def trainable(model) -> set[str]:
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


def adapters_of_a_step(model) -> set[str]:
    """The adapters that a step over all tasks uses."""
    names = {"video"}
    for task in model.config.tasks:
        names.update(adapter_names(model.config.adapters, model.config.choose(task, 4, 2)))
    return names


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("adapters", COMBINATIONS, ids="+".join)
def test_every_adapter_gets_the_gradient_that_one_backward_per_task_gives(
    make, adapters, checkpointing
):
    model, processor = make(adapters=list(adapters))
    model.train()
    expected = step(model, processor, jointly=False)
    if checkpointing:
        model.activation_checkpointing_enable()
    found = step(model, processor, jointly=True)
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)
    loras = [name for name in with_gradient(model) if ".lora_" in name]
    assert {name.split(".")[-2] for name in loras} == adapters_of_a_step(model)


def test_the_adapters_of_a_route_are_named_by_its_task_and_rates():
    assert adapter_names(FACTORS, Route(Task.AVSR, 4, 2)) == ["shared", "avsr", "a4v2"]
    assert adapter_names(["scale"], Route(Task.ASR, 16)) == ["a16"]


def test_a_model_has_an_adapter_for_every_task_and_scale(make):
    model, _ = make(adapters=["task", "scale"])
    scales = ["a4", "a16", "v2", "v5", "a4v2", "a4v5", "a16v2", "a16v5"]
    assert sorted(all_adapter_names(model.config)) == sorted(["asr", "vsr", "avsr", *scales])


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_adapters_and_compressors_and_nothing_else(make, name):
    model, processor = make(method=name)
    task = model.config.tasks[-1]
    batch = processor(**clips(12), text=TEXTS[:1], task=task)
    model(batch).loss.backward()
    trained = {weight.split(".")[0] for weight in with_gradient(model)}
    assert trained == {"audio_compressor", "video_compressor", "video_encoder", "llm"}
    for weight in trainable(model):
        assert "lora_" in weight or "compressor" in weight


def test_a_new_adapter_changes_nothing(make):
    model, processor = make()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.zeros_(weight)
    plain, _ = make(adapters=[], video_lora_rank=0)
    plain.audio_compressor.load_state_dict(model.audio_compressor.state_dict())
    embeddings = model.llm.get_input_embeddings().weight
    plain.llm.get_input_embeddings().weight.data.copy_(embeddings)
    batch = processor(**clips(12), text=TEXTS[:1], task="asr")
    assert torch.equal(model(batch).loss, plain(batch).loss)


def test_a_step_does_not_change_what_is_trainable(make):
    """So that an optimizer that is built before the first step sees every trainable tensor."""
    model, processor = make(adapters=list(FACTORS))
    before = trainable(model)
    step(model, processor, jointly=True)
    assert trainable(model) == before
    assert sum("lora_A.asr" in name for name in before) == 8  # 4 layers, Q and V
