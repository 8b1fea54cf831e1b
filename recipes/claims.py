"""The claims of Omni-AVSR and Llama-MTSK in miniature: models on the toy corpus, with verdicts.

    python recipes/claims.py --seeds 1,2,3 --write docs/claims.md

Trains twenty-one models per seed, which takes about an hour on two cores. They are kept in --out,
so an interrupted recipe is resumed.

A comparison is decided by the 95 % interval of the difference, for which seeds and clips are random
draws: it "holds" if the interval lies where the claim has it, "does not hold" if it lies elsewhere,
and is "undecided" otherwise. With fewer than three seeds it is always undecided.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from omni_avsr.cli.recipe import Out, Steps
from omni_avsr.cli.terminal import Bars
from omni_avsr.files import cache_root, write_text
from omni_avsr.measure.compare import read_scores
from omni_avsr.measure.cost import ModelFacts, inspect, training_step
from omni_avsr.measure.results import is_measured, read_results
from omni_avsr.measure.scaling import power_law
from omni_avsr.measure.study import measure_once, of_run, train_once
from omni_avsr.measure.verdicts import Claim, SeedScores, alike, better, no_worse, wer
from omni_avsr.run import read_run, silence_libraries
from omni_avsr.settings import EvaluateSettings, TrainSettings
from omni_avsr.tasks import CLEAN, Condition, Route, Task

ASR = [Route(Task.ASR, 4), Route(Task.ASR, 16)]
VSR = [Route(Task.VSR, None, 2), Route(Task.VSR, None, 5)]
AVSR = [Route(Task.AVSR, *rates) for rates in product((4, 16), (2, 5))]
ROUTES = [*ASR, *VSR, *AVSR]
FINEST = (ASR[0], VSR[0], AVSR[0])
COARSEST = (ASR[-1], VSR[-1], AVSR[-1])
BABBLE = Condition(0.0, "babble")

TOY = TrainSettings(feature_cache=cache_root() / "features")  # otherwise the defaults
MODELS = {
    "omni-avsr-st": TOY,
    "omni-avsr-s": replace(TOY, method="omni-avsr-s"),
    "omni-avsr-t": replace(TOY, method="omni-avsr-t"),
    "shared+task+scale": replace(TOY, adapters=("shared", "task", "scale")),
    "all scales": replace(TOY, rates_in_a_step="all"),
    "tiny-s": replace(TOY, llm="tiny-s"),
    "tiny-l": replace(TOY, llm="tiny-l"),
    "one projector": replace(
        TOY,
        projectors="one",
        audio_rates=(4, 6, 8, 10, 12, 14, 16),
        video_rates=(2, 3, 4, 5),
    ),
    "mtsk-ms": replace(TOY, method="llama-mtsk-ms"),
    "mtsk-ss": replace(TOY, method="llama-mtsk-ss"),
    "mtsk-mss": replace(TOY, method="llama-mtsk-mss"),
}
for route in ROUTES:
    MODELS[f"single {route}"] = replace(
        TOY,
        method="llama-avsr",
        tasks=(route.task,),
        audio_rates=(route.audio_rate or 4,),
        video_rates=(route.video_rate or 2,),
    )
MODELS["vsr (10)"] = replace(TOY, method="llama-avsr", tasks=(Task.VSR,), video_rates=(10,))
MODELS["vsr (10), decorrelated"] = replace(MODELS["vsr (10)"], sink_loss_weight=1.0)

HEAD = f"""# The papers' claims, on the toy corpus

