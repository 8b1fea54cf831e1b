"""A run that is cut off goes on, and ends as if it had not been; what can go wrong in a week is said or survived."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from omni_avsr.data import loading
from omni_avsr.train import fit as training
from omni_avsr.train import resume as resuming
from omni_avsr.train.fit import fit
from tests.support.runs import assert_same, outcome

STEP = training.Training.training_step


LONG = {"max_steps": 9, "valid_every": 4, "save_every": 2, "lr": 1e-2, "cache_copies": 0}


@pytest.fixture
def run(settings):
    return replace(settings, **LONG)


@pytest.fixture(scope="module")
def whole(small_settings, tmp_path_factory):
    """The folder of a run that was never killed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, None)
        fit(replace(small_settings, **LONG, out=str(out)))
    return out


def at_step(monkeypatch, step: int | None, act=None) -> None:
    """Does something in the middle of a step; each step draws from torch's generator, as dropout does."""

    def training_step(self, batch, number):
        if number == step:
            act()
        return STEP(self, batch, number) * (1 + torch.rand(()))

    monkeypatch.setattr(training.Training, "training_step", training_step)


class Killed(BaseException):
    """Nothing handles it, as nothing handles a SIGKILL."""


def kill():
    raise Killed


def killed_at_step(run, monkeypatch, step):
    at_step(monkeypatch, step, kill)
    with pytest.raises(Killed):
        fit(run)
    at_step(monkeypatch, None)
    fit(run)


@pytest.mark.parametrize("step", [1, 3, 4, 8])
def test_a_killed_run_ends_as_if_it_had_not_been(run, whole, tmp_path, monkeypatch, step):
    """Before the first checkpoint, between two, after a validation, before the end."""
    killed_at_step(run, monkeypatch, step)
    assert_same(whole, tmp_path / "run")
    told = json.loads((tmp_path / "run" / "run.json").read_text())
    assert len(told.get("resumed", [])) == (step > 1)
    assert not list((tmp_path / "run" / "checkpoints").glob("resume-*"))


def test_so_does_one_whose_features_are_kept(run, tmp_path, monkeypatch):
    run = replace(run, cache_copies=2)
    killed_at_step(run, monkeypatch, 7)
    fit(replace(run, out=str(tmp_path / "whole")))
    assert_same(tmp_path / "whole", tmp_path / "run")


KILLED = """
import json, os, signal, sys
from omni_avsr.train import fit as training
from omni_avsr.settings import TrainSettings
step = training.Training.training_step
def killed(self, batch, number):
    if number == 12:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, number)
training.Training.training_step = killed
training.fit(TrainSettings(**json.loads(sys.argv[1])))
"""


def test_after_a_sigkill_no_row_of_the_metrics_is_lost_or_there_twice(settings, tmp_path):
    """The tenth step is logged after its checkpoint would have been written."""
    longer = replace(settings, max_steps=14, save_every=10)
    fit(replace(longer, out=str(tmp_path / "whole")))
    done = subprocess.run([sys.executable, "-c", KILLED, json.dumps(asdict(longer))], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    fit(longer)
    assert [row["step"] for row in outcome(tmp_path / "run")[1]] == ["9", "13"]
    assert_same(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("moment", ["finish_run", "_finish"])
def test_a_run_killed_after_its_last_step_is_finished(run, whole, tmp_path, monkeypatch, moment):
    at_step(monkeypatch, None)
    with monkeypatch.context() as patch:
        patch.setattr(training, moment, lambda *_: kill())
        with pytest.raises(Killed):
            fit(run)
    fit(run)
    assert_same(whole, tmp_path / "run")


@pytest.mark.parametrize("moment", ["during a checkpoint", "during validation", "while reading"])
def test_a_run_killed_outside_of_a_step_goes_on(run, whole, tmp_path, monkeypatch, moment):
    places = {
        "during a checkpoint": (resuming.torch, "save", 2),
        "during validation": (training.Training, "validation_step", 1),
        "while reading": (loading.media, "read_video", 40),
    }
    owner, name, calls = places[moment]
    inner, left = getattr(owner, name), iter(range(calls))

    def killed(*given, **options):
        if next(left, None) is None:
            raise Killed
        return inner(*given, **options)

    at_step(monkeypatch, None)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killed)
        with pytest.raises(Killed):
            fit(run)
    assert not list((tmp_path / "run").rglob("*.part"))
    fit(run)
    assert_same(whole, tmp_path / "run")


@pytest.fixture(scope="module")
def longer(small_settings, tmp_path_factory):
    """A run that was never killed, of more steps than are logged together."""
    longer = replace(small_settings, max_steps=13, save_every=100, out=str(tmp_path_factory.mktemp("longer") / "run"))
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, None)
        fit(longer)
    return longer


@pytest.mark.parametrize(
    ("name", "step", "saved"), [("SIGTERM", 2, 3), ("SIGTERM", 9, 11), ("SIGTERM", 12, 13), ("SIGUSR1", 2, 3)]
)
def test_a_signal_writes_a_checkpoint(longer, tmp_path, monkeypatch, name, step, saved):
    """Where the step is being logged, or the last before a validation, after the next one."""
    run = replace(longer, out=str(tmp_path / "run"))
    at_step(monkeypatch, step, lambda: os.kill(os.getpid(), getattr(signal, name)))
    before = signal.getsignal(getattr(signal, name))
    if name == "SIGTERM":
        with pytest.raises(SystemExit):
            fit(run)
        written = [path.name for path in resuming.checkpoints(tmp_path / "run" / "checkpoints")]
        assert written == [f"resume-{saved}.ckpt"]
        at_step(monkeypatch, None)
    fit(run)
    assert signal.getsignal(getattr(signal, name)) == before
    assert_same(Path(longer.out), tmp_path / "run")


