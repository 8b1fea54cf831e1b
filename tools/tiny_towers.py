"""Trains the tiny towers that ship with omni-avsr, on the toy corpus.

    python -m tools.tiny_towers --stages audio,front_end,video
    python -m tools.tiny_towers --stages features,lm,adapters,package

Of what ships, tiny-multi was made apart, by `--stages lm,adapters --sizes tiny-multi` with 5000 and
800 steps.

Stages can run on different machines, because later stages read the folders of earlier ones. A stage
whose folders exist in OUT is skipped; delete its folders, and its files in WORK, to repeat it. A
stage that was interrupted resumes from its checkpoint in WORK. The figures of every stage go to
OUT/results.json, from which `package` writes the model card.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated

import torch
import typer

from omni_avsr.files import write_text
from omni_avsr.run import silence_libraries
from omni_avsr.tasks import MODALITIES
from omni_avsr.toy import ToyClip
from tools import adapters, encoders, language_models
from tools.corpus import SETS, Corpus, Frames, Source, chunks, sets_to_read, sets_to_watch
from tools.encoded import EncodedClips, encode_clips
from tools.language_models import SIZES
from tools.loop import Plan, Result
from tools.package import RESULTS, package
from tools.terminal import console

WEIGHTS = "model.safetensors"
LOOKED_AT = 5  # clips, of which the front end sees the frames of one
ENCODED_TOGETHER = 1000  # clips
READING = 1  # shift of the seed of the clips that the language models read

LEARNING_RATES = {"audio": 2e-3, "front_end": 2e-3, "video": 1.5e-3, "lm": 1.5e-3, "adapters": 2e-3}
BATCHES = {"audio": 64, "front_end": 256, "video": 64, "lm": 32, "adapters": 32}
STEPS = "2200,6000,3000,8000,1500"


@dataclass
class Session:
    """What the stages share: the options, the corpora, and the results."""

    work: Path
    out: Path
    clips: int
    read: int
    held_out: int
    source: Source
    device: torch.device
    steps: dict[str, int]
    sizes: list[str]

    @cached_property
    def tests(self) -> dict[str, Corpus]:
        """Unseen sentences of unseen voices, of each set."""
        corpora = {}
        for name in SETS:
            clips = self.source.clips({name: self.held_out}, "test")
            corpora[name] = Corpus(clips, self.device)
        return corpora

    def watched(self, clips: int) -> Iterator[ToyClip]:
        """Returns clips of all sets for the encoders to learn from."""
        return self.source.clips(sets_to_watch(clips), "train")

    def features(self, sets: Sequence[str]) -> list[Path]:
        """Returns the files of the features that the language models read."""
        return [self.work / f"features-{name}.pt" for name in sets]

    def tests_of(self, sets: Sequence[str]) -> dict[str, Corpus]:
        return {name: self.tests[name] for name in sets}

    def plan(self, stage: str, name: str | None = None) -> Plan:
        return Plan(
            name or stage,
            self.work,
            self.steps[stage],
            BATCHES[stage],
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


def make_audio(session: Session) -> None:
    folder = encoders.FOLDERS["audio"]
    if not session.is_done(folder):
        corpus = Corpus(session.watched(session.clips), session.device, ["audio"])
        plan = session.plan("audio")
        result = encoders.pretrain_audio(corpus, session.tests, plan, session.out)
        session.record(folder, result)


def make_front_end(session: Session) -> None:
    clips = session.watched(session.clips // LOOKED_AT)
    frames = Frames(Corpus(clips, session.device, ["video"]))
    encoders.pretrain_front_end(frames, session.plan("front_end"))


def make_video(session: Session) -> None:
    folder = encoders.FOLDERS["video"]
    if session.is_done(folder):
        return
    encoder = encoders.video_encoder_behind(session.plan("front_end").checkpoint)
    encoder.to(session.device)  # type: ignore[arg-type]
    file = session.work / "vectors.pt"
    parts = _corpora(session.watched(session.clips), session.device, ["video"])
    encode_clips(file, parts, partial(encoders.front_end_vectors, encoder))
    encoded = EncodedClips([file], session.device)
    plan = session.plan("video")
    result = encoders.pretrain_video(encoder, encoded, session.tests, plan, session.out)
    session.record(folder, result)


def make_features(session: Session) -> None:
    towers = encoders.made(session.out, session.device)
    for name, count in sets_to_read(session.read).items():
        clips = session.source.clips({name: count}, "train", READING)
        parts = _corpora(clips, session.device, MODALITIES)
        (file,) = session.features([name])
        encode_clips(file, parts, partial(encoders.encoded, towers))


def make_language_models(session: Session) -> None:
    for size in session.sizes:
        if not session.is_done(size):
            sets = SIZES[size].sets
            clips = EncodedClips(session.features(sets), session.device)
            plan = session.plan("lm", size)
            tests = session.tests_of(sets)
            session.record(size, language_models.pretrain(size, clips, tests, plan, session.out))


def make_adapters(session: Session) -> None:
    for name, size in adapters.MODELS.items():
        if size in session.sizes and not session.is_done(name):
            sets = SIZES[size].sets
            clips = EncodedClips(session.features(sets), session.device)
            plan = session.plan("adapters", name)
            tests = session.tests_of(sets)
            session.record(name, adapters.adapt(name, clips, tests, plan, session.out))


def make_package(session: Session) -> None:
    package(session.out, session.tests["grid"])


STAGES = {
    "audio": make_audio,
    "front_end": make_front_end,
    "video": make_video,
    "features": make_features,
    "lm": make_language_models,
    "adapters": make_adapters,
    "package": make_package,
}


def main(  # noqa: PLR0913 - the options of the command
    stages: Annotated[
        str, typer.Option(help=f"The stages to run, of {', '.join(STAGES)}.")
    ] = ",".join(STAGES),
    out: Annotated[Path, typer.Option(help="Folder of the towers.")] = Path("omni_avsr/tiny"),
    work: Annotated[Path, typer.Option(help="Folder of checkpoints and features.")] = Path(
        "runs/tiny_towers"
    ),
    clips: Annotated[int, typer.Option(help="Clips that the encoders learn from.")] = 30_000,
    read: Annotated[int, typer.Option(help="Clips that the language models read.")] = 42_000,
    held_out: Annotated[int, typer.Option(help="Clips of each set to measure on.")] = 300,
    steps: Annotated[
        str, typer.Option(help=f"Optimizer steps of {', '.join(LEARNING_RATES)}.")
    ] = STEPS,
    sizes: Annotated[str, typer.Option(help="Language models to make.")] = ",".join(SIZES),
    device: Annotated[str, typer.Option(help="A torch device, or auto.")] = "auto",
    processes: Annotated[
        int | None, typer.Option(help="Processes that make the clips.  [default: one per core]")
    ] = None,
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
    counts = map(int, steps.split(","))
    session = Session(
        work=work,
        out=out.resolve(),
        clips=clips,
        read=read,
        held_out=held_out,
        source=Source(seed, processes or os.cpu_count() or 1),
        device=torch.device(device),
        steps=dict(zip(LEARNING_RATES, counts, strict=True)),
        sizes=sizes.split(","),
    )
    session.record("corpus", {"clips": clips, "read": read, "held_out": held_out, "seed": seed})
    for stage, make in STAGES.items():
        if stage in wanted:
            started = time.monotonic()
            make(session)
            console.print(f"{stage}: done in {time.monotonic() - started:.0f} s")


def _corpora(
    clips: Iterator[ToyClip], device: torch.device, modalities: Sequence[str]
) -> Iterator[Corpus]:
    """Yields the clips in parts that fit into memory."""
    for part in chunks(clips, ENCODED_TOGETHER):
        yield Corpus(part, device, modalities)


if __name__ == "__main__":
    typer.run(main)
