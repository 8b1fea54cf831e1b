"""The feature cache holds exactly what encoding gives, however often encoding is interrupted."""

import fcntl
import os
import shutil
import signal
from dataclasses import replace

import pytest
import torch
from filelock import FileLock, Timeout

from omni_avsr import OmniAVSR
from omni_avsr.data import manifest
from omni_avsr.data.loading import ClipKey, UnreadableClip
from omni_avsr.errors import InputError
from omni_avsr.run import no_progress
from omni_avsr.train import features
from omni_avsr.train.batches import Batches
from omni_avsr.train.fit import fit
from tests.support import encoding
from tests.support.corpus import write_split
from tests.support.interruptions import Killed, killed_after
from tests.support.processes import Group

CLIPS = 7
COPIES = 2


@pytest.fixture
def labels(tmp_path):
    return write_split(tmp_path, "train", CLIPS, seed=2)


@pytest.fixture
def encode(make, settings, labels):
    """Encodes the clips with changed settings, and returns the dataset of their features."""
    model, processor = make(video_lora_rank=0)

    def encode_clips(**changes):
        changed = replace(settings, cache_copies=COPIES, max_frames=60, **changes)
        data = Batches(model, processor, changed, no_progress)
        clips = manifest.read(labels)
        data.prepare(clips, clips)
        data.encode()
        return data.dataset

    return encode_clips


def clips_of(dataset):
    """Every copy of every clip."""
    return [dataset[ClipKey(index, copy)] for copy in range(COPIES) for index in range(CLIPS)]


def assert_same_clips(first, second):
    for one, other in zip(clips_of(first), clips_of(second), strict=True):
        assert (one.key, one.id, one.text, one.seconds) == (
            other.key,
            other.id,
            other.text,
            other.seconds,
        )
        assert one.features.keys() == other.features.keys() == {"audio", "video"}
        for modality, values in one.features.items():
            assert values.dtype == torch.half
            assert torch.equal(values, other.features[modality])


def only_file(folder, suffix):
    (file,) = folder.glob(f"*{suffix}")
    return file


def count_encoded(monkeypatch, killed_after_batches=None):
    """Returns a list of the sizes of the batches that are encoded, until encoding is killed."""
    sizes = []
    inner = features.FileStore.update

    def counted(self, encoded):
        inner(self, encoded)
        sizes.append(len(encoded))

    if killed_after_batches is not None:
        counted = killed_after(killed_after_batches, counted)
    monkeypatch.setattr(features.FileStore, "update", counted)
    return sizes


def test_the_disk_gives_the_same_features_as_the_memory(encode, tmp_path, monkeypatch):
    in_memory = encode()
    on_disk = encode(feature_cache=tmp_path / "features")
    assert_same_clips(on_disk, in_memory)
    monkeypatch.setattr(Batches, "_encode", None)
    assert_same_clips(encode(feature_cache=tmp_path / "features"), in_memory)


def test_encoding_that_was_killed_continues_where_it_was(encode, tmp_path, monkeypatch):
    cache = tmp_path / "features"
    with pytest.MonkeyPatch.context() as patch:
        first = count_encoded(patch, killed_after_batches=2)
        with pytest.raises(Killed):
            encode(feature_cache=cache)
    journal = only_file(cache, ".jsonl")
    journal.write_text(journal.read_text()[:-9])  # a half-written line
    with only_file(cache, ".features").open("ab") as torn:
        torn.write(b"half-written features")
    second = count_encoded(monkeypatch)
    resumed = encode(feature_cache=cache)
    torn_batch = first[-1]
    assert sum(first) + sum(second) == COPIES * CLIPS + torn_batch
    assert_same_clips(resumed, encode())


def test_features_whose_file_was_cut_are_encoded_again(encode, tmp_path, monkeypatch):
    cache = tmp_path / "features"
    encode(feature_cache=cache)
    file = only_file(cache, ".features")
    os.truncate(file, file.stat().st_size - 1)
    encoded = count_encoded(monkeypatch)
    assert_same_clips(encode(feature_cache=cache), encode())
    assert len(encoded) == 1


def test_features_whose_file_is_cut_while_a_run_reads_them_end_it_with_one_sentence(
    encode, tmp_path
):
    dataset = encode(feature_cache=tmp_path / "features")
    os.truncate(only_file(tmp_path / "features", ".features"), 100)
    with pytest.raises(InputError, match=r"\.features was cut while it was read: start the run"):
        clips_of(dataset)


@pytest.mark.parametrize("suffix", [".wav", ".mp4"])
@pytest.mark.parametrize("change", ["content", "time"])
def test_other_files_have_other_features(encode, tmp_path, monkeypatch, suffix, change):
    cache = tmp_path / "features"
    encode(feature_cache=cache)
    file = tmp_path / f"corpus/train/001{suffix}"
    if change == "content":
        facts = file.stat()
        shutil.copy(file.with_stem("002"), file)
        os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    if change == "time":
        os.utime(file, ns=(0, 0))
    encoded = count_encoded(monkeypatch)
    encode(feature_cache=cache)
    assert sum(encoded) == COPIES * CLIPS


def test_files_in_another_place_have_other_features(encode, tmp_path, labels, monkeypatch):
    cache = tmp_path / "features"
    encode(feature_cache=cache)
    (tmp_path / "corpus").rename(tmp_path / "moved")
    labels.write_text(labels.read_text().replace("corpus,", "moved,"))
    encoded = count_encoded(monkeypatch)
    encode(feature_cache=cache)
    assert sum(encoded) == COPIES * CLIPS


