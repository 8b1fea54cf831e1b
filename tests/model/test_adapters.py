"""Every adapter that a step used gets its gradient, however the step is run."""

import itertools

import pytest
import torch

from omni_avsr.methods import METHODS
from omni_avsr.model.adapters import adapter_names, all_adapter_names
from omni_avsr.model.config import FACTORS
from omni_avsr.tasks import Task
from tests.support.towers import TEXTS, clips

COMBINATIONS = [c for n in range(4) for c in itertools.combinations(FACTORS, n)]


def step(model, processor, jointly: bool) -> dict[str, torch.Tensor]:
    """The gradients of one step over all tasks: one backward at the end, or one per task."""
    model.zero_grad()
    media = processor.media(**clips(30, 12))
    features = model.encode(**media)
    losses = []
    for task in model.config.tasks:
        rates = model.config.choose(task, 4, 2)
        tokens = processor.tokens(media, task, rates, TEXTS[:2])
        routing = {f"{modality}_rate": rate for modality, rate in rates.items()}
        losses.append(model(**tokens, task=task, features=features, **routing).loss)
        if not jointly:
            losses[-1].backward(retain_graph=True)
    if jointly:
        sum(losses).backward()
    return {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}


def used(model) -> set[str]:
    names = {n for task in Task for n in adapter_names(model.config.adapters, task, model.config.choose(task, 4, 2))}
    return names | {"video"}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("adapters", COMBINATIONS, ids="+".join)
def test_every_adapter_of_a_step_gets_the_gradient_of_one_backward_per_task(make, adapters, checkpointing):
    model, processor = make(adapters=list(adapters))
    model.train()
    expected = step(model, processor, jointly=False)
    if checkpointing:
        model.activation_checkpointing_enable()
    found = step(model, processor, jointly=True)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")
    with_gradient = {name.split(".")[-2] for name, g in found.items() if ".lora_" in name and g.abs().sum() > 0}
    assert with_gradient == used(model)


def test_adapters_of_a_task_are_the_ones_its_factors_name():
    rates = {"audio": 4, "video": 2}
    assert adapter_names(FACTORS, "avsr", rates) == ["shared", "avsr", "a4v2"]
    assert adapter_names(("scale",), "asr", {"audio": 16}) == ["a16"]


def test_a_model_has_an_adapter_for_every_task_and_scale(make):
    model, _ = make(adapters=["task", "scale"])
    scales = ["a4", "a16", "v2", "v5", "a4v2", "a4v5", "a16v2", "a16v5"]
    assert sorted(all_adapter_names(model.config)) == sorted(["asr", "vsr", "avsr", *scales])


@pytest.mark.parametrize("name", METHODS)
def test_every_method_builds_runs_and_trains_what_its_row_says(make, name):
    model, processor = make(method=name)
    task = model.config.tasks[-1]
    batch = processor(**clips(12), text=TEXTS[:1], task=task)
    model(**batch).loss.backward()
    trained = {n.split(".")[0] for n, w in model.named_parameters() if w.grad is not None and w.grad.abs().sum() > 0}
    assert trained == {"audio_compressor", "video_compressor", "video_encoder", "llm"}
    assert not [
        n for n, w in model.named_parameters() if w.requires_grad and "lora_" not in n and "compressor" not in n
    ]


def test_a_new_adapter_changes_nothing(tower_folders, make):
    model, processor = make()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.zeros_(weight)
    plain, _ = make(adapters=[], video_lora_rank=0)
    plain.audio_compressor.load_state_dict(model.audio_compressor.state_dict())
    batch = processor(**clips(12), text=TEXTS[:1], task="asr")
    matrices = [m.llm.get_input_embeddings().weight for m in (plain, model)]
    matrices[0].data.copy_(matrices[1].data)
    assert torch.equal(model(**batch).loss, plain(**batch).loss)


def test_an_optimizer_built_at_once_sees_every_trainable_tensor(make):
    model, processor = make(adapters=list(FACTORS))
    before = {name for name, w in model.named_parameters() if w.requires_grad}
    step(model, processor, jointly=True)
    assert before == {name for name, w in model.named_parameters() if w.requires_grad}
    assert sum("lora_A.asr" in name for name in before) == 8  # 4 layers, Q and V
