"""Label files, noise, masks and batches."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from omni_avsr.data import manifest
from omni_avsr.data.augment import random_crop, time_mask
from omni_avsr.data.clips import Clip
from omni_avsr.data.loading import (
    ClipDataset,
    ClipKey,
    EndlessBatches,
    LoadedClip,
    UnreadableClip,
    buckets,
    drop_long_clips,
)
from omni_avsr.data.noise import babble_track, make_noise, mix_at_snr, white_track
from omni_avsr.data.seed import generator
from omni_avsr.errors import InputError
from omni_avsr.media.streams import write_audio, write_video
from omni_avsr.tasks import CLEAN, Condition
from tests.support.corpus import write_split


def write_labels(folder, text):
    file = folder / "labels" / "x.csv"
    file.parent.mkdir()
    file.write_text(text, encoding="utf-8")
    return file


def decibels(signal, noise):
    """The ratio of their powers."""
    power = np.mean(np.square(signal, dtype=np.float64))
    return 10 * np.log10(power / np.mean(np.square(noise, dtype=np.float64)))


def test_a_label_file_of_five_fields_may_have_commas_in_its_texts(tmp_path):
    text = "\ufefflrs3,test/a/00001.mp4,50,0,well, yes, it is\r\n\nlrs3,test/b.mp4,7,0,no\n"
    file = write_labels(tmp_path, text)
    first, second = manifest.read(file)
    assert (first.id, first.frames, first.text) == ("test/a/00001", 50, "well, yes, it is")
    assert first.video == tmp_path / "lrs3/test/a/00001.mp4"
    assert first.audio == tmp_path / "lrs3/test/a/00001.wav"
    assert second.text == "no"
    moved = manifest.read(file, tmp_path / "elsewhere")
    assert moved[1].video == tmp_path / "elsewhere/lrs3/test/b.mp4"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.csv holds no clips"),
        ("a,b.mp4,5,0,fine\na,b,c\n", "x.csv: line 2: 3 fields, 5 expected"),
        ("a,b.mp4,many,0,text\n", "x.csv: line 1: 'many' is not a whole number of frames"),
        ("a\n" * 9, "line 5: 1 fields, 5 expected and 4 more"),
    ],
)
def test_a_wrong_label_file_is_refused_with_its_wrong_lines(tmp_path, text, message):
    with pytest.raises(InputError, match=re.escape(message)):
        manifest.read(write_labels(tmp_path, text))


@pytest.mark.parametrize("snr", [-5.0, 0.0, 10.0])
@pytest.mark.parametrize("samples", [8_000, 70 * 16_000])
def test_noise_is_mixed_in_at_the_given_ratio(snr, samples):
    speech = generator("speech").standard_normal(samples).astype(np.float32)
    voices = [generator(i).standard_normal(20_000).astype(np.float32) for i in range(5)]
    noise = babble_track(voices, generator("babble"))
    mixed = mix_at_snr(speech, noise, snr, generator(1)).astype(np.float64)
    assert decibels(speech, mixed - speech) == pytest.approx(snr, abs=0.1)


def test_the_place_in_the_noise_is_drawn_and_fixed_by_the_key():
    speech = np.ones(1000, np.float32)
    noise = white_track(generator(0))
    first = mix_at_snr(speech, noise, 0, generator(1, "a"))
    again = mix_at_snr(speech, noise, 0, generator(1, "a"))
    other = mix_at_snr(speech, noise, 0, generator(1, "b"))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_noise_that_is_mostly_silent_is_mixed_in_where_it_is_not():
    noise = np.zeros(160_000, np.float32)
    noise[:40_000] = 0.1
    speech = np.full(1600, 0.5, np.float32)
    for seed in range(20):
        mixed = mix_at_snr(speech, noise, 0, np.random.default_rng(seed))
        assert np.abs(mixed - speech).max() > 0.1


def test_a_short_sound_in_a_long_silence_is_found():
    noise = np.zeros(1_600_000, np.float32)
    noise[800_000] = 0.1
    speech = np.full(1600, 0.5, np.float32)
    for seed in range(3):
        mixed = mix_at_snr(speech, noise, 0, np.random.default_rng(seed))
        assert np.abs(mixed - speech).max() > 0.1


def test_sounds_of_a_folder_that_cannot_be_mixed_in_are_left_out_and_named(tmp_path, caplog):
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    write_audio(tmp_path / "silent.wav", np.zeros(16_000, np.int16))
    condition = Condition(0.0, str(tmp_path))
    with pytest.raises(InputError, match="holds no sounds to mix in"):
        make_noise(condition, [], 1)
    write_audio(tmp_path / "good.wav", np.full(16_000, 1000, np.int16))
    assert make_noise(condition, [], 1).tracks == [tmp_path / "good.wav"]
    assert "silent.wav is silent" in caplog.text
    assert "bad.wav cannot be read" in caplog.text


def test_a_clean_condition_has_no_noise_and_an_unknown_one_is_refused():
    assert make_noise(CLEAN, [], 1) is None
    with pytest.raises(InputError, match="unknown noise 'pink'; available: babble, white, or a"):
        make_noise(Condition(0.0, "pink"), [], 1)


def babble(monkeypatch, *names, chosen=3):
    """The babble of clips with these ids, each of which has its own voice."""

    def read_audio(path, track):
        return generator(str(path)).standard_normal(30_000).astype(np.float32)

    monkeypatch.setattr("omni_avsr.data.noise.BABBLE_CLIPS", chosen)
    monkeypatch.setattr("omni_avsr.media.streams.read_audio", read_audio)
    clips = [Clip(name, Path(name), Path(name), 25, "text") for name in names]
    (track,) = make_noise(Condition(0.0, "babble"), clips, seed=1).tracks
    return track


def test_babble_depends_on_the_clips_that_are_chosen_and_not_on_their_order(monkeypatch):
    names = ["a", "b", "c", "d", "e", "f"]
    track = babble(monkeypatch, *names)
    assert np.array_equal(babble(monkeypatch, *reversed(names)), track)
    changes = []
    for name in names:
        others = [other for other in names if other != name]
        changes.append(not np.array_equal(babble(monkeypatch, *others), track))
    assert sum(changes) == 3  # one for each clip that was chosen


def test_noise_leaves_clips_without_sound_as_they_are():
    noise = make_noise(Condition(0.0, "white"), [], 1)
    video = np.zeros((2, 96, 96), np.uint8)
    audio, unchanged = noise(None, video, generator(1))
    assert audio is None
    assert unchanged is video


def test_a_time_mask_is_as_long_as_allowed_and_leaves_its_input_unchanged():
    frames = np.arange(1, 101, dtype=np.float32)
    masked = time_mask(frames, 25, 0.4, generator(3))
    assert 0 < (masked != frames).sum() <= 40
    assert np.array_equal(time_mask(frames, 25, 0.0, generator(3)), frames)
    assert np.array_equal(frames, np.arange(1, 101))


def test_a_random_crop_moves_between_clips_but_not_within_one():
    video = np.broadcast_to(np.arange(96 * 96).reshape(96, 96), (3, 96, 96))
    crops = [random_crop(video, generator(i)) for i in range(8)]
    for crop in crops:
        assert crop.shape == (3, 88, 88)
        assert np.array_equal(crop[0], crop[2])
    corners = {int(crop[0, 0, 0]) for crop in crops}
    assert len(corners) > 4


@pytest.mark.parametrize("rng", [None, generator(1)])
def test_batches_keep_to_the_budget_and_have_every_clip(rng):
    lengths = generator(0).integers(5, 60, 200).tolist()
    batches = buckets(lengths, 240, rng)
    indices = []
    padded = 0
    for batch in batches:
        frames = len(batch) * max(lengths[index] for index in batch)
        assert frames <= 240
        padded += frames
        indices += batch
    assert sorted(indices) == list(range(200))
    assert padded < 1.15 * sum(lengths)


def test_a_clip_of_unknown_length_is_in_a_batch_of_its_own():
    assert sorted(buckets([0, 30, 40, 0], 100)) == [[0], [1, 2], [3]]


def test_no_clips_make_no_batches():
    assert buckets([], 240) == []


def test_every_epoch_has_every_clip_in_another_order():
    batches = iter(EndlessBatches([10] * 30, 50, seed=1))
    epochs: dict[int, list[int]] = {}
    while len(epochs) < 3:
        for index, epoch in next(batches):
            epochs.setdefault(epoch, []).append(index)
    assert sorted(epochs[0]) == list(range(30))
    assert sorted(epochs[1]) == list(range(30))
    assert epochs[0] != epochs[1]


def test_the_augmentation_of_a_clip_is_fixed_by_its_epoch(tmp_path):
    clips = manifest.read(write_split(tmp_path, "train", 2, 0))

    def add_noise(audio, video, rng):
        return mix_at_snr(audio, white_track(rng), 0, rng), video

    dataset = ClipDataset(clips, add_noise, seed=4)
    first, again, other = (dataset[ClipKey(0, epoch)].audio for epoch in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_loaded_clip_has_what_its_label_file_says_and_only_the_wanted_media(tmp_path):
    clips = manifest.read(write_split(tmp_path, "train", 2, 0))
    both = ClipDataset(clips)[ClipKey(1, 3)]
    assert isinstance(both, LoadedClip)
    assert (both.key, both.id, both.text) == (ClipKey(1, 3), clips[1].id, clips[1].text)
    assert both.seconds == clips[1].frames / 25
    assert both.audio.shape == (clips[1].frames * 640,)
    assert both.video.shape == (clips[1].frames, 96, 96)
    seen = ClipDataset(clips, modalities=("video",))[ClipKey(1, 0)]
    assert seen.audio is None
    assert torch.equal(seen.video, both.video)


def test_an_unreadable_clip_is_named_in_the_log(tmp_path, caplog):
    clips = manifest.read(write_split(tmp_path, "train", 2, 0))
    clips[1].video.write_bytes(b"not a video")
    assert ClipDataset(clips)[ClipKey(1, 0)] == UnreadableClip(clips[1].id)
    assert f"{clips[1].video} cannot be read" in caplog.text


def clip_with(folder, samples=12_800, size=(96, 96)):
    """A dataset's clip of so many samples, and of 20 frames of this size."""
    write_audio(folder / "a.wav", np.zeros(samples, np.int16))
    write_video(folder / "a.mp4", np.zeros((20, *size), np.uint8))
    return Clip("a", folder / "a.wav", folder / "a.mp4", 20, "text")