Written by `python recipes/claims.py --write docs/claims.md`, section by section (`--claims`). WER
in percent on {TOY.toy_clips // 8} clips of unseen sentences and speakers; differences in points
with their 95 % interval: Student's t over the seeds, widened by the interval over the clips, unless
a section says otherwise. With fewer than three seeds nothing is decided. "No worse" and "alike"
allow one point or a quarter of the errors, whichever is more.
"""


@dataclass
class Lab:
    """Trains and measures models when they are first asked for."""

    out: Path
    steps: int | None
    seeds: Sequence[int]

    def scores(
        self, name: str, route: Route, condition: Condition = CLEAN, **grid: Any
    ) -> SeedScores:
        """The scores of a model's seeds on a route; `grid` are options of EvaluateSettings."""
        scores = {}
        for seed in self.seeds:
            cells = read_scores(self.measured(name, seed, **grid))
            scores[seed] = cells[condition, route]
        return scores

    def measured(self, name: str, seed: int, **grid: Any) -> Path:
        """The folder of the finished evaluation of a model."""
        values = [",".join(map(str, value)) for value in grid.values()]
        training = self.training(name, seed)
        folder = "-".join(["evaluation", *values])
        measuring = of_run(training, EvaluateSettings(**grid), folder)
        if not is_measured(measuring.out):
            Console().print(f"[dim]{name}, seed {seed}, {' '.join(values)}[/dim]")
            silence_libraries()
            train_once(training, Bars())
            measure_once(measuring, f"{training.method}, seed {seed}", Bars())
        return measuring.out

    def training(self, name: str, seed: int) -> TrainSettings:
        """The settings that a model is trained with."""
        settings = MODELS[name]
        steps = self.steps or settings.max_steps
        out = self.out / name.replace(" ", "_") / str(seed)
        return replace(settings, out=out, max_steps=steps, seed=seed)

    def facts(self, name: str) -> ModelFacts:
        """What `omni-avsr info` says of the model of the first seed."""
        self.measured(name, self.seeds[0])
        return inspect(str(self.training(name, self.seeds[0]).out))

    def seconds(self, name: str) -> float:
        """How long the training of the first seed took."""
        self.measured(name, self.seeds[0])
        record = read_run(self.training(name, self.seeds[0]).out)
        assert record is not None
        assert record.trained is not None
        return record.trained["seconds"]


def one_model(lab: Lab) -> Claim:
    claim = Claim(
        "One model serves all tasks and rates: no cell is much worse than a model of its own."
    )
    for route in ROUTES:
        single = lab.scores(f"single {route}", route)
        for name in ("omni-avsr-s", "omni-avsr-t", "omni-avsr-st"):
            no_worse(claim, f"{route}, single against {name}", single, lab.scores(name, route))
    return claim


def matryoshka(lab: Lab) -> Claim:
    claim = Claim(
        "Matryoshka matches models of each rate; a model of one rate collapses at others."
    )
    for route in AVSR:
        single = lab.scores(f"single {route}", route)
        mtsk = lab.scores("mtsk-ms", route)
        no_worse(claim, f"{route}, single against llama-mtsk-ms", single, mtsk)
    for fine, coarse in zip(FINEST, COARSEST, strict=True):
        other_rates: dict[str, Any] = {}
        if coarse.audio_rate:
            other_rates["audio_rates"] = (coarse.audio_rate,)
        if coarse.video_rate:
            other_rates["video_rates"] = (coarse.video_rate,)
        pooled = lab.scores(f"single {fine}", coarse, **other_rates)
        matched = lab.scores(f"single {coarse}", coarse)
        name = f"{coarse}, trained only at {fine} against its own, 20 points better"
        better(claim, name, pooled, matched, by=20)
    return claim


def sampling(lab: Lab) -> Claim:
    claim = Claim(
        "Sampling one rate per modality and step matches all rates, at a fraction of the cost."
    )
    for route in ROUTES:
        every = lab.scores("all scales", route)
        sampled = lab.scores("omni-avsr-st", route)
        no_worse(claim, f"{route}, all against sampled", every, sampled)
    gflops, megabytes = {}, {}
    for cost in lab.facts("omni-avsr-st").costs:
        gflops[cost.route] = cost.training_gflops_per_second
        megabytes[cost.route] = cost.kept_megabytes_per_second
    flops_of_all = training_step(gflops, "all")
    flops = training_step(gflops, "sampled")
    kept_of_all = training_step(megabytes, "all")
    kept = training_step(megabytes, "sampled")
    seconds_of_all = lab.seconds("all scales")
    seconds = lab.seconds("omni-avsr-st")
    claim.lines += [
        "passes in a step: 8 against 3; the papers count 12: ASR for every video rate too, "
        "VSR for every audio rate",
        "GFLOPs of the LLM per second of speech, forward and backward: "
        f"{flops_of_all:.2f} against {flops:.2f}, {flops / flops_of_all:.2f} of it",
        "MB kept for the backward pass, per second of speech: "
        f"{kept_of_all:.1f} against {kept:.1f}, {kept / kept_of_all:.2f} of it",
        f"training of seed {lab.seeds[0]}: {seconds_of_all:.0f} s against {seconds:.0f} s, "
        f"{seconds / seconds_of_all:.2f} of it",
    ]
    return claim


def strategies(lab: Lab) -> Claim:
    claim = Claim("The LoRA strategies are alike, at the finest and the coarsest rates.")
    for route in (AVSR[0], AVSR[-1]):
        base = lab.scores("omni-avsr-st", route)
        for name in ("omni-avsr-s", "omni-avsr-t", "shared+task+scale"):
            alike(claim, f"{route}, omni-avsr-st against {name}", base, lab.scores(name, route))
        base = lab.scores("mtsk-mss", route)
        for name in ("mtsk-ms", "mtsk-ss"):
            other = lab.scores(name, route)
            alike(claim, f"{route}, llama-mtsk-mss against {name}", base, other)
    return claim


def noise(lab: Lab) -> Claim:
    claim = Claim("AVSR withstands babble at 0 dB that ASR does not, at each rate.")
    ratios = ("clean", "0")
    for route in AVSR:
        asr = Route(Task.ASR, route.audio_rate)
        asr_clean = lab.scores("omni-avsr-st", asr, CLEAN, snr=ratios)
        asr_noisy = lab.scores("omni-avsr-st", asr, BABBLE, snr=ratios)
        avsr_clean = lab.scores("omni-avsr-st", route, CLEAN, snr=ratios)
        avsr_noisy = lab.scores("omni-avsr-st", route, BABBLE, snr=ratios)
        better(claim, f"{asr} against {route} at 0 dB", asr_noisy, avsr_noisy)
        claim.lines.append(
            f"from clean to 0 dB: {asr} {wer(asr_clean):.1f} to {wer(asr_noisy):.1f}, "
            f"{route} {wer(avsr_clean):.1f} to {wer(avsr_noisy):.1f}"
        )
    return claim


def llm_size(lab: Lab) -> Claim:
    claim = Claim("Larger LLMs are better, at the finest rates.")
    models = {"tiny-s": "tiny-s", "tiny-m": "omni-avsr-st", "tiny-l": "tiny-l"}
    sizes = [lab.facts(name).parameters["LLM"] for name in models.values()]
    for route in FINEST:
        scores = {llm: lab.scores(name, route) for llm, name in models.items()}
        for small, large in (("tiny-s", "tiny-m"), ("tiny-m", "tiny-l")):
            better(claim, f"{route}, {small} against {large}", scores[small], scores[large])
        law = power_law(sizes, list(map(wer, scores.values())))
        remaining = f"{law.per_doubling:.2f} of the word errors"
        claim.lines.append(f"{route}: doubling the LLM leaves {remaining}")
    return claim


def elastic(lab: Lab) -> Claim:
    claim = Claim("Coarser rates save tokens, FLOPs and time, at no great loss of WER in AVSR.")
    costs = {cost.route: cost for cost in lab.facts("omni-avsr-st").costs}
    results = read_results(lab.measured("omni-avsr-st", lab.seeds[0]))
    spent = {result.route: result.decode_seconds for result in results}
    scores = {route: lab.scores("omni-avsr-st", route) for route in ROUTES}
    for route in ROUTES:
        claim.lines.append(
            f"{route}: {route.tokens_per_second:.1f} tokens, "
            f"{costs[route].llm_gflops_per_second:.3f} LLM GFLOPs per second of speech, "
            f"{spent[route]:.1f} s to decode, {wer(scores[route]):.1f} %"
        )
    finest, *coarser = AVSR
    for route in coarser:
        no_worse(claim, f"{finest} against {route}", scores[finest], scores[route])
    return claim


def beyond(lab: Lab) -> Claim:
    claim = Claim(
        "Beyond the papers: one projector serves rates that were never trained; "
        "decorrelation helps at high rates."
    )
    for trained_rate, other_rate in ((4, 5), (8, 9), (12, 13)):
        near = Route(Task.ASR, trained_rate)
        between = Route(Task.ASR, other_rate)
        grid: dict[str, Any] = {"tasks": (Task.ASR,), "audio_rates": (trained_rate, other_rate)}
        trained = lab.scores("one projector", near, **grid)
        untrained = lab.scores("one projector", between, **grid)
        no_worse(claim, f"{near}, trained, against {between}, not", trained, untrained)
    route = Route(Task.VSR, None, 10)
    without = lab.scores("vsr (10)", route)
    decorrelated = lab.scores("vsr (10), decorrelated", route)
    name = f"{route}, without against with the decorrelation loss"
    better(claim, name, without, decorrelated)
    return claim


CLAIMS: list[Callable[[Lab], Claim]] = [
    one_model,
    matryoshka,
    sampling,
    strategies,
    noise,
    llm_size,
    elastic,
    beyond,
]


def main(
    out: Out = Path("runs/claims"),
    steps: Steps = None,
    seeds: Annotated[
        str, typer.Option(help="Seeds, such as 1,2,3; fewer than three decide nothing.")
    ] = "1,2,3",
    claims: Annotated[str, typer.Option(help="Which claims, by number.")] = "1,2,3,4,5,6,7,8",
    write: Annotated[
        Path | None,
        typer.Option(help="Write the verdicts to this Markdown file; other claims stay in it."),
    ] = None,
    toy: Annotated[
        bool, typer.Option(help="Use the toy corpus, the only one that takes just an evening.")
    ] = True,
) -> None:
    """Trains what is needed, and prints a verdict per claim."""
    if not toy:
        raise typer.BadParameter(
            "the claims are tested on the toy corpus; for LRS3 there is a recipe per table"
        )
    lab = Lab(out, steps, _numbers(seeds))
    numbers = _numbers(claims)
    if not set(numbers).issubset(range(1, 1 + len(CLAIMS))):
        raise typer.BadParameter(f"the claims are numbered from 1 to {len(CLAIMS)}, not {claims}")
    found = {}
    for number in numbers:
        claim = CLAIMS[number - 1](lab)
        found[number] = claim
        Console().print(f"[bold]{number}. {escape(claim.text)}[/bold] {claim.verdict}")
        for line in claim.lines:
            Console().print(f"   {line}", highlight=False)
    if write:
        write_page(write, found, lab)


def _numbers(text: str) -> list[int]:
    """The numbers of a list, each once."""
    try:
        return list(dict.fromkeys(map(int, text.split(","))))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a list of whole numbers such as 1,2,3") from None


def write_page(file: Path, found: dict[int, Claim], lab: Lab) -> None:
    """Writes the verdicts as Markdown; sections of claims that were not judged stay."""
    sections = _known_sections(file)
    for number, claim in found.items():
        sections[number] = _section(number, claim, lab)
    ordered = [sections[number] for number in sorted(sections)]
    write_text(file, "\n## ".join([HEAD, *ordered]))


def _known_sections(file: Path) -> dict[int, str]:
    """The sections of the page, by the number of their claim."""
    if not file.is_file():
        return {}
    _, *sections = file.read_text(encoding="utf-8").split("\n## ")
    return {int(text.partition(".")[0]): text for text in sections}


def _section(number: int, claim: Claim, lab: Lab) -> str:
    """A claim's verdicts as Markdown."""
    seeds = ", ".join(map(str, lab.seeds))
    steps = lab.steps or TOY.max_steps
    lines = "".join(f"- {line}\n" for line in claim.lines)
    verdict = f"Of the comparisons, {claim.verdict}. Seeds {seeds}, {steps} steps."
    return f"{number}. {claim.text}\n\n{verdict}\n\n{lines}"


if __name__ == "__main__":
    typer.run(main)
