"""An interrupted run is resumed and ends like one that was not.

What can go wrong in a week of training is survived, or reported in one sentence.
"""

import json
import os
import signal
from dataclasses import replace

import pytest
import torch
from filelock import FileLock
from lightning.pytorch import loggers

from omni_avsr.data import loading
from omni_avsr.errors import InputError
from omni_avsr.train import fit as fitting
from omni_avsr.train import resume
from omni_avsr.train.fit import fit
from omni_avsr.train.step import Training
from tests.support.corpus import write_split
from tests.support.interruptions import Killed, kill, killed_after
from tests.support.processes import Group
from tests.support.runs import (
    assert_same,
    assert_same_weights,
    at_step,
    fit_until_sigkill,
    noisy_step,
    outcome,
    read_metrics,
    weights_of_model,
)


@pytest.fixture(autouse=True, scope="module")
def noisy_steps():
    """Each step draws from torch's generator, whose state a resumed run has to restore."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "training_step", noisy_step)
        yield


@pytest.fixture(scope="module")
def long_settings(small_settings):
    """Nine steps, with validations after four and eight, and a checkpoint every two."""
    steps = {"max_steps": 9, "valid_every": 4, "save_every": 2, "lr": 1e-2}
    return replace(small_settings, audio_rates=(4,), cache_copies=0, max_frames=60, **steps)


@pytest.fixture
def run(long_settings, tmp_path):
    return replace(long_settings, out=tmp_path / "run")


@pytest.fixture(scope="module")
def whole(long_settings, tmp_path_factory):
    """The folder of a run that was never killed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    fit(replace(long_settings, out=out))
    return out


def kill_at_step(settings, step):
    """Trains until this step, in whose middle the run is killed."""
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, step, kill)
        with pytest.raises(Killed):
            fit(settings)


def read_record(settings):
    return json.loads((settings.out / "run.json").read_text())


@pytest.mark.parametrize(
    ("step", "resumed"),
    [
        pytest.param(1, 0, id="before the first checkpoint"),
        pytest.param(3, 1, id="between two checkpoints"),
        pytest.param(4, 1, id="after a validation"),
        pytest.param(8, 1, id="before the end"),
    ],
)
def test_a_killed_run_ends_with_the_weights_of_one_that_was_not_killed(run, whole, step, resumed):
    kill_at_step(run, step)
    fit(run)
    assert_same(whole, run.out)
    assert len(read_record(run).get("resumed", [])) == resumed
    assert not list((run.out / "checkpoints").glob("resume-*"))


def test_a_killed_run_with_cached_features_ends_like_one_that_was_not_killed(run, tmp_path):
    cached = replace(run, cache_copies=2)
    kill_at_step(cached, 7)
    fit(cached)
    fit(replace(cached, out=tmp_path / "whole"))
    assert_same(tmp_path / "whole", cached.out)


def test_after_a_sigkill_no_row_of_the_metrics_is_lost_or_repeated(settings, tmp_path):
    """The tenth step is logged after its checkpoint would have been written."""
    longer = replace(settings, max_steps=14, save_every=10)
    fit(replace(longer, out=tmp_path / "whole"))
    assert Group(1, fit_until_sigkill, longer, 12).wait() == [-signal.SIGKILL]
    fit(longer)
    assert [row["step"] for row in outcome(longer.out).metrics] == ["9", "13"]
    assert_same(tmp_path / "whole", longer.out)


@pytest.mark.parametrize("moment", ["finish_run", "_finish"])
def test_a_run_that_was_killed_after_its_last_step_is_finished_when_it_is_resumed(
    run, whole, monkeypatch, moment
):
    with monkeypatch.context() as patch:
        patch.setattr(fitting, moment, kill)
        with pytest.raises(Killed):
            fit(run)
    fit(run)
    assert_same(whole, run.out)


@pytest.mark.parametrize(
    ("owner", "name", "calls"),
    [
        pytest.param(resume.torch, "save", 2, id="during a checkpoint"),
        pytest.param(Training, "validation_step", 1, id="during a validation"),
        pytest.param(loading.streams, "read_video", 15, id="while reading"),
    ],
)
def test_a_run_that_was_killed_outside_of_a_step_is_resumed(
    run, whole, monkeypatch, owner, name, calls
):
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killed_after(calls, getattr(owner, name)))
        with pytest.raises(Killed):
            fit(run)
    assert not list(run.out.rglob("*.part"))
    fit(run)
    assert_same(whole, run.out)