def test_clips_that_cannot_be_read_are_remembered_as_such(encode, tmp_path, monkeypatch):
    (tmp_path / "corpus/train/003.mp4").write_bytes(b"")
    cache = tmp_path / "features"
    first = encode(feature_cache=cache)
    assert first[ClipKey(3, 0)] == UnreadableClip("train/003")
    monkeypatch.setattr(Batches, "_encode", None)
    again = encode(feature_cache=cache)
    unreadable = [clip.id for clip in clips_of(again) if isinstance(clip, UnreadableClip)]
    assert unreadable == ["train/003"] * COPIES


def test_features_that_do_not_fit_the_memory_are_refused_before_they_are_encoded(
    encode, monkeypatch
):
    dataset = encode()
    size = 0
    for clip in clips_of(dataset):
        size += sum(2 * values.numel() for values in clip.features.values())
    monkeypatch.setattr(features, "available_memory", lambda: size)
    encode()
    monkeypatch.setattr(features, "available_memory", lambda: size - 1)
    monkeypatch.setattr(Batches, "_encode", None)
    message = r"take 0\.0 GB, there are 0\.0 GB of memory: set --feature-cache FOLDER .*copies 0"
    with pytest.raises(InputError, match=message):
        encode()


def test_features_that_do_not_fit_the_disk_are_refused(encode, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    message = r"there are 0\.0 GB of disk in .*features: choose a --feature-cache on a larger one"
    with pytest.raises(InputError, match=message):
        encode(feature_cache=tmp_path / "features")


def test_features_of_large_encoders_are_estimated_by_their_width():
    seconds = 433 * 3600  # LRS3
    assert features.bytes_of_features(seconds, {"audio": 1024, "video": 1024}) == 239_431_680_000


def test_the_available_memory_is_at_most_that_of_the_container(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(features, "MEMORY_LIMIT", limit)
    free = features.available_memory()
    if free is None:
        pytest.skip("not Linux")
    assert 10**6 < free < 10**14
    limit.write_text("max\n")
    assert features.available_memory() == pytest.approx(free, rel=0.5)
    limit.write_text("5000\n")
    assert features.available_memory() == 5000


def test_the_cache_is_locked_while_clips_are_encoded(encode, tmp_path, monkeypatch):
    cache = tmp_path / "features"
    held = []
    inner = features.FileStore.update

    def noted(self, encoded):
        (lock,) = cache.glob(".*.lock")
        with pytest.raises(Timeout):
            FileLock(lock, is_singleton=False).acquire(timeout=0)
        held.append(lock)
        inner(self, encoded)

    monkeypatch.setattr(features.FileStore, "update", noted)
    encode(feature_cache=cache)
    assert held
    FileLock(held[0]).acquire(timeout=0)  # no longer held


def test_a_second_process_waits_and_finds_what_the_first_has_encoded(encode, tmp_path, monkeypatch):
    cache = tmp_path / "features"
    encode(feature_cache=cache)
    (lock,) = cache.glob(".*.lock")
    first = lock.open()  # stands for another process
    fcntl.flock(first, fcntl.LOCK_EX)
    waited = []

    def finish(message, *_):
        waited.append(message)
        first.close()

    monkeypatch.setattr(features.log, "warning", finish)
    monkeypatch.setattr(Batches, "_encode", None)
    encode(feature_cache=cache)
    assert waited == ["waiting for another process that encodes the same clips into %s"]


def test_processes_share_the_encoding_and_all_have_all_features(settings, labels, tmp_path):
    """Of the features of each batch one process is the source, on the disk and in memory."""
    own = replace(settings, data=labels, cache_copies=COPIES, max_frames=60)
    assert Group(2, encoding.encode, own, tmp_path).wait() == [0, 0]
    of_one = torch.load(tmp_path / "memory-0.pt")["features"]
    assert len(of_one) == 2 * COPIES * CLIPS
    for store in ("memory", "disk"):
        sizes = []
        for rank in range(2):
            found = torch.load(tmp_path / f"{store}-{rank}.pt")
            sizes.append(found["batches"])
            assert found["features"].keys() == of_one.keys()
            for name, values in found["features"].items():
                assert torch.equal(values, of_one[name]), name
        assert sum(sizes[0]) + sum(sizes[1]) == COPIES * CLIPS
        assert 0 <= len(sizes[0]) - len(sizes[1]) <= 1


def test_a_feature_cache_that_only_the_first_process_sees_is_refused(encode, tmp_path, monkeypatch):
    """As on another machine, to which the folder is another one."""
    monkeypatch.setattr(features, "rank", lambda: 1)
    with pytest.raises(InputError, match=r"features must be one folder for all machines"):
        encode(feature_cache=tmp_path / "features")


def test_encoding_that_runs_out_of_memory_says_what_to_lower(settings, monkeypatch):
    """And is ended by SIGTERM at once, for which Lightning would wait for the next batch."""
    handlers = []

    def encode(*_):
        handlers.append(signal.getsignal(signal.SIGTERM))
        raise torch.OutOfMemoryError

    monkeypatch.setattr(OmniAVSR, "encode", encode)
    message = "out of memory while clips are encoded: lower --max-frames, now 120"
    with pytest.raises(InputError, match=message):
        fit(settings)
    assert handlers == [signal.SIG_DFL]
