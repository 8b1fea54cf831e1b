"""The claims of Omni-AVSR and Llama-MTSK in miniature: trained and measured on the toy corpus, with a verdict each.

    python -m recipes.claims --seeds 1,2,3 --write docs/claims.md

Twenty-one models for each seed: about an hour on two cores.

A comparison is decided by a bootstrap that draws seeds, and then clips, the same for both models: "holds" if the 95 %
interval of the difference lies where the claim has it, "does not hold" if it lies elsewhere, else "undecided". What is
trained is kept in --out: the recipe goes on where it stopped.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from omni_avsr.measure import compare as comparing
from omni_avsr.measure.cost import inspect
from omni_avsr.measure.results import Condition, Setting, tokens_per_second
from omni_avsr.measure.scaling import of_a_step, power_law
from omni_avsr.run import write_text
from omni_avsr.tasks import Task

from . import common
from .verdicts import Claim, Clips, alike, better, no_worse, wer

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


@dataclass
class Lab:
    """Trains and measures models when they are first asked for."""

    out: Path
    steps: int | None
    seeds: Sequence[int]

    def clips(
        self, name: str, cell: Setting, condition: Condition = CLEAN, grid: dict[str, str] | None = None
    ) -> Clips:
        """Errors and words of every clip, of each seed of a model, at one task, its rates and one noise."""
        return {seed: comparing.read(self.measured(name, seed, **grid or {}))[condition, cell] for seed in self.seeds}

    def measured(self, name: str, seed: int, **grid: Any) -> Path:
        """The folder of an evaluation."""
        run = self.out / name.replace(" ", "_") / str(seed)
        folder = run / "-".join(["evaluation", *map(str, grid.values())])
        if not (folder / "report.html").is_file():
            Console().print(f"[dim]{name}, seed {seed}, {' '.join(map(str, grid.values()))}[/dim]")
            training = common.settings(True, Path(), run, self.steps, seed, **MODELS[name])
            common.train_and_measure(training, folder, **grid)
        return folder

    def facts(self, name: str) -> dict[str, Any]:
        """What `omni-avsr info` says of the first seed's model."""
        self.measured(name, self.seeds[0])
        return inspect(str(self.out / name.replace(" ", "_") / str(self.seeds[0])))

    def seconds(self, name: str) -> float:
        """What the training of the first seed took."""
        self.measured(name, self.seeds[0])
        run = self.out / name.replace(" ", "_") / str(self.seeds[0]) / "run.json"
        return json.loads(run.read_text(encoding="utf-8"))["trained"]["seconds"]


def one_model(lab: Lab) -> Claim:
    claim = Claim("One model serves all tasks and rates: no cell is much worse than a model of its own.")
    for cell in CELLS:
        single = lab.clips(f"single {cell}", cell)
        for name in ("omni-avsr-s", "omni-avsr-t", "omni-avsr-st"):
            no_worse(claim, f"{cell}, single against {name}", single, lab.clips(name, cell))
    return claim


def matryoshka(lab: Lab) -> Claim:
    claim = Claim("Matryoshka matches models of each rate; a model of one rate collapses at others.")
    for cell in CELLS[4:]:
        single = lab.clips(f"single {cell}", cell)
        no_worse(claim, f"{cell}, single against llama-mtsk-ms", single, lab.clips("mtsk-ms", cell))
    for fine, coarse in ((CELLS[0], CELLS[1]), (CELLS[2], CELLS[3]), (CELLS[4], CELLS[7])):
        rates = {"audio_rates": coarse.audio_rate, "video_rates": coarse.video_rate}
        pooled = lab.clips(f"single {fine}", coarse, grid={k: str(rate) for k, rate in rates.items() if rate})
        matched = lab.clips(f"single {coarse}", coarse)
        better(claim, f"{coarse}, trained at {fine} alone against its own, 20 points better", pooled, matched, 20)
    return claim


