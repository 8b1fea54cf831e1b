"""The training loop of recipes/tiny_towers.py: a budget in seconds or steps, and a checkpoint to go on from."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .tiny_corpus import Batch, Corpus, Noise, console

SAVE_EVERY = 60  # seconds
SHOW_EVERY = 5  # seconds
WARMUP = 0.03  # of the budget


@dataclass(frozen=True)
class Plan:
    """One stage: when it ends, and how it learns."""

    name: str
    work: Path  # where its checkpoint lies
    seconds: float
    steps: int | None  # instead of seconds
    batch: int
    peak: float  # learning rate
    seed: int
    weight_decay: float = 0.01


Loss = Callable[[Batch, int], dict[str, Tensor]]  # of a batch and the step; 'loss' is what is minimised


def autocast(device: torch.device) -> torch.autocast:
    """bf16 where the hardware computes in it: half the time of a video step, on a CPU too."""
    fast = device.type == "cuda" or torch.cpu.get_capabilities().get("avx512_bf16", False)
    return torch.autocast(device.type, torch.bfloat16, enabled=fast)


def train(plan: Plan, modules: dict[str, nn.Module], loss_of: Loss, corpus: Corpus, noise: Noise) -> dict[str, float]:
    """Trains what of the modules wants a gradient until the budget is spent; goes on from a checkpoint if there is one.

    The learning rate follows the share of the budget that is spent, so a stage of any length ends at zero.
    """
    optimizer = torch.optim.AdamW(_groups(modules, plan.weight_decay), plan.peak, betas=(0.9, 0.98), fused=True)
    step, before = _resume(plan, modules, optimizer, corpus.device)
    started = saved = shown = time.monotonic()
    order: list[list[int]] = []
    sums: dict[str, Tensor] = {}
    first = step
    while (spent := _spent(plan, step, before + time.monotonic() - started)) < 1:
        epoch, place = divmod(step, math.ceil(len(corpus) / plan.batch))
        if not order or not place:
            order = corpus.batches(plan.batch, plan.seed + epoch)
        for group in optimizer.param_groups:
            group["lr"] = plan.peak * _share(spent, step)
        batch = corpus.batch(order[place], plan.seed * 1_000_003 + step, noise)
        losses = _update(modules, optimizer, loss_of, batch, step)
        sums = {name: sums.get(name, 0) + value for name, value in losses.items()}
        step += 1
        now = time.monotonic()
        if now - shown > SHOW_EVERY:
            means = {name: float(value) / (step - first) for name, value in sums.items()}
            _show(plan, spent, step, (step - first) / (now - shown), means)
            shown, first, sums = now, step, {}
        if now - saved > SAVE_EVERY:
            _save(plan, modules, optimizer, step, before + now - started)
            saved = now
    seconds = before + time.monotonic() - started
    _save(plan, modules, optimizer, step, seconds)
    return {"steps": step, "seconds": round(seconds), "batch": plan.batch, "peak_learning_rate": plan.peak}


def _update(modules: dict[str, nn.Module], optimizer, loss_of: Loss, batch: Batch, step: int) -> dict[str, Tensor]:
    for module in modules.values():
        module.train()
    with autocast(batch.frames.device):
        losses = loss_of(batch, step)
    losses["loss"].backward()
    for module in modules.values():
        nn.utils.clip_grad_norm_([p for p in module.parameters() if p.requires_grad], 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return {name: value.detach() for name, value in losses.items()}


def _spent(plan: Plan, step: int, seconds: float) -> float:
    return step / plan.steps if plan.steps else seconds / plan.seconds


def _share(spent: float, step: int) -> float:
    """Of the peak learning rate: a warm-up of some steps and some budget, then a cosine to zero."""
    return min(1, (step + 1) / 50, spent / WARMUP + 0.02) * (1 + math.cos(math.pi * spent)) / 2


def _groups(modules: dict[str, nn.Module], weight_decay: float) -> list[dict]:
    """Every trainable parameter once; norms and biases do not decay."""
    parameters = {id(p): p for module in modules.values() for p in module.parameters() if p.requires_grad}
    matrices = [p for p in parameters.values() if p.dim() > 1]
    vectors = [p for p in parameters.values() if p.dim() <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def _resume(plan: Plan, modules: dict[str, nn.Module], optimizer, device: torch.device) -> tuple[int, float]:
    path = plan.work / f"{plan.name}.pt"
    if not path.is_file():
        return 0, 0.0
    state = torch.load(path, map_location=device, weights_only=True)
    for name, module in modules.items():
        module.load_state_dict(state["modules"][name])
    optimizer.load_state_dict(state["optimizer"])
    console.print(f"{plan.name}: goes on from step {state['step']} after {state['seconds']:.0f} s")
    return state["step"], state["seconds"]


def _save(plan: Plan, modules: dict[str, nn.Module], optimizer, step: int, seconds: float) -> None:
    plan.work.mkdir(parents=True, exist_ok=True)
    states = {name: module.state_dict() for name, module in modules.items()}
    state = {"modules": states, "optimizer": optimizer.state_dict(), "step": step, "seconds": seconds}
    torch.save(state, plan.work / f"{plan.name}.part")
    os.replace(plan.work / f"{plan.name}.part", plan.work / f"{plan.name}.pt")


def _show(plan: Plan, spent: float, step: int, rate: float, means: dict[str, float]) -> None:
    values = " ".join(f"{name} {value:.3f}" for name, value in means.items())
    console.print(f"{plan.name}: {spent:4.0%} step {step}, {rate:.1f} steps/s, {values}")
