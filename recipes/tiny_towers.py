"""Pre-trains the tiny towers that ship with omni-avsr, on the toy corpus, in memory.

    python -m recipes.tiny_towers --stages encoders --out omni_avsr/tiny
    python -m recipes.tiny_towers --stages lm,adapters,package --out omni_avsr/tiny

A stage whose folders exist in OUT is skipped (delete them and WORK to make them anew) and feeds the later ones, so
stages can run on different machines. A stage that was interrupted goes on from its checkpoint in WORK. Budgets are in
seconds, or with --steps in steps. Figures of every stage are gathered in OUT/results.json, from which `package` writes
the model card.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from .tiny_corpus import Corpus, Source
    from .tiny_loop import Plan

STAGES = ("encoders", "lm", "adapters", "package")
WORLD = "mixed"
WEIGHTS = "model.safetensors"
LEARNING_RATES = {"audio": 2e-3, "video": 1e-3, "lm": 1.5e-3, "adapters": 2e-3}


@dataclass
class Session:
    """What the stages share: the corpora, made when they are first needed, and the results."""

    work: Path
    out: Path
    clips: int
    held_out: int
    source: "Source"
    seconds: dict[str, float]
    batches: dict[str, int]
    sizes: list[str]
    steps: int | None = None

    @cached_property
    def training(self) -> list["Corpus"]:
        """The clips to train on, and others by the same voices."""
        train, known = self.source.generate(WORLD, "train", self.clips, self.held_out)
        hours = round(sum(train.lengths) / 25 / 3600, 1)
        words = len({word for text in train.texts for word in text.split()})
        facts = {"clips": self.clips, "hours": hours, "words": words, "held_out": self.held_out}
        self.record("corpus", {**facts, "world": WORLD, "seed": self.source.seed})
        return [train, known]

    @cached_property
    def tests(self) -> dict[str, "Corpus"]:
        """Unseen sentences of unseen voices, of each world."""
        return {world: self.source.generate(world, "test", self.held_out)[0] for world in ("grid", "open", WORLD)}

    @property
    def worlds(self) -> dict[str, "Corpus"]:
        return {world: self.tests[world] for world in ("grid", "open")}

    def plan(self, stage: str) -> "Plan":
        from .tiny_loop import Plan

        decay = 0.1 if stage == "adapters" else 0.01
        budget = (self.seconds[stage], self.steps, self.batches[stage])
        return Plan(stage, self.work, *budget, LEARNING_RATES[stage], self.source.seed, decay)

    def record(self, name: str, row: dict[str, Any]) -> None:
        """Adds a row to OUT/results.json."""
        path = self.out / "results.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        known = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps(known | {name: row}, indent=1) + "\n")

    def done(self, *folders: str) -> bool:
        """Whether these folders hold weights already."""
        found = all((self.out / folder / WEIGHTS).is_file() for folder in folders)
        if found:
            typer.echo(f"{', '.join(folders)}: in {self.out} already")
        return found


def encoders(session: Session) -> None:
    from .tiny_encoders import FOLDERS, pretrain

    for modality, folder in FOLDERS.items():
        if not session.done(folder):
            train, known = session.training
            held_out = {"known": known, "unknown": session.tests[WORLD]}
            session.record(folder, pretrain(modality, train, held_out, session.plan(modality), session.out))


def lm(session: Session) -> None:
    from .tiny_lm import pretrain

    missing = [size for size in session.sizes if not session.done(size)]
    for size, row in pretrain(missing, session.training[0], session.worlds, session.plan("lm"), session.out):
        session.record(size, row)


def adapters(session: Session) -> None:
    from .tiny_adapters import NAME, adapt

    if not session.done(NAME):
        session.record(NAME, adapt(session.training[0], session.worlds, session.plan("adapters"), session.out))


def package(session: Session) -> None:
    from .tiny_adapters import package

    package(session.out, session.tests["grid"])


def main(  # noqa: PLR0913 - a recipe's options
    stages: Annotated[str, typer.Option(help=f"What to do, of {', '.join(STAGES)}.")] = ",".join(STAGES),
    out: Annotated[Path, typer.Option(help="Where the towers go.")] = Path("omni_avsr/tiny"),
    work: Annotated[Path, typer.Option(help="Where checkpoints go.")] = Path("runs/tiny_towers"),
    clips: Annotated[int, typer.Option(help="Clips to train on.")] = 40_000,
    held_out: Annotated[int, typer.Option(help="Clips of each set to measure on.")] = 300,
    seconds: Annotated[str, typer.Option(help="Of audio, video, lm, adapters.")] = "120,240,220,160",
    batches: Annotated[str, typer.Option(help="Clips a step, of the same four.")] = "256,192,256,128",
    steps: Annotated[int | None, typer.Option(help="Steps of every stage, instead of seconds.")] = None,
    sizes: Annotated[str, typer.Option(help="Language models to make.")] = "tiny-s,tiny-m,tiny-l",
    device: Annotated[str, typer.Option(help="A torch device, or auto.")] = "auto",
    processes: Annotated[int, typer.Option(help="That make the corpus.")] = 16,
    seed: int = 0,
) -> None:
    """Makes the towers, stage by stage; see the top of this file."""
    import torch
    from transformers.utils import logging

    from .tiny_corpus import Source

    logging.disable_progress_bar()
    known: dict[str, Callable[[Session], None]] = {f.__name__: f for f in (encoders, lm, adapters, package)}
    wanted = stages.split(",")
    if unknown := set(wanted) - set(known):
        raise typer.BadParameter(f"unknown stages {', '.join(sorted(unknown))}; available: {', '.join(STAGES)}")
    budgets = dict(zip(LEARNING_RATES, map(float, seconds.split(",")), strict=True))
    clips_a_step = dict(zip(LEARNING_RATES, map(int, batches.split(",")), strict=True))
    chosen = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    source = Source(seed, processes, torch.device(chosen))
    session = Session(work, out.resolve(), clips, held_out, source, budgets, clips_a_step, sizes.split(","), steps)
    for stage in STAGES:
        if stage in wanted:
            started = time.monotonic()
            known[stage](session)
            typer.echo(f"{stage}: done in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    typer.run(main)
