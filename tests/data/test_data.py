"""Label files, noise, masks and batches."""

import re

import numpy as np
import pytest

from omni_avsr.data import manifest
from omni_avsr.data.augment import babble, generator, mix, random_crop, time_mask, white
from omni_avsr.data.loading import ClipDataset, EndlessBatches, buckets
from tests.support.corpus import write_split


def label_file(tmp_path, text):
    file = tmp_path / "labels" / "x.csv"
    file.parent.mkdir()
    file.write_text(text, encoding="utf-8")
    return file


def test_a_five_field_label_file_is_read_commas_and_all(tmp_path):
    file = label_file(tmp_path, "\ufefflrs3,test/a/00001.mp4,50,0,well, yes, it is\r\n\nlrs3,test/b.mp4,7,0,no\n")
    first, second = manifest.read(file)
    assert (first.id, first.frames, first.text) == ("test/a/00001", 50, "well, yes, it is")
    assert first.video == tmp_path / "lrs3/test/a/00001.mp4"
    assert first.audio == tmp_path / "lrs3/test/a/00001.wav"
    assert second.text == "no"
    assert manifest.read(file, tmp_path / "elsewhere")[1].video == tmp_path / "elsewhere/lrs3/test/b.mp4"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.csv holds no clips"),
        ("a,b.mp4,5,0,fine\na,b,c\n", "x.csv: line 2: 3 fields, 5 expected"),
        ("a,b.mp4,many,0,text\n", "x.csv: line 1: 'many' is no number of frames"),
        ("a\n" * 9, "line 5: 1 fields, 5 expected and 4 more"),
    ],
)
def test_a_label_file_that_does_not_fit_is_refused_with_its_lines(tmp_path, text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        manifest.read(label_file(tmp_path, text))


@pytest.mark.parametrize("snr", [-5.0, 0.0, 10.0])
@pytest.mark.parametrize("samples", [8_000, 70 * 16_000])
def test_noise_is_mixed_at_the_ratio_asked_for(snr, samples):
    speech = generator("speech").standard_normal(samples).astype(np.float32)
    noise = babble([generator(i).standard_normal(20_000).astype(np.float32) for i in range(5)], generator("babble"))
    added = mix(speech, noise, snr, generator(1)).astype(np.float64) - speech
    assert 10 * np.log10(np.mean(speech.astype(np.float64) ** 2) / np.mean(added**2)) == pytest.approx(snr, abs=0.1)


def test_noise_is_fixed_by_its_key_and_its_place_is_drawn():
    speech, noise = np.ones(1000, np.float32), white(generator(0))
    assert np.array_equal(mix(speech, noise, 0, generator(1, "a")), mix(speech, noise, 0, generator(1, "a")))
    assert not np.array_equal(mix(speech, noise, 0, generator(1, "a")), mix(speech, noise, 0, generator(1, "b")))


def test_a_time_mask_is_as_long_as_allowed_and_leaves_its_input():
    frames = np.arange(1, 101, dtype=np.float32)
    masked = time_mask(frames, 25, 0.4, generator(3))
    assert 0 < (masked != frames).sum() <= 40
    assert np.array_equal(time_mask(frames, 25, 0.0, generator(3)), frames)
    assert frames[0] == 1


def test_a_random_crop_moves_between_clips_and_not_within_one():
    video = np.broadcast_to(np.arange(96 * 96).reshape(96, 96), (3, 96, 96))
    crops = [random_crop(video, generator(i)) for i in range(8)]
    assert {crop.shape for crop in crops} == {(3, 88, 88)}
    assert all(np.array_equal(crop[0], crop[2]) for crop in crops)
    assert len({int(crop[0, 0, 0]) for crop in crops}) > 4


def test_buckets_keep_the_budget_and_every_clip():
    lengths = generator(0).integers(5, 60, 200).tolist()
    for rng in (None, generator(1)):
        batches = buckets(lengths, 240, rng)
        assert sorted(i for batch in batches for i in batch) == list(range(200))
        assert max(len(batch) * max(lengths[i] for i in batch) for batch in batches) <= 240
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    assert padded < 1.15 * sum(lengths)


def test_every_epoch_has_every_clip_in_another_order():
    sampler = iter(EndlessBatches([10] * 30, 50, seed=1))
    epochs: dict[int, list[int]] = {}
    while len(epochs) < 3:
        for index, epoch in next(sampler):
            epochs.setdefault(epoch, []).append(index)
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(30))
    assert epochs[0] != epochs[1]


def test_a_clip_is_augmented_alike_whenever_it_is_read_and_anew_in_each_epoch(tmp_path):
    clips = manifest.read(write_split(tmp_path, "train", 2, 0))
    dataset = ClipDataset(clips, lambda audio, video, rng: (mix(audio, white(rng), 0, rng), video), seed=4)
    assert np.array_equal(dataset[0, 1]["audio"], dataset[0, 1]["audio"])
    assert not np.array_equal(dataset[0, 1]["audio"], dataset[0, 2]["audio"])


def test_a_noise_that_is_mostly_silent_is_still_mixed_in():
    noise = np.zeros(160_000, np.float32)
    noise[:40_000] = 0.1
    speech = np.full(1600, 0.5, np.float32)
    mixed = [mix(speech, noise, 0, np.random.default_rng(seed)) for seed in range(20)]
    assert all(np.abs(one - speech).max() > 0.1 for one in mixed)