def sampling(lab: Lab) -> Claim:
    claim = Claim("Sampling one rate per modality and step matches all rates, at a fraction of the cost.")
    for cell in CELLS:
        every, sampled = lab.clips("all scales", cell), lab.clips("omni-avsr-st", cell)
        no_worse(claim, f"{cell}, all against sampled", every, sampled)
    costs = lab.facts("omni-avsr-st")["costs"]
    flops, kept = (
        [of_a_step(costs, rates, what) for rates in ("all", "sampled")]
        for what in ("training_gflops", "kept_megabytes")
    )
    times = [lab.seconds(name) for name in ("all scales", "omni-avsr-st")]
    claim.lines += [
        "passes in a step: 8 against 3; the papers count 12: ASR for every video rate too, VSR for every audio rate",
        f"GFLOPs of the LLM a second of speech, there and back: {flops[0]:.2f} against {flops[1]:.2f}, "
        f"{flops[1] / flops[0]:.2f} of it",
        f"MB kept for the way back, likewise: {kept[0]:.1f} against {kept[1]:.1f}, {kept[1] / kept[0]:.2f} of it",
        f"training of seed {lab.seeds[0]}: {times[0]:.0f} s against {times[1]:.0f} s, {times[1] / times[0]:.2f} of it",
    ]
    return claim


def strategies(lab: Lab) -> Claim:
    claim = Claim("The LoRA strategies are alike, at the finest and the coarsest rates.")
    for cell in (CELLS[4], CELLS[-1]):
        base = lab.clips("omni-avsr-st", cell)
        for name in ("omni-avsr-s", "omni-avsr-t", "shared+task+scale"):
            alike(claim, f"{cell}, omni-avsr-st against {name}", base, lab.clips(name, cell))
        base = lab.clips("mtsk-mss", cell)
        for name in ("mtsk-ms", "mtsk-ss"):
            alike(claim, f"{cell}, llama-mtsk-mss against {name}", base, lab.clips(name, cell))
    return claim


def noise(lab: Lab) -> Claim:
    claim = Claim("AVSR withstands babble at 0 dB that ASR does not, at each rate.")
    for cell in CELLS[4:]:
        hears = Setting(Task.ASR, cell.audio_rate, None)
        (heard, both), (quiet, lips) = (
            [lab.clips("omni-avsr-st", c, condition, {"snr": "clean,0"}) for c in (hears, cell)]
            for condition in (ZERO, CLEAN)
        )
        better(claim, f"ASR ({cell.audio_rate}) against {cell} at 0 dB", heard, both)
        claim.lines.append(
            f"from clean to 0 dB: ASR ({cell.audio_rate}) {wer(quiet):.1f} to {wer(heard):.1f}, "
            f"{cell} {wer(lips):.1f} to {wer(both):.1f}"
        )
    return claim


def llm_size(lab: Lab) -> Claim:
    claim = Claim("Larger LLMs are better, at the finest rates.")
    models = {"tiny-s": "tiny-s", "tiny-m": "omni-avsr-st", "tiny-l": "tiny-l"}
    sizes = {llm: lab.facts(name)["parameters"]["LLM"] for llm, name in models.items()}
    for cell in (CELLS[0], CELLS[2], CELLS[4]):
        clips = {llm: lab.clips(name, cell) for llm, name in models.items()}
        for small, large in (("tiny-s", "tiny-m"), ("tiny-m", "tiny-l")):
            better(claim, f"{cell}, {small} against {large}", clips[small], clips[large])
        law = power_law([(sizes[llm], wer(clips[llm])) for llm in models])
        claim.lines.append(f"{cell}: doubling the LLM leaves {law['per_doubling']:.2f} of the word errors")
    return claim


