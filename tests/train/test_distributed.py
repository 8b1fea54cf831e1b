"""Several processes train what one would, on the CPU."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from omni_avsr.data.loading import EndlessBatches
from tests.support.runs import outcome

TRAIN = """
import json, sys
from omni_avsr.settings import TrainSettings
from omni_avsr.train.fit import fit
fit(TrainSettings(**json.loads(sys.argv[1])))
"""


def train(settings, tmp_path, script=TRAIN, alone=False, **changes):
    file = tmp_path / "train.py"
    file.write_text(script)
    chosen = json.dumps(asdict(replace(settings, **changes)))
    pipes = {"capture_output": True, "text": True, "timeout": 240, "start_new_session": alone}
    env = {**os.environ, "OMP_NUM_THREADS": "1"}  # of each process
    return subprocess.run([sys.executable, file, chosen], check=False, env=env, **pipes)


def test_each_process_takes_its_turn():
    lengths = list(range(10, 40))

    def first(rank, ranks, start=0, count=12):
        batches = EndlessBatches(lengths, 100, 1)
        batches.rank, batches.ranks, batches.start = rank, ranks, start
        return [batch for batch, _ in zip(batches, range(count), strict=False)]

    alone = first(0, 1, count=24)
    assert [b for pair in zip(first(0, 2), first(1, 2), strict=True) for b in pair] == alone
    assert first(1, 2, start=4, count=3) == alone[9:15:2]


GRADIENTS = """
import sys
import torch
import torch.distributed as dist
from types import SimpleNamespace
sys.path[:0] = sys.argv[3:]
from tests.support.towers import SMALL, TEXTS, avhubert_config, clips, llm_config, whisper_config
from transformers import PreTrainedTokenizerFast
from omni_avsr import OmniAVSR, OmniAVSRProcessor
from omni_avsr.settings import TrainSettings
from omni_avsr.train.shard import share_out
from omni_avsr.train.fit import Training

torch.manual_seed(0)
tokenizer = PreTrainedTokenizerFast.from_pretrained(sys.argv[1])
model = OmniAVSR.from_towers(whisper_config(), avhubert_config(), llm_config(), tokenizer=tokenizer, **SMALL)
processor = OmniAVSRProcessor(tokenizer, model.config)
data = SimpleNamespace(clips=[SimpleNamespace(id="x")] * 4)
training = Training(model, processor, TrainSettings(cache_copies=0), data)
training.log_dict = lambda *_, **__: None
lengths = (30, 12, 9, 20)

def gradients(rows):
    both = clips(*lengths)
    media = processor.media([both["audio"][i] for i in rows], [both["video"][i] for i in rows]) if rows else {}
    batch = {"media": media, "text": [TEXTS[i] for i in rows], "seconds": [1.0] * len(rows)}
    batch |= {"unreadable": [], "keys": [(i, 0) for i in rows]}
    model.zero_grad()
    training.training_step(batch, 0).backward()
    return {n: w.grad.clone() if w.grad is not None else torch.zeros_like(w)
            for n, w in model.named_parameters() if w.requires_grad}

whole = gradients([0, 1, 2, 3])
dist.init_process_group("gloo")
rank = dist.get_rank()
if sys.argv[2] == "fsdp":
    share_out(training, model, "cpu")
    layers = [w for w in model.llm.get_base_model().get_decoder().layers.parameters() if not w.requires_grad]
    assert all(2 * w.to_local().numel() == w.numel() for w in layers)
for halves in (([0], [1, 2, 3]), ([0, 1, 2, 3], [])):
    for name, own in gradients(halves[rank]).items():
        dist.all_reduce(own)
        torch.testing.assert_close(own / 2, whole[name], atol=1e-6, rtol=1e-4)