@pytest.fixture(scope="module")
def longer(small_settings, tmp_path_factory):
    """The settings of a run that was never killed, with more steps than are logged together."""
    out = tmp_path_factory.mktemp("longer") / "run"
    longer = replace(small_settings, max_steps=13, save_every=100, audio_rates=(4,), out=out)
    fit(longer)
    return longer


@pytest.mark.parametrize(
    ("step", "saved"),
    [
        pytest.param(2, 3, id="after the step"),
        pytest.param(9, 11, id="one step later, because the tenth step is logged"),
        pytest.param(12, 13, id="after the validation that follows the step"),
    ],
)
def test_a_sigterm_writes_a_checkpoint_and_ends_the_run(longer, tmp_path, monkeypatch, step, saved):
    run = replace(longer, out=tmp_path / "run")
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        at_step(patch, step, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit):
            fit(run)
    assert signal.getsignal(signal.SIGTERM) == before
    written = [path.name for path in resume.checkpoints(run.out / "checkpoints")]
    assert written[0] == f"resume-{saved}.ckpt"
    fit(run)
    assert_same(longer.out, run.out)


def test_a_last_validation_that_fails_leaves_the_model_and_is_repeated(
    longer, tmp_path, monkeypatch, caplog
):
    run = replace(longer, out=tmp_path / "run")

    def fail(*_):
        raise InputError("a validation clip is broken")

    with monkeypatch.context() as patch:
        patch.setattr(Training, "validation_step", fail)
        with pytest.raises(InputError, match="a validation clip is broken"):
            fit(run)
    assert f"{run.out / 'model'} is the model of the last step" in caplog.text
    assert_same_weights(weights_of_model(run.out), weights_of_model(longer.out))
    assert "trained" not in read_record(run)
    steps = []
    at_step(monkeypatch, 11, lambda: steps.append(11))
    at_step(monkeypatch, 12, lambda: steps.append(12))
    fit(run)
    assert steps == [12]
    assert_same(longer.out, run.out)


