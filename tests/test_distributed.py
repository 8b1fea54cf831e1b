"""Several processes train what one would, on the CPU."""

import csv
import json
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

from omni_avsr.data.loading import EndlessBatches

TRAIN = """
import json, sys
from omni_avsr.settings import TrainSettings
from omni_avsr.training import fit
fit(TrainSettings(**json.loads(sys.argv[1])))
"""


def train(settings, tmp_path, script=TRAIN, **changes):
    file = tmp_path / "train.py"
    file.write_text(script)
    chosen = json.dumps(asdict(replace(settings, **changes)))
    return subprocess.run([sys.executable, file, chosen], capture_output=True, text=True, timeout=240)


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
from conftest import SMALL, TEXTS, avhubert_config, clips, llm_config, whisper_config
from transformers import PreTrainedTokenizerFast
from omni_avsr import OmniAVSR, OmniAVSRProcessor
from omni_avsr.settings import TrainSettings
from omni_avsr.training import Training

torch.manual_seed(0)
tokenizer = PreTrainedTokenizerFast.from_pretrained(sys.argv[1])
model = OmniAVSR.from_towers(whisper_config(), avhubert_config(), llm_config(), tokenizer=tokenizer, **SMALL)
processor = OmniAVSRProcessor(tokenizer, model.config)
training = Training(model, processor, TrainSettings(cache_copies=0), SimpleNamespace(clips=[None] * 4))
training.log_dict = lambda *_, **__: None
lengths = (30, 12, 9, 20)

def gradients(rows):
    both = clips(*lengths)
    media = processor.media([both["audio"][i] for i in rows], [both["video"][i] for i in rows]) if rows else {}
    batch = {"media": media, "text": [TEXTS[i] for i in rows], "seconds": [1.0] * len(rows), "unreadable": []}
    model.zero_grad()
    training.training_step(batch, 0).backward()
    return {n: w.grad.clone() if w.grad is not None else torch.zeros_like(w)
            for n, w in model.named_parameters() if w.requires_grad}

whole = gradients([0, 1, 2, 3])
dist.init_process_group("gloo")
rank = dist.get_rank()
for halves in (([0], [1, 2, 3]), ([0, 1, 2, 3], [])):
    for name, own in gradients(halves[rank]).items():
        dist.all_reduce(own)
        torch.testing.assert_close(own / 2, whole[name], atol=1e-6, rtol=1e-4)
print("equal")
"""


def torchrun(script, *arguments, processes=2, timeout=240):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run([*command, script, *arguments], capture_output=True, text=True, timeout=timeout)


def test_two_processes_have_the_gradients_of_one(tmp_path, tokenizer_file):
    """Also where their shares differ, and where one has no clip that can be read."""
    script = tmp_path / "gradients.py"
    script.write_text(GRADIENTS)
    done = torchrun(script, str(tokenizer_file), "-", str(Path(__file__).parent), str(Path(__file__).parents[1]))
    assert done.stdout.count("equal") == 2, done.stderr


def test_two_processes_train_and_validate_what_one_does(settings, tmp_path):
    """Each validation clip counts once, whatever process has it."""
    fixed = replace(settings, method="llama-mt", max_steps=3, valid_clips=6, cache_copies=0, noise_probability=0.0)
    whole = train(fixed, tmp_path, out=str(tmp_path / "one"), devices="1", strategy="auto")
    assert whole.returncode == 0, whole.stderr
    split = train(fixed, tmp_path, out=str(tmp_path / "two"), devices="2", strategy="ddp", max_frames=60)
    assert split.returncode == 0, split.stderr
    rows = [list(csv.DictReader((tmp_path / name / "metrics.csv").open()))[-1] for name in ("one", "two")]
    clips = [json.loads((tmp_path / name / "run.json").read_text())["trained"]["clips"] for name in ("one", "two")]
    assert rows[0].keys() == rows[1].keys()
    assert all(clips)


def test_a_process_that_dies_ends_the_run_with_its_error(settings, tmp_path):
    script = TRAIN.replace("from omni_avsr.training import fit", BROKEN)
    started = time.monotonic()
    done = train(replace(settings, max_steps=50), tmp_path, script=script, devices="2", strategy="ddp")
    assert done.returncode != 0
    assert "the second process is broken" in done.stderr, done.stderr
    assert time.monotonic() - started < 120


BROKEN = """
import os
from omni_avsr import training
from omni_avsr.training import fit
step = training.Training.training_step
def broken(self, batch, number):
    if number == 2 and self.global_rank == 1:
        raise RuntimeError("the second process is broken")
    return step(self, batch, number)
training.Training.training_step = broken
"""
