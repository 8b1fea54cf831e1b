"""The claims of Omni-AVSR and Llama-MTSK in miniature: trained and measured on the toy corpus, with a verdict each.

    python -m recipes.claims --seeds 1,2,3 --write docs/claims.md

A verdict is by the paired bootstrap over clips, pooled over seeds: "holds" if the 95 % interval says so, "does not
hold" if it says the contrary, else "undecided". What is trained is kept in --out: the recipe goes on where it stopped.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape

from omni_avsr import comparing
from omni_avsr.evaluation import Condition, Setting, resampled, tokens_per_second
from omni_avsr.inspecting import inspect
from omni_avsr.run import write_text
from omni_avsr.tasks import Task

from . import common

AUDIO, VIDEO = (4, 16), (2, 5)
CELLS = [
    *(Setting(Task.ASR, a, None) for a in AUDIO),
    *(Setting(Task.VSR, None, v) for v in VIDEO),
    *(Setting(Task.AVSR, a, v) for a in AUDIO for v in VIDEO),
]
CLEAN, ZERO = Condition(), Condition(0.0, "babble")
ST = {"method": "omni-avsr-st"}
MODELS: dict[str, dict[str, Any]] = {
    "omni-avsr-st": ST,
    "omni-avsr-s": {"method": "omni-avsr-s"},
    "omni-avsr-t": {"method": "omni-avsr-t"},
    "shared+task+scale": {**ST, "adapters": "shared,task,scale"},
    "all scales": {**ST, "rates_in_a_step": "all"},
    "tiny-s": {**ST, "llm": "tiny-s"},
    "tiny-l": {**ST, "llm": "tiny-l"},
    "one projector": {**ST, "projectors": "one", "audio_rates": "4,6,8,10,12,14,16", "video_rates": "2,3,4,5"},
    **{name: {"method": f"llama-{name}"} for name in ("mtsk-ms", "mtsk-ss", "mtsk-mss")},
    **{
        f"single {cell}": {
            "method": "llama-avsr",
            "tasks": str(cell.task),
            "audio_rates": str(cell.audio_rate or 4),
            "video_rates": str(cell.video_rate or 2),
        }
        for cell in CELLS
    },
    "vsr (10)": {"method": "llama-avsr", "tasks": "vsr", "video_rates": "10"},
    "vsr (10), decorrelated": {"method": "llama-avsr", "tasks": "vsr", "video_rates": "10", "sink_loss_weight": 1.0},
}
Scores = dict[tuple[Condition, Setting], dict[str, tuple[int, int]]]  # errors and words of each clip


@dataclass
class Claim:
    """What a paper says, what was measured, and whether it holds."""

    text: str
    lines: list[str] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        for word in ("does not hold", "undecided"):
            if word in self.verdicts:
                return word
        return "holds"


@dataclass
class Lab:
    """Trains and measures models when they are first asked for."""

    out: Path
    steps: int | None
    seeds: Sequence[int]

    def scores(self, name: str, **grid: Any) -> Scores:
        """Errors and words of every clip of every seed, of a model at every rate, clean and under babble."""
        pooled: Scores = {}
        for seed in self.seeds:
            for cell, clips in comparing.read(self.measured(name, seed, **grid)).items():
                pooled.setdefault(cell, {}).update({f"{seed} {clip}": score for clip, score in clips.items()})
        return pooled

    def measured(self, name: str, seed: int, **grid: Any) -> Path:
        """The folder of an evaluation."""
        run = self.out / name.replace(" ", "_") / str(seed)
        folder = run / "-".join(["evaluation", *map(str, grid.values())])
        if not (folder / "hypotheses.jsonl").is_file():
            training = common.settings(True, Path(), run, self.steps, seed, **MODELS[name])
            common.train_and_measure(training, folder, **{"snr": "clean,0", **grid})
        return folder

    def spent(self, name: str) -> dict[str, float]:
        """What the training of the first seed took."""
        self.measured(name, self.seeds[0])
        return json.loads((self.out / name.replace(" ", "_") / str(self.seeds[0]) / "run.json").read_text())["trained"]


def wer(clips: dict[str, tuple[int, int]]) -> float:
    """In percent."""
    errors, words = np.array(list(clips.values())).T
    return float(100 * errors.sum() / words.sum())


def difference(first: dict[str, tuple[int, int]], second: dict[str, tuple[int, int]]) -> tuple[float, float, float]:
    """Of the second's WER to the first's, in points, and its 95 % interval."""
    ids = sorted(first.keys() & second.keys())
    (errors, words), (others, _) = (np.array([scores[i] for i in ids]).T for scores in (first, second))
    low, high = np.quantile(resampled(others, words) - resampled(errors, words), [0.025, 0.975])
    return 100 * (others.sum() - errors.sum()) / words.sum(), 100 * float(low), 100 * float(high)


def judge(claim: Claim, name: str, first: dict, second: dict, allowed: float) -> None:
    """Adds whether the second's WER is at most so many points above the first's; below zero: how far below."""
    points, low, high = difference(first, second)
    verdict = "holds" if high <= allowed else "does not hold" if low > allowed else "undecided"
    claim.verdicts.append(verdict)
    claim.lines.append(
        f"{name}: {wer(first):.1f} against {wer(second):.1f}, {points:+.1f} ({low:+.1f} to {high:+.1f}): {verdict}"
    )


def one_model(lab: Lab) -> Claim:
    claim = Claim("One model serves all tasks and rates: each cell at most one point above a model of its own.")
    for cell in CELLS:
        single = lab.scores(f"single {cell}")[CLEAN, cell]
        for name in ("omni-avsr-s", "omni-avsr-t", "omni-avsr-st"):
            judge(claim, f"{cell}, single against {name}", single, lab.scores(name)[CLEAN, cell], 1.0)
    return claim


def matryoshka(lab: Lab) -> Claim:
    claim = Claim("Matryoshka matches models of each rate within one point; a model of one rate collapses at others.")
    for cell in CELLS[4:]:
        single = lab.scores(f"single {cell}")[CLEAN, cell]
        judge(claim, f"{cell}, single against llama-mtsk-ms", single, lab.scores("mtsk-ms")[CLEAN, cell], 1.0)
    finest, coarsest = CELLS[4], CELLS[-1]
    pooled = lab.scores(f"single {finest}", audio_rates="16", video_rates="5")[CLEAN, coarsest]
    matched = lab.scores("mtsk-ms")[CLEAN, coarsest]
    judge(claim, f"{coarsest}, trained at {finest} alone against llama-mtsk-ms, 20 points better", pooled, matched, -20)
    return claim


def sampling(lab: Lab) -> Claim:
    claim = Claim(
        "Sampling one rate per modality and step matches all rates within one point, at a fraction of the cost."
    )
    every, sampled = lab.scores("all scales"), lab.scores("omni-avsr-st")
    for cell in CELLS:
        judge(claim, f"{cell}, all against sampled", every[CLEAN, cell], sampled[CLEAN, cell], 1.0)
    times = [lab.spent(name)["seconds"] for name in ("all scales", "omni-avsr-st")]
    ratio = times[1] / times[0]
    claim.lines.append(
        f"training took {times[1]:.0f} s against {times[0]:.0f} s, {ratio:.2f} of it; passes 3 against 8"
    )
    claim.verdicts.append("holds" if ratio < 0.5 else "does not hold")
    return claim


def strategies(lab: Lab) -> Claim:
    claim = Claim("The LoRA strategies are within two points of each other, at the finest and the coarsest rates.")
    for cell in (CELLS[4], CELLS[-1]):
        base = lab.scores("omni-avsr-st")[CLEAN, cell]
        for name in ("omni-avsr-s", "omni-avsr-t", "shared+task+scale"):
            judge(claim, f"{cell}, omni-avsr-st against {name}", base, lab.scores(name)[CLEAN, cell], 2.0)
        base = lab.scores("mtsk-mss")[CLEAN, cell]
        for name in ("mtsk-ms", "mtsk-ss"):
            judge(claim, f"{cell}, llama-mtsk-mss against {name}", base, lab.scores(name)[CLEAN, cell], 2.0)
    return claim


def noise(lab: Lab) -> Claim:
    claim = Claim("At 0 dB babble AVSR is better than ASR, at each rate.")
    scores = lab.scores("omni-avsr-st")
    for cell in CELLS[4:]:
        heard = scores[ZERO, Setting(Task.ASR, cell.audio_rate, None)]
        judge(claim, f"ASR ({cell.audio_rate}) against {cell}", heard, scores[ZERO, cell], 0.0)
    return claim


def llm_size(lab: Lab) -> Claim:
    claim = Claim("Larger LLMs are better, at the finest rates.")
    for small, large in (("tiny-s", "omni-avsr-st"), ("omni-avsr-st", "tiny-l")):
        for cell in (CELLS[0], CELLS[2], CELLS[4]):
            first, second = (lab.scores(name)[CLEAN, cell] for name in (small, large))
            names = [MODELS[name].get("llm", "tiny-m") for name in (small, large)]
            judge(claim, f"{cell}, {names[0]} against {names[1]}", first, second, 0.0)
    return claim


def elastic(lab: Lab) -> Claim:
    claim = Claim("Coarser rates save tokens and FLOPs, for at most ten points of WER in AVSR.")
    scores = lab.scores("omni-avsr-st")
    facts = inspect(str(lab.out / "omni-avsr-st" / str(lab.seeds[0])))
    costs = {(c["task"], c["audio_rate"], c["video_rate"]): c["llm_gflops_per_second"] for c in facts["costs"]}
    for cell in CELLS:
        tokens, flops = tokens_per_second(*cell), costs[cell.task, cell.audio_rate, cell.video_rate]
        claim.lines.append(
            f"{cell}: {tokens:.1f} tokens and {flops:.3f} LLM GFLOPs a second, {wer(scores[CLEAN, cell]):.1f} %"
        )
    judge(claim, f"{CELLS[4]} against {CELLS[-1]}", scores[CLEAN, CELLS[4]], scores[CLEAN, CELLS[-1]], 10.0)
    return claim


def beyond(lab: Lab) -> Claim:
    claim = Claim(
        "Beyond the papers: one projector serves rates that were never trained; decorrelation helps at high rates."
    )
    between = lab.scores("one projector", audio_rates="5,9", video_rates="2")
    trained = lab.scores("one projector")
    for rate, near in ((5, 6), (9, 10)):
        cells = [Setting(Task.ASR, r, None) for r in (near, rate)]
        judge(
            claim,
            f"{cells[0]}, trained, against {cells[1]}, not",
            trained[CLEAN, cells[0]],
            between[CLEAN, cells[1]],
            2.0,
        )
    cell = Setting(Task.VSR, None, 10)
    first, second = (lab.scores(name)[CLEAN, cell] for name in ("vsr (10)", "vsr (10), decorrelated"))
    judge(claim, f"{cell}, without against with the decorrelation loss", first, second, 0.0)
    return claim


CLAIMS: list[Callable[[Lab], Claim]] = [
    one_model, matryoshka, sampling, strategies, noise, llm_size, elastic, beyond
]  # fmt: skip


def main(
    out: common.Out = Path("runs/claims"),
    steps: common.Steps = None,
    seeds: Annotated[str, typer.Option(help="Seeds, such as 1,2,3.")] = "1,2,3",
    claims: Annotated[str, typer.Option(help="Which claims, by number.")] = "1,2,3,4,5,6,7,8",
    write: Annotated[Path | None, typer.Option(help="Write the verdicts here, as Markdown.")] = None,
    toy: Annotated[bool, typer.Option("--toy", help="On the toy corpus; there is no other way.")] = True,
) -> None:
    """Trains what is needed, and prints a verdict per claim."""
    lab, started, found = Lab(out, steps, [int(seed) for seed in seeds.split(",")]), time.monotonic(), []
    for number in map(int, claims.split(",")):
        claim = CLAIMS[number - 1](lab)
        found.append((number, claim))
        Console().print(f"[bold]{number}. {escape(claim.text)} {claim.verdict.upper()}[/bold]")
        for line in claim.lines:
            Console().print(f"   {line}", highlight=False)
    if write:
        write_text(write, "\n".join(page(found, lab, time.monotonic() - started)) + "\n")


def page(found: Sequence[tuple[int, Claim]], lab: Lab, seconds: float) -> Iterator[str]:
    """The verdicts as Markdown."""
    steps = lab.steps or common.TOY.max_steps
    yield "# The papers' claims, on the toy corpus\n"
    yield (
        f"Written by `python -m recipes.claims --seeds {','.join(map(str, lab.seeds))} --steps {steps}` in "
        f"{seconds / 60:.0f} minutes (what was trained before is not counted). WER in percent on "
        f"{common.TOY.toy_clips // 8} clips of unseen sentences and speakers; differences in points with their 95 % "
        "interval, by the paired bootstrap over the clips of all seeds."
    )
    for number, claim in found:
        yield f"\n## {number}. {claim.text} **{claim.verdict}**\n"
        yield from (f"- {line}" for line in claim.lines)


if __name__ == "__main__":
    typer.run(main)
