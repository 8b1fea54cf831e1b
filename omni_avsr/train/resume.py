"""Goes on with a run that was cut off: its checkpoints, each written whole, and what it had measured until then.

A resumed run ends with the weights and metrics of one that was never cut off. For that a checkpoint is written only
where nothing is under way: after an optimizer step whose metrics are not being logged, or after a validation.
"""

import csv
import io
import json
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import callbacks, loggers
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException

from omni_avsr.run import refuse_taken, write_text, write_whole
from omni_avsr.settings import TrainSettings

log = logging.getLogger(__name__)

KEPT = 2  # checkpoints to go on from: should the newest be torn, there is another
OF_THE_PLACE = ("out", "feature_cache", "resume", "workers", "logger", "save_every", "max_unreadable")


class Whole(TorchCheckpointIO):
    """Checkpoints that are there whole or not at all; one that cannot be written leaves the others in force."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        try:
            write_whole(Path(path), lambda part: torch.save(checkpoint, part))
        except (OSError, RuntimeError) as error:  # torch.save says RuntimeError where a disk is full
            log.error("no checkpoint written, those before stay in force: %s: %s", path, error)


class Keeper(callbacks.Checkpoint):
    """Writes what a run goes on from: every so many steps, after each validation, and at a signal to stop."""

    def __init__(self, folder: Path, every: int, validates_every: int):
        self.folder, self.every, self.validates_every = folder, every, validates_every
        self.saved = 0
        self.told = self.ends = False  # to write one, and to end the run then

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.saved = trainer.global_step
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGUSR1, self._tell)  # SLURM's warning, by convention
            signal.signal(signal.SIGTERM, self._end)  # Lightning's own would end the run without a checkpoint

    def _tell(self, *_: Any) -> None:
        self.told = True

    def _end(self, *_: Any) -> None:
        self.told = self.ends = True

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        told = trainer.strategy.reduce_boolean_decision(self.told, all=False)
        due = told or trainer.global_step - self.saved >= self.every
        under_way = (
            (batch_idx + 1) % trainer.accumulate_grad_batches
            or (batch_idx + 1) % self.validates_every == 0
            or trainer.global_step % trainer.log_every_n_steps == 0
        )
        if due and not under_way:
            self._save(trainer)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self._save(trainer)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        if trainer.world_size > 1:  # of all processes, the one that fails first is killed before it can say why
            log.error("process %d: %s: %s", trainer.global_rank, type(exception).__name__, exception)

    def _save(self, trainer: Any) -> None:
        for logger in trainer.loggers:
            logger.save()
        trainer.save_checkpoint(self.folder / f"resume-{trainer.global_step}.ckpt")
        self.saved, self.told = trainer.global_step, False
        if trainer.is_global_zero:
            for old in checkpoints(self.folder)[KEPT:]:
                old.unlink()
        if trainer.strategy.reduce_boolean_decision(self.ends, all=False):
            raise SIGTERMException


@contextmanager
def signals() -> Iterator[None]:
    """Gives the signals back that a run listens to."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def checkpoints(folder: Path) -> list[Path]:
    """What a run can go on from, the newest first."""
    return sorted(folder.glob("resume-*.ckpt"), key=lambda path: -int(path.stem.removeprefix("resume-")))


def newest(folder: Path) -> Path | None:
    """The newest checkpoint that can be read."""
    for path in checkpoints(folder):
        try:
            torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a torn file makes torch say
            log.warning("%s cannot be read, the one before it is used: %s", path, str(error).partition("\n")[0])
        else:
            return path
    return None


def starting_point(settings: TrainSettings) -> Path | None:
    """The checkpoint to go on from; refuses a folder that holds a finished run, or one of other settings."""
    run, given = Path(settings.out), _given(settings)
    if settings.resume == "never" or not (run / "run.json").is_file():
        refuse_taken(run)
        return given
    refuse_other(run, settings)
    if finished(run):
        raise ValueError(f"{run} holds a finished run: choose another --out, or remove it")
    chosen = newest(run / "checkpoints")
    torn = takewhile(lambda path: path != chosen, checkpoints(run / "checkpoints"))
    for useless in [*torn, *run.rglob("*.part")]:
        useless.unlink()
    return chosen or given


def _given(settings: TrainSettings) -> Path | None:
    """The checkpoint that a new run is to begin from."""
    if settings.resume in ("auto", "never"):
        return None
    if not Path(settings.resume).is_file():
        raise ValueError(f"--resume {settings.resume}: there is no such checkpoint; nor is it auto or never")
    return Path(settings.resume)


def last(settings: TrainSettings) -> Path | None:
    """What the first process of a run goes on from, for its others."""
    return newest(Path(settings.out) / "checkpoints") or _given(settings)


def finished(run: Path) -> bool:
    """Whether the run has its model."""
    known = json.loads((run / "run.json").read_text(encoding="utf-8"))
    return "trained" in known and (run / "model" / "config.json").is_file()


def refuse_other(run: Path, settings: TrainSettings) -> None:
    """Refuses a run of other settings: its figures would be shown under the wrong name."""
    defaults = {field.name: field.default for field in fields(TrainSettings)}  # of what an older version did not know
    known = {**defaults, **json.loads((run / "run.json").read_text(encoding="utf-8"))["settings"]}
    given = {name: value for name, value in asdict(settings).items() if name not in OF_THE_PLACE}
    other = [f"{name} {known[name]}, not {value}" for name, value in given.items() if known[name] != value]
    if other:
        raise ValueError(f"{run} was trained with {'; '.join(other)}: choose another --out")


def go_on_with(metrics: loggers.CSVLogger, checkpoint: Path) -> None:
    """Keeps the rows of metrics.csv before the checkpoint's step, which the logger would delete."""
    step = torch.load(checkpoint, map_location="cpu", weights_only=True)["global_step"]
    file = Path(metrics.log_dir) / "metrics.csv"
    kept = file.with_suffix(".kept")  # there if a run was killed right here
    source = kept if kept.is_file() else file
    rows = list(csv.DictReader(source.open(newline="", encoding="utf-8"))) if source.is_file() else []
    rows = [row for row in rows if (row["step"] or "").isdecimal() and int(row["step"]) < step]  # a torn one is none
    if rows:
        text = io.StringIO(newline="")
        lines = csv.DictWriter(text, list(rows[0]))
        lines.writeheader()
        lines.writerows(rows)
        write_text(kept, text.getvalue())
    writer = metrics.experiment  # deletes the file
    if rows:
        writer.metrics_keys = list(rows[0])
        os.replace(kept, file)
