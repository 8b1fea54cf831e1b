"""Several processes train what one would, on the CPU."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from omni_avsr.data.loading import EndlessBatches
from omni_avsr.train.fit import fit
from tests.support import gradients
from tests.support.processes import LONGEST, SERVER, Group
from tests.support.runs import as_json, fit_until_step, outcome, read_metrics

ROOT = Path(__file__).parents[2]


def first_batches(rank, ranks, count, start=0):
    """The first batches of one of several processes."""
    batches = EndlessBatches(list(range(10, 40)), max_frames=100, seed=1)
    batches.rank = rank
    batches.ranks = ranks
    batches.start = start
    return [batch for batch, _ in zip(batches, range(count), strict=False)]


def test_processes_take_turns_in_the_batches_of_one():
    of_one = first_batches(0, 1, 24)
    assert first_batches(0, 2, 12) == of_one[0::2]
    assert first_batches(1, 2, 12) == of_one[1::2]
    assert first_batches(1, 2, 3, start=4) == of_one[9:15:2]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_have_the_gradients_of_one(tokenizer_file, strategy):
    """Also where their shares differ, and where one has no clip that can be read."""
    assert Group(2, gradients.check, str(tokenizer_file), strategy).wait() == [0, 0]


def test_validation_counts_each_clip_once(settings, tmp_path):
    """With fewer batches than processes. The weights hardly change, as the steps are tiny.

    Two processes share the encoding.
    """
    still = replace(settings, lr=1e-12, max_steps=1, max_frames=60)
    one = replace(still, out=tmp_path / "one", devices="1")
    two = replace(still, out=tmp_path / "two", devices="2", strategy="ddp")
    fit(one)
    assert Group(2, fit, two).wait() == [0, 0]
    expected = measured(one)
    assert len(expected) == 18
    assert measured(two) == pytest.approx(expected, rel=1e-5)


def measured(settings):
    """The metrics of a run's last validation."""
    row = read_metrics(settings.out)[-1]
    return {name: float(value) for name, value in row.items() if name.startswith("valid/")}


def test_a_process_that_dies_ends_the_run_with_its_error(settings):
    """The processes are started by Lightning, as `omni-avsr train --devices 2` does."""
    broken = replace(settings, max_steps=50, cache_copies=0, devices="2", strategy="ddp")
    command = [sys.executable, "-m", "tests.support.broken_training", as_json(broken)]
    started = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode != 0
    assert "the second process is broken" in done.stderr, done.stderr
    assert time.monotonic() - started < 120


def test_a_killed_run_with_sharded_layers_is_resumed_and_trains_what_whole_layers_do(
    settings, tmp_path
):
    """Both runs recompute the layers.

    With `ddp` each process validates its share of the clips, with `fsdp` each all of them.
    """
    run = replace(
        settings,
        max_steps=4,
        valid_every=2,
        valid_clips=6,
        save_every=1,
        cache_copies=0,
        max_frames=40,  # an odd number of batches of validation clips
        audio_rates=(4,),
        devices="2",
        gradient_checkpointing=True,
    )
    ddp = replace(run, out=tmp_path / "ddp", strategy="ddp")
    assert Group(2, fit, ddp).wait() == [0, 0]
    fsdp = replace(run, out=tmp_path / "fsdp", strategy="fsdp")
    kill_at_step(fsdp, 3)
    assert Group(2, fit, fsdp).wait() == [0, 0]
    resumed = json.loads((fsdp.out / "run.json").read_text())["resumed"]
    assert [Path(again["from"]).name for again in resumed] == ["resume-3.ckpt"]
    assert_close(ddp.out, fsdp.out)


def kill_at_step(settings, step):
    """Trains in two processes until this step, in which both are killed."""
    reached = SERVER.Event()
    group = Group(2, fit_until_step, settings, step, reached)
    try:
        assert reached.wait(LONGEST)
    finally:
        group.kill()


def assert_close(one, other):
    """Fails unless weights and metrics of two runs are nearly the same."""
    first, second = outcome(one), outcome(other)
    torch.testing.assert_close(first.weights, second.weights, rtol=1e-3, atol=1e-5)
    assert len(first.metrics) == len(second.metrics)
    for row, other_row in zip(first.metrics, second.metrics, strict=True):
        expected = {name: float(value) for name, value in row.items()}
        found = {name: float(value) for name, value in other_row.items()}
        assert found == pytest.approx(expected, rel=1e-3)