def test_a_sound_that_is_longer_than_the_encoder_takes_is_unreadable(tmp_path, caplog):
    clip = clip_with(tmp_path, samples=32_001)
    first = ClipKey(0, 0)
    assert ClipDataset([clip], longest_sound=32_000)[first] == UnreadableClip("a")
    assert "a has 2.00 s of sound (32001 samples), the audio encoder takes 2 s" in caplog.text
    assert isinstance(ClipDataset([clip], longest_sound=32_001)[first], LoadedClip)
    seen = ClipDataset([clip], modalities=("video",), longest_sound=10)
    assert isinstance(seen[first], LoadedClip)


@pytest.mark.parametrize(
    ("size", "accepted"),
    [
        ((96, 96), True),
        ((88, 88), True),
        ((100, 100), False),
        ((224, 224), False),
        ((64, 64), False),
    ],
)
def test_only_frames_of_prepared_mouths_are_taken(tmp_path, caplog, size, accepted):
    clip = clip_with(tmp_path, size=size)

    def crop(audio, video, rng):
        return audio, random_crop(video, rng)

    loaded = ClipDataset([clip], crop)[ClipKey(0, 0)]
    if accepted:
        assert loaded.video.shape == (20, 88, 88)
    else:
        assert loaded == UnreadableClip("a")
        expected = f"a.mp4 has frames of {size[0]} x {size[1]} pixels, 96 x 96 or 88 x 88 expected"
        assert expected in caplog.text


def test_clips_that_are_longer_than_a_batch_or_the_audio_encoder_are_left_out(caplog):
    clips = [Clip(str(n), Path("x"), Path("x"), n, "text") for n in (5, 50, 51, 99)]
    assert [clip.frames for clip in drop_long_clips(clips, 60)] == [5, 50, 51]
    assert [clip.frames for clip in drop_long_clips(clips, 60, 50 * 640)] == [5, 50]
    assert "2 of 4 clips are longer than the 50 frames of the audio encoder" in caplog.text
    assert [clip.frames for clip in drop_long_clips(clips, 60, 99 * 640)] == [5, 50, 51]
    with pytest.raises(InputError, match="all 4 clips are longer than the 4 frames of the audio"):
        drop_long_clips(clips, 60, 4 * 640)
