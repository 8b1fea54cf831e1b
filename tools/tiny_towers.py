"""Trains the tiny towers that ship with omni-avsr, on the toy corpus, in memory.

    python -m tools.tiny_towers --stages encoders
    python -m tools.tiny_towers --stages lm,adapters,package

Stages can run on different machines, because later stages read the folders of earlier ones. A stage
whose folders exist in OUT is skipped; delete its folders, and its files in WORK, to repeat it. A
stage that was interrupted resumes from its checkpoint in WORK. Budgets are in seconds, or in steps
with --steps. The figures of every stage go to OUT/results.json, from which `package` writes the
model card.
"""

import json
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import torch
import typer

from omni_avsr.files import write_text
from omni_avsr.run import silence_libraries
from omni_avsr.tasks import VIDEO_FPS
from tools import adapters, encoders, language_models
from tools.corpus import Corpus, Source
from tools.loop import Plan, Result
from tools.package import RESULTS, package
from tools.terminal import console

WORLD = "mixed"
WEIGHTS = "model.safetensors"
LEARNING_RATES = {"audio": 2e-3, "video": 1e-3, "lm": 1.5e-3, "adapters": 2e-3}


@dataclass
class Session:
    """What the stages share: the options, the corpora, and the results."""

    work: Path
    out: Path
    clips: int
    held_out: int
    source: Source
    seconds: dict[str, float]
    batches: dict[str, int]
    sizes: list[str]
    steps: int | None = None

    @cached_property
    def training(self) -> tuple[Corpus, Corpus]:
        """The clips to train on, and other clips of the same voices."""
        train, known = self.source.generate(WORLD, "train", self.clips, self.held_out)
        vocabulary: set[str] = set()
        for text in train.texts:
            vocabulary |= set(text.split())
        facts = {
            "clips": self.clips,
            "hours": round(sum(train.lengths) / VIDEO_FPS / 3600, 1),
            "words": len(vocabulary),
            "held_out": self.held_out,
            "world": WORLD,
            "seed": self.source.seed,
        }
        self.record("corpus", facts)
        return train, known

    @cached_property
    def tests(self) -> dict[str, Corpus]:
        """Unseen sentences of unseen voices, of each world."""
        corpora = {}
        for world in ("grid", "open", WORLD):
            (corpora[world],) = self.source.generate(world, "test", self.held_out)
        return corpora

    @property
    def worlds(self) -> dict[str, Corpus]:
        """The test clips that word error rates are measured on."""
        return {world: self.tests[world] for world in ("grid", "open")}

    def plan(self, stage: str) -> Plan:
        return Plan(
            stage,
            self.work,
            self.seconds[stage],
            self.steps,
            self.batches[stage],
            LEARNING_RATES[stage],
            self.source.seed,
            weight_decay=0.1 if stage == "adapters" else 0.01,
        )

    def record(self, name: str, result: Result) -> None:
        """Adds a result to OUT/results.json."""
        path = self.out / RESULTS
        known = json.loads(path.read_text()) if path.is_file() else {}
        write_text(path, json.dumps(known | {name: result}, indent=1) + "\n")

    def is_done(self, folder: str) -> bool:
        """Whether this folder has its weights."""
        found = (self.out / folder / WEIGHTS).is_file()
        if found:
            console.print(f"{folder} is in {self.out} already")
        return found


def make_encoders(session: Session) -> None:
    for modality, folder in encoders.FOLDERS.items():
        if session.is_done(folder):
            continue
        train, known = session.training
        held_out = {"known": known, "unknown": session.tests[WORLD]}
        plan = session.plan(modality)
        session.record(folder, encoders.pretrain(modality, train, held_out, plan, session.out))


def make_language_models(session: Session) -> None:
    missing = [size for size in session.sizes if not session.is_done(size)]
    if not missing:
        return
    train, _ = session.training
    plan = session.plan("lm")
    results = language_models.pretrain(missing, train, session.worlds, plan, session.out)
    for size, result in results:
        session.record(size, result)


def make_adapters(session: Session) -> None:
    if session.is_done(adapters.NAME):
        return
    train, _ = session.training
    plan = session.plan("adapters")
    session.record(adapters.NAME, adapters.adapt(train, session.worlds, plan, session.out))


def make_package(session: Session) -> None:
    package(session.out, session.tests["grid"])


STAGES = {
    "encoders": make_encoders,
    "lm": make_language_models,
    "adapters": make_adapters,
    "package": make_package,
}


def main(  # noqa: PLR0913 - the options of the command
    stages: Annotated[
        str, typer.Option(help=f"The stages to run, of {', '.join(STAGES)}.")
    ] = ",".join(STAGES),
    out: Annotated[Path, typer.Option(help="Folder of the towers.")] = Path("omni_avsr/tiny"),
    work: Annotated[Path, typer.Option(help="Folder of checkpoints.")] = Path("runs/tiny_towers"),
    clips: Annotated[int, typer.Option(help="Clips to train on.")] = 40_000,
    held_out: Annotated[int, typer.Option(help="Clips of each set to measure on.")] = 300,
    seconds: Annotated[
        str, typer.Option(help="Seconds of training of audio, video, lm and adapters.")
    ] = "120,240,220,160",
    batches: Annotated[
        str, typer.Option(help="Clips per step of audio, video, lm and adapters.")
    ] = "256,192,256,128",
    steps: Annotated[
        int | None, typer.Option(help="Steps of every stage, instead of seconds.")
    ] = None,
    sizes: Annotated[str, typer.Option(help="Language models to make.")] = ",".join(
        language_models.SIZES
    ),
    device: Annotated[str, typer.Option(help="A torch device, or auto.")] = "auto",
    processes: Annotated[int, typer.Option(help="Processes that make the corpus.")] = 16,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """Makes the towers, stage by stage."""
    wanted = stages.split(",")
    unknown = [stage for stage in wanted if stage not in STAGES]
    if unknown:
        raise typer.BadParameter(
            f"unknown stages {', '.join(unknown)}; available: {', '.join(STAGES)}"
        )
    silence_libraries()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    session = Session(
        work=work,
        out=out.resolve(),
        clips=clips,
        held_out=held_out,
        source=Source(seed, processes, torch.device(device)),
        seconds={part: float(value) for part, value in _by_part(seconds).items()},
        batches={part: int(value) for part, value in _by_part(batches).items()},
        sizes=sizes.split(","),
        steps=steps,
    )
    for stage, make in STAGES.items():
        if stage in wanted:
            started = time.monotonic()
            make(session)
            console.print(f"{stage}: done in {time.monotonic() - started:.0f} s")


def _by_part(values: str) -> dict[str, str]:
    """Returns a list such as 120,240,220,160 by what is trained."""
    return dict(zip(LEARNING_RATES, values.split(","), strict=True))


if __name__ == "__main__":
    typer.run(main)
