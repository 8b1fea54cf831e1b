"""How a plan is printed."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from omni_avsr.cli.terminal import say

if TYPE_CHECKING:  # this module takes long to import, and --help answers at once
    from omni_avsr.measure.plan import Plan

GIB = 2**30  # bytes
MIB = 2**20


def show_plan(plan: "Plan") -> None:
    """Prints what a plan found, in tables."""
    weights = plan.dtype if plan.quantize is None else f"{plan.dtype}, the LLM in {plan.quantize}"
    say(
        f"{plan.clips} clips of {plan.seconds:g} s in a batch; frozen weights in {weights}, "
        f"passes in {plan.precision}; GPUs: {plan.gpus}"
    )
    _show_parameters(plan)
    _show_memory("Training: memory of a GPU, at a step's peak", plan.training)
    _show_memory("Decoding: memory of a GPU, at its peak", plan.decoding)
    say(f"Encoding the clips takes {plan.encoding_peak / GIB:.2f} GiB at its peak")
    say(
        f"A step computes {plan.step_tflops:.3g} TFLOP, and encoding a batch "
        f"{plan.encoding_tflops:.3g}; the training takes [bold]{plan.hours:.3g} hours[/bold] "
        f"for {plan.epochs:.3g} passes over the data"
    )
    for gib, frames in plan.max_frames.items():
        fits = f"--max-frames {frames}" if frames else "not even one clip"
        say(f"A GPU of {gib:g} GiB holds: [bold]{fits}[/bold]")


def _show_parameters(plan: "Plan") -> None:
    table = Table("part", "parameters")
    for part, count in plan.parameters.items():
        table.add_row(part, f"{count:,}")
    Console().print(table)


def _show_memory(title: str, parts: dict[str, int]) -> None:
    together = sum(parts.values())
    unit = "GiB" if together >= GIB else "MiB"
    table = Table("part", unit, title=title, title_justify="left")
    table.columns[1].justify = "right"
    for part, size in {**parts, "together": together}.items():
        shown = f"{size / GIB:.2f}" if unit == "GiB" else f"{size / MIB:.1f}"
        table.add_row(part, shown, end_section=part == "together")
    Console().print(table)