print("equal")
"""


@pytest.fixture
def gradients(tmp_path, tokenizer_file):
    """A script for torchrun, and its arguments."""
    script = tmp_path / "gradients.py"
    script.write_text(GRADIENTS)
    return [str(script), str(tokenizer_file), "ddp", str(Path(__file__).parents[2])]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_have_the_gradients_of_one(gradients, strategy):
    """Also where their shares differ, and where one has no clip that can be read."""
    gradients[2] = strategy
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *gradients]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.stdout.count("equal") == 2, done.stderr


@pytest.fixture
def hosts():
    """Two network namespaces with a cable between them, as two machines have it."""
    names = (f"omni-{os.getpid()}-a", f"omni-{os.getpid()}-b")
    steps = [
        *(f"netns add {name}" for name in names),
        f"link add cable netns {names[0]} type veth peer name cable netns {names[1]}",
        *(f"-n {name} addr add 10.77.0.{i}/24 dev cable" for i, name in enumerate(names, 1)),
        *(f"-n {name} link set {link} up" for name in names for link in ("lo", "cable")),
    ]
    try:
        for step in steps:
            done = subprocess.run(["ip", *step.split()], capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"no network namespaces here: ip {step}: {done.stderr.strip()}")
        yield names
    except FileNotFoundError:
        pytest.skip("no network namespaces here: there is no ip command")
    finally:
        for name in names:
            if shutil.which("ip"):
                subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def test_two_hosts_have_the_gradients_of_one(gradients, hosts):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    own = {**os.environ, "GLOO_SOCKET_IFNAME": "cable"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    runs = []
    for i, name in enumerate(hosts, 1):
        meeting = ["--rdzv-backend=c10d", "--rdzv-endpoint=10.77.0.1:29511", f"--rdzv-conf=is_host={int(i == 1)}"]
        command = [*torchrun, *meeting, "--rdzv-id=test", f"--local-addr=10.77.0.{i}", *gradients]
        runs.append(subprocess.Popen(["ip", "netns", "exec", name, *command], env=own, **pipes))
    try:
        for run in runs:
            out, error = run.communicate(timeout=240)
            assert out.count("equal") == 1, error
    finally:
        for run in runs:
            run.kill()


def test_validation_counts_each_clip_once(settings, tmp_path):
    """With fewer batches than processes. Nothing is learned, so that both validate the same weights."""
    still = replace(settings, lr=0.0, max_steps=1, valid_clips=2, cache_copies=0, max_frames=60)
    rows = []
    for devices, strategy in (("1", "auto"), ("2", "ddp")):
        out = tmp_path / devices
        done = train(still, tmp_path, out=str(out), devices=devices, strategy=strategy)
        assert done.returncode == 0, done.stderr
        rows.append(list(csv.DictReader((out / "metrics.csv").open()))[-1])
    valid = [name for name in rows[0] if name.startswith("valid/")]
    assert len(valid) == 17
    for name in valid:
        assert float(rows[0][name]) == pytest.approx(float(rows[1][name]), rel=1e-5)


def test_a_process_that_dies_ends_the_run_with_its_error(settings, tmp_path):
    script = TRAIN.replace("from omni_avsr.train.fit import fit", BROKEN)
    started = time.monotonic()
    done = train(replace(settings, max_steps=50), tmp_path, script=script, devices="2", strategy="ddp")
    assert done.returncode != 0
    assert "the second process is broken" in done.stderr, done.stderr
    assert time.monotonic() - started < 120


BROKEN = """
import os
from omni_avsr.train import fit as training
from omni_avsr.train.fit import fit
step = training.Training.training_step
def broken(self, batch, number):
    if number == 2 and self.global_rank == 1:
        raise RuntimeError("the second process is broken")
    return step(self, batch, number)
training.Training.training_step = broken
"""


KILLED = """
import os, signal
from omni_avsr.train import fit as training
from omni_avsr.train.fit import fit
step = training.Training.training_step
def killed(self, batch, number):
    if number == 5 and self.global_rank == 0:
        os.killpg(os.getpgrp(), signal.SIGKILL)
    return step(self, batch, number)
training.Training.training_step = killed
"""


def test_shared_out_layers_are_trained_as_whole_ones_and_go_on(settings, tmp_path):
    """A run with `fsdp` that is killed and goes on, against one with `ddp`; both compute layers twice.

    With `ddp` each process validates its share of the clips, with `fsdp` each all of them.
    """
    often = replace(settings, max_steps=8, valid_every=4, valid_clips=6, save_every=2, cache_copies=0)
    run = replace(often, devices="2", gradient_checkpointing=True)
    assert train(run, tmp_path, out=str(tmp_path / "ddp"), strategy="ddp").returncode == 0
    killing = TRAIN.replace("from omni_avsr.train.fit import fit", KILLED)
    fsdp = replace(run, out=str(tmp_path / "fsdp"), strategy="fsdp")
    assert train(fsdp, tmp_path, script=killing, alone=True).returncode == -9
    done = train(fsdp, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "going on" in done.stderr
    (weights, metrics), (others, other_metrics) = outcome(tmp_path / "ddp"), outcome(tmp_path / "fsdp")
    torch.testing.assert_close(weights, others, rtol=1e-3, atol=1e-5)
    for row, other in zip(metrics, other_metrics, strict=True):
        assert {k: float(v) for k, v in row.items()} == pytest.approx({k: float(v) for k, v in other.items()}, rel=1e-3)