def test_a_torn_checkpoint_leaves_the_one_before_in_force(run, whole, tmp_path, monkeypatch, caplog):
    at_step(monkeypatch, 7, kill)
    with pytest.raises(Killed):
        fit(run)
    at_step(monkeypatch, None)
    newest, before = resuming.checkpoints(tmp_path / "run" / "checkpoints")
    newest.write_bytes(newest.read_bytes()[:1000])
    fit(run)
    assert f"{newest} cannot be read, the one before it is used" in caplog.text
    assert f"going on from {before}" in caplog.text
    assert_same(whole, tmp_path / "run")


def test_a_full_disk_does_not_end_a_run(settings, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(resuming.torch, "save", full)
    assert (fit(settings) / "config.json").is_file()
    assert "no checkpoint written, those before stay in force" in caplog.text
    assert "No space left on device" in caplog.text


def test_what_is_in_the_folder_decides(settings, tmp_path, monkeypatch):
    at_step(monkeypatch, 1, kill)
    with pytest.raises(Killed):
        fit(settings)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"run was trained with lr 0.002, not 0.1: choose another --out"):
        fit(replace(settings, lr=0.1))
    with pytest.raises(ValueError, match="holds another run"):
        fit(replace(settings, resume="never"))
    with pytest.raises(ValueError, match="there is no such checkpoint; nor is it auto or never"):
        fit(replace(settings, resume=str(tmp_path / "none.ckpt")))
    fit(settings)
    with pytest.raises(ValueError, match="holds a finished run"):
        fit(settings)


def test_another_run_can_go_on_from_a_checkpoint(settings, tmp_path, monkeypatch):
    longer = replace(settings, max_steps=4, save_every=1)
    at_step(monkeypatch, 3, kill)
    with pytest.raises(Killed):
        fit(longer)
    at_step(monkeypatch, None)
    newest = resuming.checkpoints(tmp_path / "run" / "checkpoints")[0]
    other = replace(longer, out=str(tmp_path / "other"), resume=str(newest))
    at_step(monkeypatch, 3, kill)
    with pytest.raises(Killed):
        fit(other)
    at_step(monkeypatch, None)
    fit(other)
    fit(longer)
    weights, others = outcome(tmp_path / "run")[0], outcome(tmp_path / "other")[0]
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_a_second_run_in_the_same_folder_is_refused(settings, tmp_path):
    (tmp_path / "run").mkdir()
    with (
        FileLock(tmp_path / "run" / ".lock"),
        pytest.raises(ValueError, match=r"another process is at work in .*run"),
    ):
        fit(settings)
    fit(settings)


def broken(monkeypatch, steps, what="training_step"):
    """NaN in the loss of these steps, or in the features of their clips."""
    inner, nan = getattr(training.Training, what), float("nan")

    def with_nan(self, *given):
        found = inner(self, *given)
        if not self.training or self.global_step not in steps:
            return found
        return found * nan if what == "training_step" else {m: (v * nan, lengths) for m, (v, lengths) in found.items()}

    monkeypatch.setattr(training.Training, what, with_nan)


@pytest.mark.parametrize("what", ["training_step", "_features"])
def test_a_step_without_finite_gradients_is_left_out(settings, tmp_path, monkeypatch, caplog, what):
    broken(monkeypatch, {1, 2, 4}, what)
    fit(replace(settings, max_steps=6))
    assert all(weight.isfinite().all() for weight in outcome(tmp_path / "run")[0].values())
    assert json.loads((tmp_path / "run" / "run.json").read_text())["trained"]["steps_left_out"] == 3
    assert caplog.text.count("left out: its gradients are not finite; clips ") == 3


def test_three_such_steps_in_a_row_end_the_run(settings, tmp_path, monkeypatch):
    broken(monkeypatch, {1, 2, 3})
    with pytest.raises(ValueError, match=r"3 steps in a row without finite gradients; the clips of the last: .*json"):
        fit(replace(settings, max_steps=6))
    assert json.loads((tmp_path / "run" / "bad-batch.json").read_text())


@pytest.mark.parametrize("copies", [0, 1])
def test_too_many_unreadable_clips_end_the_run(settings, monkeypatch, copies):
    read = loading.media.read_video
    monkeypatch.setattr(
        loading.media, "read_video", lambda path: read("missing.mp4") if path.stem in ("003", "005") else read(path)
    )
    strict = replace(settings, max_steps=6, cache_copies=copies)
    with pytest.raises(ValueError, match=r"2 of 24 clips cannot be read, more than --max-unreadable 0.05: .*00[35]"):
        fit(replace(strict, max_unreadable=0.05))
    fit(replace(strict, max_unreadable=0.1))


def test_out_of_memory_says_what_to_lower(settings, monkeypatch):
    def full():
        raise torch.OutOfMemoryError("CUDA out of memory")

    at_step(monkeypatch, 1, full)
    with pytest.raises(ValueError, match=r"out of memory in a batch of \d+ clips, .* lower --max-frames, now 120, or"):
        fit(settings)
