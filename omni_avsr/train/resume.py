"""Resuming: checkpoints that are written whole, the choice of one, and the metrics before it.

A resumed run ends with the weights and metrics of one that was never interrupted. For that a
checkpoint is written only where nothing is half done: after an optimizer step whose metrics are not
being logged, or after a validation.
"""

import csv
import io
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import torch
from lightning import Trainer
from lightning.pytorch import callbacks, loggers
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException

from omni_avsr.errors import InputError
from omni_avsr.files import write_atomically, write_text
from omni_avsr.run import is_trained, read_run, refuse_existing
from omni_avsr.settings import TrainSettings

log = logging.getLogger(__name__)

KEPT = 2  # checkpoints to resume from: if the newest is damaged, there is another
# Settings that may differ when a run is resumed
FREE = (
    "out",
    "feature_cache",
    "resume",
    "workers",
    "logger",
    "save_every",
    "max_unreadable",
)


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes checkpoints completely or not at all; one that cannot be written is only logged."""

    def save_checkpoint(
        self, checkpoint: dict, path: str | Path, storage_options: object = None
    ) -> None:
        try:
            write_atomically(Path(path), lambda part: torch.save(checkpoint, part))
        except (OSError, RuntimeError) as error:  # torch.save: RuntimeError if the disk is full
            log.error("no checkpoint written, the earlier ones remain: %s: %s", path, error)


class BestCheckpoint(callbacks.ModelCheckpoint):
    """The checkpoint of the best validation in a run's folder, which may have been moved.

    A run that starts from a checkpoint of another one has no best validation yet.
    """

    def load_state_dict(self, state_dict: dict) -> None:
        best = self.format_checkpoint_name({})
        if not (state_dict["best_model_path"] and Path(best).is_file()):
            return
        here = {
            "dirpath": self.dirpath,
            "best_model_path": best,
            "kth_best_model_path": best,
            "best_k_models": {best: state_dict["best_model_score"]},
        }
        super().load_state_dict({**state_dict, **here})


class ResumeCheckpoints(callbacks.Checkpoint):
    """Writes what a run is resumed from: every so many steps, after validations, and on signals.

    And just before the last step, so that a last validation that fails can be repeated.
    """

    def __init__(self, folder: Path, every: int, validates_every: int):
        self.folder = folder
        self.every = every  # optimizer steps
        self.validates_every = validates_every  # batches
        self.saved = 0  # the step of the last checkpoint
        self.save_now = False  # a signal asked for a checkpoint
        self.end_now = False  # and to end the run then

    def on_train_start(self, trainer: Trainer, pl_module: object) -> None:
        self.saved = trainer.global_step
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGUSR1, self._on_usr1)  # SLURM's warning, by convention
            # Lightning's own handler would end the run without a checkpoint
            signal.signal(signal.SIGTERM, self._on_term)

    def _on_usr1(self, *_: object) -> None:
        self.save_now = True

    def _on_term(self, *_: object) -> None:
        self.save_now = True
        self.end_now = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: object, outputs: object, batch: object, batch_idx: int
    ) -> None:
        asked = trainer.strategy.reduce_boolean_decision(self.save_now, all=False)
        steps_left = trainer.max_steps - trainer.global_step
        due = asked or trainer.global_step - self.saved >= self.every or steps_left <= 2
        batches = batch_idx + 1
        accumulating = batches % trainer.accumulate_grad_batches != 0
        validates_next = batches % self.validates_every == 0
        logging_now = trainer.global_step % trainer.log_every_n_steps == 0
        if due and not (accumulating or validates_next or logging_now):
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: object) -> None:
        self._save(trainer)

    def on_exception(self, trainer: Trainer, pl_module: object, exception: BaseException) -> None:
        if trainer.validating and trainer.global_step >= trainer.max_steps:
            log.error(
                "the last validation has failed; %s is the model of the last step, "
                "and the same command repeats the validation",
                self.folder.parent / "model",
            )
        # The process that fails first is killed before it can say why
        if trainer.world_size > 1:
            kind = type(exception).__name__
            log.error("process %d: %s: %s", trainer.global_rank, kind, exception)

    def _save(self, trainer: Trainer) -> None:
        for logger in trainer.loggers:
            logger.save()
        trainer.save_checkpoint(self.folder / f"resume-{trainer.global_step}.ckpt")
        self.saved = trainer.global_step
        self.save_now = False
        if trainer.is_global_zero:
            for old in checkpoints(self.folder)[KEPT:]:
                old.unlink()
        if trainer.strategy.reduce_boolean_decision(self.end_now, all=False):
            raise SIGTERMException


@contextmanager
def restored_signals() -> Iterator[None]:
    """Restores the handlers of the signals that a run listens to."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Lets SIGTERM end the process at once, while there is nothing of the training to save."""
    with restored_signals():
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        yield


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints that a run can be resumed from, the newest first."""

    def step(path: Path) -> int:
        return int(path.stem.removeprefix("resume-"))

    return sorted(folder.glob("resume-*.ckpt"), key=step, reverse=True)


def _newest(folder: Path) -> Path | None:
    """The newest checkpoint that can be read."""
    for path in checkpoints(folder):
        try:
            torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file can make torch raise anything
            reason = str(error).partition("\n")[0]
            log.warning("%s cannot be read, the one before it is used: %s", path, reason)
        else:
            return path
    return None


def starting_point(settings: TrainSettings) -> Path | None:
    """The checkpoint to resume from, if any; cleans up what an interrupted run has left.

    Refuses a folder that holds a finished run, or one with other settings.
    """
    run = settings.out
    record = read_run(run)
    if settings.resume == "never" or record is None:
        refuse_existing(run)
        return _given_checkpoint(settings)
    refuse_other_settings(run, settings)
    if is_trained(run):
        raise InputError(f"{run} holds a finished run: choose another --out, or remove it")
    folder = run / "checkpoints"
    chosen = _newest(folder)
    for checkpoint in checkpoints(folder):
        if checkpoint == chosen:
            break
        checkpoint.unlink()  # newer, but damaged
    for part in run.rglob("*.part"):
        part.unlink()
    if chosen and record.settings.get("resume") == settings.resume:
        return chosen  # the checkpoint that it started from may be gone
    given = _given_checkpoint(settings)
    return chosen or given


def _given_checkpoint(settings: TrainSettings) -> Path | None:
    """The checkpoint that a new run starts from."""
    if settings.resume in ("auto", "never"):
        return None
    checkpoint = Path(settings.resume)
    if not checkpoint.is_file():
        raise InputError(
            f"--resume {settings.resume}: there is no such checkpoint; nor is it auto or never"
        )
    try:
        step = torch.load(checkpoint, map_location="cpu", weights_only=True)["global_step"]
    except Exception as error:  # a file that is none can make torch raise anything
        raise InputError(f"{checkpoint} is damaged, or not a checkpoint of a run") from error
    if step >= settings.max_steps:
        raise InputError(
            f"--resume {checkpoint} has {step} steps, and --max-steps {settings.max_steps} "
            "leaves none to train"
        )
    return checkpoint


def starting_point_of_first(settings: TrainSettings) -> Path | None:
    """What the first process of a run resumes from, for its other processes."""
    return _newest(settings.out / "checkpoints") or _given_checkpoint(settings)


def refuse_other_settings(run: Path, settings: TrainSettings) -> None:
    """Refuses a run with other settings: its results would appear under the wrong name."""
    record = read_run(run)
    assert record is not None
    names = [own.name for own in fields(TrainSettings)]
    # Options that an older version did not have are at their defaults
    known = TrainSettings(**{n: v for n, v in record.settings.items() if n in names})
    different = []
    for name in names:
        old, new = getattr(known, name), getattr(settings, name)
        if name not in FREE and old != new:
            different.append(f"{name.removesuffix('_')} {shown(old)}, not {shown(new)}")
    if different:
        raise InputError(f"{run} was trained with {'; '.join(different)}: choose another --out")


def refuse_other_clips(settings: TrainSettings, clips: str) -> None:
    """Refuses to resume a run whose clips have changed since it was started."""
    record = read_run(settings.out)
    if record is None or record.clips in ("", clips):  # older versions recorded none
        return
    valid = settings.valid if settings.valid_share is None else None
    files = ", ".join(str(file) for file in (settings.data, valid) if file)
    raise InputError(
        f"{settings.out} was started with other clips than {files or 'the toy corpus'} has now: "
        "restore them to resume it, or choose another --out"
    )


def shown(value: object) -> str:
    """The value of a setting as a user would type it."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def keep_metrics(logger: loggers.CSVLogger, checkpoint: Path) -> None:
    """Keeps the rows of metrics.csv before the checkpoint's step, which the logger would delete."""
    step = torch.load(checkpoint, map_location="cpu", weights_only=True)["global_step"]
    file = Path(logger.log_dir) / "metrics.csv"
    kept = file.with_suffix(".kept")  # exists if a run was killed in this function
    rows = []
    for row in _read_csv(kept if kept.is_file() else file):
        number = row.get("step") or ""
        half_written = None in row or not number.isdecimal()
        if not half_written and int(number) < step:
            rows.append(row)
    if rows:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        write_text(kept, text.getvalue())
    experiment = logger.experiment  # deletes the file
    if rows:
        experiment.metrics_keys = list(rows[0])
        os.replace(kept, file)


def _read_csv(file: Path) -> list[dict[str, str]]:
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8", errors="replace") as opened:
        return list(csv.DictReader(opened))