def elastic(lab: Lab) -> Claim:
    claim = Claim("Coarser rates save tokens, FLOPs and time, at no great loss of WER in AVSR.")
    costs = {Setting(Task(c["task"]), c["audio_rate"], c["video_rate"]): c for c in lab.facts("omni-avsr-st")["costs"]}
    rows = json.loads((lab.measured("omni-avsr-st", lab.seeds[0]) / "results.json").read_text(encoding="utf-8"))["rows"]
    spent = {Setting(Task(r["task"]), r["audio_rate"], r["video_rate"]): r["decode_seconds"] for r in rows}
    for cell in CELLS:
        claim.lines.append(
            f"{cell}: {tokens_per_second(*cell):.1f} tokens, {costs[cell]['llm_gflops_per_second']:.3f} LLM GFLOPs a "
            f"second of speech, {spent[cell]:.1f} s to decode, {wer(lab.clips('omni-avsr-st', cell)):.1f} %"
        )
    finest = lab.clips("omni-avsr-st", CELLS[4])
    for cell in CELLS[5:]:
        no_worse(claim, f"{CELLS[4]} against {cell}", finest, lab.clips("omni-avsr-st", cell))
    return claim


def beyond(lab: Lab) -> Claim:
    claim = Claim(
        "Beyond the papers: one projector serves rates that were never trained; decorrelation helps at high rates."
    )
    for near, between in ((4, 5), (8, 9), (12, 13)):
        cells = [Setting(Task.ASR, rate, None) for rate in (near, between)]
        grid = {"tasks": "asr", "audio_rates": f"{near},{between}"}
        trained, untrained = (lab.clips("one projector", cell, grid=grid) for cell in cells)
        no_worse(claim, f"{cells[0]}, trained, against {cells[1]}, not", trained, untrained)
    cell = Setting(Task.VSR, None, 10)
    without, decorrelated = (lab.clips(name, cell) for name in ("vsr (10)", "vsr (10), decorrelated"))
    better(claim, f"{cell}, without against with the decorrelation loss", without, decorrelated)
    return claim


CLAIMS: list[Callable[[Lab], Claim]] = [
    one_model, matryoshka, sampling, strategies, noise, llm_size, elastic, beyond
]  # fmt: skip


def main(
    out: common.Out = Path("runs/claims"),
    steps: common.Steps = None,
    seeds: Annotated[str, typer.Option(help="Seeds, such as 1,2,3.")] = "1,2,3",
    claims: Annotated[str, typer.Option(help="Which claims, by number.")] = "1,2,3,4,5,6,7,8",
    write: Annotated[
        Path | None, typer.Option(help="Write the verdicts here, as Markdown, in place of those of the same claims.")
    ] = None,
    toy: Annotated[bool, typer.Option(help="On the toy corpus, the only one that an evening is enough for.")] = True,
) -> None:
    """Trains what is needed, and prints a verdict per claim."""
    if not toy:
        raise typer.BadParameter("the claims are for the toy corpus; for LRS3 there is a recipe per table")
    lab, found = Lab(out, steps, [int(seed) for seed in seeds.split(",")]), []
    for number in map(int, claims.split(",")):
        claim = CLAIMS[number - 1](lab)
        found.append((number, claim))
        Console().print(f"[bold]{number}. {escape(claim.text)}[/bold] {claim.verdict}")
        for line in claim.lines:
            Console().print(f"   {line}", highlight=False)
    if write:
        known = write.read_text(encoding="utf-8") if write.is_file() else ""
        sections = {int(text.partition(".")[0]): text for text in known.split("\n## ")[1:]}
        sections |= {number: section(number, claim, lab) for number, claim in found}
        write_text(write, "\n## ".join([HEAD, *(sections[number] for number in sorted(sections))]))


HEAD = f"""# The papers' claims, on the toy corpus

Written by `python -m recipes.claims --write docs/claims.md`, section by section (`--claims`). WER in percent on
{common.TOY.toy_clips // 8} clips of unseen sentences and speakers; differences in points with their 95 % interval, by
a bootstrap over seeds and clips. "No worse" and "alike" allow one point or a quarter of the errors, whichever is more.
"""


def section(number: int, claim: Claim, lab: Lab) -> str:
    """A claim's verdicts as Markdown."""
    seeds, steps = ", ".join(map(str, lab.seeds)), lab.steps or common.TOY.max_steps
    lines = "".join(f"- {line}\n" for line in claim.lines)
    verdict = f"Of the comparisons, {claim.verdict}. Seeds {seeds}, {steps} steps."
    return f"{number}. {claim.text}\n\n{verdict}\n\n{lines}"


if __name__ == "__main__":
    typer.run(main)