def test_a_sigusr1_writes_a_checkpoint_and_the_run_continues(longer, tmp_path, monkeypatch):
    run = replace(longer, out=tmp_path / "run")
    before = signal.getsignal(signal.SIGUSR1)
    written = []
    at_step(monkeypatch, 2, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    at_step(monkeypatch, 4, lambda: written.extend(resume.checkpoints(run.out / "checkpoints")))
    fit(run)
    assert [path.name for path in written] == ["resume-3.ckpt"]
    assert signal.getsignal(signal.SIGUSR1) == before
    assert_same(longer.out, run.out)


def test_a_damaged_checkpoint_is_skipped_and_the_one_before_it_is_used(run, whole, caplog):
    kill_at_step(run, 7)
    newest, before = resume.checkpoints(run.out / "checkpoints")
    newest.write_bytes(newest.read_bytes()[:1000])
    fit(run)
    assert f"{newest} cannot be read, the one before it is used" in caplog.text
    assert f"resuming from {before}" in caplog.text
    assert_same(whole, run.out)


@pytest.mark.parametrize("valid_every", [0, 1])
def test_a_full_disk_does_not_end_a_run(settings, monkeypatch, caplog, valid_every):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(resume.torch, "save", full)
    model = fit(replace(settings, audio_rates=(4,), valid_every=valid_every))
    assert (model / "config.json").is_file()
    of_last_step = "best.ckpt is missing: the model is that of the last step"
    assert (of_last_step in caplog.text) == bool(valid_every)
    assert "no checkpoint written, the earlier ones remain" in caplog.text
    assert "No space left on device" in caplog.text


def test_a_run_is_resumed_only_with_the_settings_that_it_was_started_with(settings, tmp_path):
    kill_at_step(settings, 1)
    with pytest.raises(
        InputError, match=r"run was trained with lr 0\.002, not 0\.1: choose another --out"
    ):
        fit(replace(settings, lr=0.1))
    with pytest.raises(InputError, match="holds another run"):
        fit(replace(settings, resume="never"))
    with pytest.raises(InputError, match="there is no such checkpoint; nor is it auto or never"):
        fit(replace(settings, resume=str(tmp_path / "none.ckpt")))
    fit(settings)
    with pytest.raises(InputError, match="holds a finished run"):
        fit(settings)


def test_a_run_is_resumed_only_with_the_clips_that_it_was_started_with(settings, tmp_path):
    labels = write_split(tmp_path / "clips", "train", 12, seed=7)
    text = labels.read_text()
    changed = replace(settings, data=labels, max_steps=4, save_every=1)
    kill_at_step(changed, 2)
    labels.write_text(text.replace("set white", "set black", 1))
    message = rf"run was started with other clips than {labels}, .* restore them to resume it, or"
    with pytest.raises(InputError, match=message):
        fit(changed)
    labels.write_text(text)
    kill_at_step(changed, 3)
    assert len(read_record(changed)["resumed"]) == 1
    labels.write_text(text.replace("set white", "set black", 1))
    record = read_record(changed)
    del record["clips"]  # as an older version has written it
    (changed.out / "run.json").write_text(json.dumps(record))
    fit(changed)
    assert read_record(changed)["trained"]


def test_a_run_that_an_older_version_has_started_is_resumed(run, whole, tmp_path):
    """It wrote lists as text, had fewer options, and one that there is no longer."""
    kill_at_step(run, 5)
    record = read_record(run)
    written = record["settings"]
    written["audio_rates"] = "4"
    written["noise_snr"] = "-5,0,5,10,15,20"
    written["task_weights"] = "1,1.5,1"
    written["lora_targets"] = "q_proj,v_proj"
    written["forgotten_option"] = 3
    for new in ("compile", "audio_context", "max_unreadable"):
        del written[new]
    (run.out / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="was trained with audio_rates 4, not 4,16: choose"):
        fit(replace(run, audio_rates=(4, 16)))
    with pytest.raises(InputError, match="was trained with audio_context clip, not padded: choose"):
        fit(replace(run, audio_context="padded"))
    fit(run)
    assert len(read_record(run)["resumed"]) == 1
    assert_same(whole, run.out)


def test_another_run_can_start_from_a_checkpoint(settings, tmp_path):
    longer = replace(settings, max_steps=5, save_every=1, audio_rates=(4,))
    kill_at_step(longer, 3)
    newest = resume.checkpoints(longer.out / "checkpoints")[0]
    other = replace(longer, out=tmp_path / "other", resume=str(newest))
    kill_at_step(other, 4)
    with pytest.raises(InputError, match="is that of a run that trains another model"):
        fit(replace(other, out=tmp_path / "larger", lora_rank=6))
    fit(longer)
    assert not newest.exists()
    fit(other)
    assert_same_weights(outcome(longer.out).weights, outcome(other.out).weights)


@pytest.fixture(scope="module")
def moved(long_settings, tmp_path_factory):
    """A run that was killed in its last step, after its last validation, and then moved."""
    folder = tmp_path_factory.mktemp("moved")
    killed = replace(long_settings, out=folder / "run")
    kill_at_step(killed, 8)
    return replace(killed, out=killed.out.rename(folder / "moved"))


def test_a_run_that_starts_from_a_checkpoint_does_not_end_with_the_best_one_before_it(
    moved, whole, tmp_path
):
    start = resume.checkpoints(moved.out / "checkpoints")[0]
    fit(replace(moved, out=tmp_path / "other", resume=str(start)))
    best, last = weights_of_model(whole), weights_of_model(tmp_path / "other")
    assert not all(torch.equal(best[name], last[name]) for name in best)


def test_a_run_whose_folder_was_moved_ends_with_its_best_validation(moved, whole):
    fit(moved)
    assert_same(whole, moved.out)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"weights", "start.ckpt is damaged, or not a checkpoint of a run"),
        ({"weights": 1}, "start.ckpt is damaged, or not a checkpoint of a run"),
        ({"global_step": 2}, "start.ckpt has 2 steps, and --max-steps 2 leaves none to train"),
    ],
)
def test_a_checkpoint_that_a_run_cannot_start_from_is_refused(settings, tmp_path, content, message):
    start = tmp_path / "start.ckpt"
    if isinstance(content, bytes):
        start.write_bytes(content)
    else:
        torch.save(content, start)
    with pytest.raises(InputError, match=message):
        fit(replace(settings, resume=str(start)))


