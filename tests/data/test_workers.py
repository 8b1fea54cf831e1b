"""Processes that read clips give the same batches as one process, and say what ends them."""

import os
import shutil
import signal
from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from omni_avsr.data import manifest, workers
from omni_avsr.data.loading import ClipKey
from omni_avsr.data.workers import loader_of, told_of_workers, workers_for
from omni_avsr.errors import InputError
from omni_avsr.model import Features, Media
from omni_avsr.run import no_progress
from omni_avsr.train.batches import Batches, TrainingBatch

GPU = torch.device("cuda", 0)


class Numbers:
    """Clips that are their own index, of which some end the process or are refused."""

    def __init__(self, **ends):
        self.ends = ends

    def __getitem__(self, key):
        if end := self.ends.get(f"clip{key.clip}"):
            end()
        return key.clip


def refuse():
    raise InputError("x.features was cut: start the run again")


def numbers(workers, **ends):
    """Batches of one number each."""
    batches = [[ClipKey(index, 0)] for index in range(6)]
    loader = loader_of(Numbers(**ends), batches, list, workers, torch.device("cpu"))
    with told_of_workers():
        return list(loader)


def test_processes_give_the_batches_of_one(make, settings, files):
    clips = manifest.read(files["train"])
    model = make()
    found = []
    for count in (0, 2):
        data = Batches(*model, replace(settings, workers=count, cache_copies=0), no_progress)
        data.prepare(clips, clips)
        state = torch.get_rng_state()
        found.append(list(islice(data.training(), 3)))
        assert torch.equal(torch.get_rng_state(), state)
    for one, other in zip(*found, strict=True):
        assert (one.keys, one.ids, one.texts) == (other.keys, other.ids, other.texts)
        for name, value in vars(one.media).items():
            assert torch.equal(value, getattr(other.media, name)), name


def test_the_signals_that_end_a_run_do_not_end_its_readers():
    def sent():
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)

    assert numbers(1, clip2=sent) == [[0], [1], [2], [3], [4], [5]]


@pytest.mark.parametrize("end", [lambda: os._exit(3), lambda: os.kill(os.getpid(), signal.SIGKILL)])
def test_a_reader_that_dies_says_so_in_one_sentence(end, monkeypatch):
    waiting = _MultiProcessingDataLoaderIter._try_get_data
    monkeypatch.setattr(waiting, "__defaults__", (0.2,))  # seconds, where torch waits for five
    message = r"a process that reads clips has died \(DataLoader worker .*set fewer --workers, or 0"
    with pytest.raises(InputError, match=message):
        numbers(1, clip3=end)


@pytest.mark.parametrize("count", [0, 1])
def test_what_a_reader_refuses_is_said_as_if_it_were_not_another_process(count):
    with pytest.raises(InputError, match=r"^x\.features was cut: start the run again$"):
        numbers(count, clip3=refuse)


def other_mistake():
    raise RuntimeError("a mistake of ours")


def test_other_errors_of_a_reader_stay_what_they_are():
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        numbers(1, clip3=other_mistake)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Sets how many cores, GPUs and bytes of shared memory there are."""
    usage = shutil.disk_usage(tmp_path)

    def made(cores, gpus, free=10**12):
        monkeypatch.setattr(workers, "usable_cores", lambda: cores)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(workers, "SHARED_MEMORY", tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))

    return made


@pytest.mark.parametrize(
    ("cores", "gpus", "expected"), [(64, 8, 4), (16, 8, 2), (2, 1, 2), (2, 8, 1)]
)
def test_each_gpu_has_readers_on_its_share_of_the_cores(machine, cores, gpus, expected):
    machine(cores, gpus)
    assert workers_for(GPU, 1200) == expected
    assert workers_for(torch.device("cpu"), 1200) == 0


def test_there_are_no_more_readers_than_the_shared_memory_has_room_for(machine, caplog):
    frames, seconds = 1200, 48
    batch = 4 * (frames * 88 * 88 + seconds * 16_000)
    machine(8, 1, free=2 * 3 * batch)
    assert workers_for(GPU, frames) == 2
    assert not caplog.text
    machine(8, 1, free=64 * 2**20)  # of a container of Docker
    assert workers_for(GPU, frames) == 0
    assert "has only 67 MB free (docker run --shm-size gives more)" in caplog.text


def test_features_in_memory_need_no_readers(make, settings, files, tmp_path, monkeypatch):
    monkeypatch.setattr("omni_avsr.train.batches.workers_for", lambda *_: 3)
    monkeypatch.setattr(Batches, "_todo", lambda *_: [])
    clips = manifest.read(files["train"])
    model = make()

    def count(**changes):
        data = Batches(*model, replace(settings, noise_probability=0.0, **changes), no_progress)
        data.prepare(clips, clips)
        data.encode()
        return data._workers(data.dataset)

    assert count(cache_copies=0) == 3
    assert count(cache_copies=1) == 0
    assert count(cache_copies=1, workers=2) == 2
    assert count(cache_copies=1, feature_cache=tmp_path / "features") == 3


def test_a_batch_is_pinned_with_all_its_tensors(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)
    media = Media(audio=torch.zeros(2, 3), audio_lengths=torch.zeros(2))
    batch = TrainingBatch(ids=["a", "b"], media=media, features=Features(video=torch.zeros(1)))
    pinned = batch.pin_memory()
    assert pinned.ids == ["a", "b"]
    assert pinned.media.audio.sum() == 6
    assert pinned.media.audio_lengths.sum() == 2
    assert pinned.features.video == 1
    assert pinned.media.video is None
