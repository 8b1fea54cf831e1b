"""The training loop of the tiny towers: it takes so many steps and can be resumed."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from omni_avsr.files import write_atomically
from omni_avsr.train.step import optimizer_groups
from tools.augment import Noise
from tools.corpus import ClipBatch, Clips
from tools.terminal import console

SAVE_EVERY = 60  # seconds
SHOW_EVERY = 5  # seconds
WARMUP_STEPS = 50
WARMUP_SHARE = 0.03  # of the steps
LARGEST_NORM = 1.0  # of the gradient of each module

# Takes a batch and the number of the step. The value named "loss" is minimised, others are shown.
Loss = Callable[[ClipBatch, int], dict[str, Tensor]]
Result = dict[str, Any]  # what a stage took and reached, as in results.json


@dataclass(frozen=True)
class Plan:
    """When a stage ends, and how it learns."""

    name: str
    work: Path  # folder of its checkpoint
    steps: int
    batch: int  # clips
    peak: float  # learning rate
    seed: int
    weight_decay: float = 0.01

    @property
    def checkpoint(self) -> Path:
        return self.work / f"{self.name}.pt"

    def rate(self, step: int) -> float:
        """Returns the learning rate of a step: a warm-up, then a cosine to zero."""
        warmup = max(WARMUP_STEPS, WARMUP_SHARE * self.steps)
        cosine = (1 + math.cos(math.pi * step / self.steps)) / 2
        return self.peak * min(1, (step + 1) / warmup) * cosine


@dataclass
class Clock:
    """How far a stage has come."""

    step: int
    before: float  # seconds of training before it was resumed
    started: float  # monotonic

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.started


def autocast(device: torch.device) -> torch.autocast:
    """Returns a context of bf16 where the hardware computes in it, on GPUs and some CPUs."""
    is_fast = device.type == "cuda" or torch.cpu.get_capabilities().get("avx512_bf16", False)
    return torch.autocast(device.type, torch.bfloat16, enabled=is_fast)


def train(plan: Plan, modules: nn.ModuleDict, loss_of: Loss, clips: Clips, noise: Noise) -> Result:
    """Trains the modules and returns what it took; a checkpoint of the plan is resumed."""
    groups = optimizer_groups(modules.parameters(), plan.weight_decay)
    optimizer = torch.optim.AdamW(groups, plan.peak, betas=(0.9, 0.98), fused=True)
    clock = _resume(plan, modules, optimizer, clips.device)
    display = _Display(plan, clock)
    saved = time.monotonic()
    steps_per_epoch = math.ceil(len(clips) / plan.batch)
    order: list[list[int]] = []
    while clock.step < plan.steps:
        epoch, place = divmod(clock.step, steps_per_epoch)
        if place == 0 or not order:
            order = clips.batches(plan.batch, plan.seed + epoch)
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(clock.step)
        batch = clips.batch(order[place], plan.seed * 1_000_003 + clock.step, noise)
        losses = _update(modules, optimizer, loss_of, batch, clock.step, clips.device)
        clock.step += 1
        display.add(losses)
        if time.monotonic() - saved > SAVE_EVERY:
            _save(plan, modules, optimizer, clock)
            saved = time.monotonic()
    _save(plan, modules, optimizer, clock)
    return {
        "steps": clock.step,
        "seconds": round(clock.seconds),
        "batch": plan.batch,
        "peak_learning_rate": plan.peak,
    }


def _update(
    modules: nn.ModuleDict,
    optimizer: torch.optim.Optimizer,
    loss_of: Loss,
    batch: ClipBatch,
    step: int,
    device: torch.device,
) -> dict[str, Tensor]:
    modules.train()
    with autocast(device):
        losses = loss_of(batch, step)
    losses["loss"].backward()
    for module in modules.values():
        nn.utils.clip_grad_norm_(module.parameters(), LARGEST_NORM)
    optimizer.step()
    optimizer.zero_grad()
    return {name: value.detach() for name, value in losses.items()}


class _Display:
    """Shows the mean losses since it last did so, every few seconds."""

    def __init__(self, plan: Plan, clock: Clock):
        self.plan = plan
        self.clock = clock
        self._reset()

    def _reset(self) -> None:
        self.shown = time.monotonic()
        self.first = self.clock.step
        self.sums: dict[str, Tensor] = {}

    def add(self, losses: dict[str, Tensor]) -> None:
        """Adds the losses of a step."""
        for name, value in losses.items():
            before = self.sums.get(name, torch.zeros_like(value))
            self.sums[name] = before + value
        passed = time.monotonic() - self.shown
        if passed > SHOW_EVERY:
            self._show(passed)
            self._reset()

    def _show(self, passed: float) -> None:
        clock = self.clock
        steps = clock.step - self.first
        spent = clock.step / self.plan.steps
        means = [f"{name} {float(value) / steps:.3f}" for name, value in self.sums.items()]
        console.print(
            f"{self.plan.name}: {spent:4.0%} step {clock.step}, {steps / passed:.1f} steps/s,",
            *means,
        )


def _resume(
    plan: Plan, modules: nn.ModuleDict, optimizer: torch.optim.Optimizer, device: torch.device
) -> Clock:
    """Loads the checkpoint of the plan, if there is one, and returns how far it has come."""
    if not plan.checkpoint.is_file():
        return Clock(step=0, before=0.0, started=time.monotonic())
    state = torch.load(plan.checkpoint, map_location=device, weights_only=True)
    modules.load_state_dict(state["modules"])
    optimizer.load_state_dict(state["optimizer"])
    step, seconds = state["step"], state["seconds"]
    console.print(f"{plan.name}: resumed at step {step} after {seconds:.0f} s")
    return Clock(step, seconds, started=time.monotonic())


def _save(
    plan: Plan, modules: nn.ModuleDict, optimizer: torch.optim.Optimizer, clock: Clock
) -> None:
    state = {
        "modules": modules.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": clock.step,
        "seconds": clock.seconds,
    }
    write_atomically(plan.checkpoint, lambda part: torch.save(state, part))