@pytest.mark.parametrize("damage", [b"\xff\xfe\n", b"5,6,7\n", b"\x00\x00", b"3\n"])
def test_damaged_metrics_do_not_keep_a_run_from_being_resumed(tmp_path, damage):
    torch.save({"global_step": 9}, tmp_path / "resume-9.ckpt")
    metrics = tmp_path / "metrics.csv"
    metrics.write_bytes(b"loss,step\n0.5,4\n" + damage)
    logger = loggers.CSVLogger(tmp_path, name=None, version="")
    resume.keep_metrics(logger, tmp_path / "resume-9.ckpt")
    assert read_metrics(tmp_path) == [{"loss": "0.5", "step": "4"}]
    metrics.write_bytes(damage)
    logger = loggers.CSVLogger(tmp_path, name=None, version="")
    resume.keep_metrics(logger, tmp_path / "resume-9.ckpt")
    assert not metrics.exists()


def test_a_run_that_starts_from_another_is_resumed(settings, whole, tmp_path):
    run = replace(settings, from_=str(whole), max_steps=5, save_every=1)
    kill_at_step(run, 2)
    fit(run)
    fit(replace(run, out=tmp_path / "whole"))
    assert_same(tmp_path / "whole", run.out)
    with pytest.raises(InputError, match=r"was trained with from .*, not None: choose"):
        fit(replace(run, from_=None))


def test_a_second_run_in_the_same_folder_is_refused(settings):
    settings.out.mkdir()
    with (
        FileLock(settings.out / ".lock"),
        pytest.raises(InputError, match=r"another process is working in .*run"),
    ):
        fit(settings)
    fit(settings)


def make_losses_nan(monkeypatch, steps):
    """Makes the loss of these steps NaN."""
    inner = Training.training_step

    def training_step(self, batch, number):
        loss = inner(self, batch, number)
        return loss * float("nan") if self.global_step in steps else loss

    monkeypatch.setattr(Training, "training_step", training_step)


def make_features_nan(monkeypatch, steps):
    """Makes the features of the clips of these steps NaN."""
    inner = Training._features

    def features(self, batch):
        found = inner(self, batch)
        if not self.training or self.global_step not in steps:
            return found
        nan = float("nan")
        return replace(found, audio=found.audio * nan, video=found.video * nan)

    monkeypatch.setattr(Training, "_features", features)


@pytest.mark.parametrize("make_nan", [make_losses_nan, make_features_nan])
def test_a_step_without_finite_gradients_is_skipped(settings, monkeypatch, caplog, make_nan):
    make_nan(monkeypatch, {1, 2, 4})
    fit(replace(settings, max_steps=6))
    for weight in outcome(settings.out).weights.values():
        assert weight.isfinite().all()
    assert read_record(settings)["trained"]["steps_left_out"] == 3
    assert caplog.text.count("skipped: its gradients are not finite; clips ") == 3


def test_three_steps_in_a_row_without_finite_gradients_end_the_run(settings, monkeypatch):
    make_losses_nan(monkeypatch, {1, 2, 3})
    message = r"3 steps in a row without finite gradients; .*bad-batch\.json lists the clips of one"
    with pytest.raises(InputError, match=message):
        fit(replace(settings, max_steps=6))
    clips = json.loads((settings.out / "bad-batch.json").read_text())
    assert clips
    assert all(name.startswith("train/") for name in clips)


@pytest.mark.parametrize("copies", [0, 1])
def test_too_many_unreadable_clips_end_the_run(settings, monkeypatch, copies):
    read_video = loading.streams.read_video

    def read_most(path):
        return read_video("missing.mp4" if path.stem in ("003", "005") else path)

    monkeypatch.setattr(loading.streams, "read_video", read_most)
    strict = replace(settings, max_steps=6, cache_copies=copies)
    with pytest.raises(
        InputError,
        match=r"2 of 12 clips cannot be read, more than --max-unreadable 0\.1: .*00[35]",
    ):
        fit(replace(strict, max_unreadable=0.1))
    fit(replace(strict, max_unreadable=0.2))


def test_running_out_of_memory_says_what_to_lower(settings, monkeypatch):
    def fail():
        raise torch.OutOfMemoryError("CUDA out of memory")

    at_step(monkeypatch, 1, fail)
    with pytest.raises(
        InputError,
        match=r"out of memory in a batch of \d+ clips, .* lower --max-frames, now 120, or",
    ):
        fit(settings)
