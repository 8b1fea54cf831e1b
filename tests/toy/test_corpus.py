"""The toy corpus as a whole: the same every time, complete or absent, and made only once."""

import importlib.util
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest

from omni_avsr import toy
from omni_avsr.errors import InputError
from omni_avsr.media import streams
from omni_avsr.settings.shared import LANGUAGES, ToyOptions
from omni_avsr.tasks import SAMPLES_PER_VIDEO_FRAME, VIDEO_FPS
from omni_avsr.toy import corpus
from omni_avsr.toy.clips import Shard, generate
from omni_avsr.toy.sentences import sentences
from omni_avsr.toy.words import times_path

needs_espeak = pytest.mark.skipif(
    not importlib.util.find_spec("espeakng_loader"), reason="needs espeak-ng"
)


class Told(list):
    """A progress callback that keeps what it is told."""

    def __call__(self, what, done, total):
        self.append((what, done, total))


@needs_espeak
def test_the_same_seed_gives_the_same_clips_with_one_and_two_processes(monkeypatch):
    monkeypatch.setattr(corpus, "SHARD", 3)
    one = list(toy.generate_shards("mixed", "train", 6, 5, processes=1))
    two = list(toy.generate_shards("mixed", "train", 6, 5, processes=2))
    assert len({clip.id for clip in one}) == len({clip.text for clip in one}) == 6
    for a, b in zip(one, two, strict=True):
        assert (a.id, a.text, a.speaker, a.phonemes) == (b.id, b.text, b.speaker, b.phonemes)
        assert np.array_equal(a.audio, b.audio)
        assert np.array_equal(a.video, b.video)


@needs_espeak
def test_sound_and_video_of_a_clip_are_equally_long():
    (clip,) = toy.generate_shards("open", "test", 1, 0, processes=1)
    assert clip.audio.dtype == np.int16
    assert clip.video.shape[1:] == (96, 96)
    assert len(clip.audio) == len(clip.video) * SAMPLES_PER_VIDEO_FRAME


@needs_espeak
def test_a_written_corpus_is_complete_and_the_same_every_time(tmp_path):
    sizes = {"train": 3, "test": 2}
    told = Told()
    first = toy.write_corpus(tmp_path / "a", "grid", sizes, 1, processes=2, progress=told)
    second = toy.write_corpus(tmp_path / "b", "grid", sizes, 1, processes=2)
    assert told[-1] == ("Making the grid corpus", 5, 5)
    for split, count in sizes.items():
        labels = first[split].read_text()
        assert labels == second[split].read_text()
        rows = [row.split(",") for row in labels.splitlines()]
        assert len(rows) == count
        for row in rows:
            check_written(tmp_path, *row)
        check_times(first[split], rows)
    assert not list(tmp_path.rglob("*.part"))


def check_written(root, dataset, path, frames, ids, text):
    one = root / "a" / dataset / path
    two = root / "b" / dataset / path
    assert streams.read_video(one).shape == (int(frames), 96, 96)
    audio = streams.read_audio(one.with_suffix(".wav"))
    assert len(audio) == int(frames) * SAMPLES_PER_VIDEO_FRAME
    assert ids == "0"
    assert one.with_suffix(".wav").read_bytes() == two.with_suffix(".wav").read_bytes()
    assert np.array_equal(streams.read_video(one), streams.read_video(two))
    text_path = path.replace("_video_", "_text_").replace(".mp4", ".txt")
    assert (root / "a" / dataset / text_path).read_text() == f"{text.upper()}\n"


def check_times(labels, rows):
    times = times_path(labels)
    assert times.parent == labels.parent
    assert times != labels
    clips = [json.loads(line) for line in times.read_text().splitlines()]
    assert [clip["video"] for clip in clips] == [row[1] for row in rows]
    for clip, (_, _, frames, _, text) in zip(clips, rows, strict=True):
        assert [word["word"] for word in clip["words"]] == text.split()
        edges = [edge for word in clip["words"] for edge in (word["start"], word["end"]) if edge]
        assert edges == sorted(edges)
        assert 0 < edges[0] < edges[-1] < int(frames) / VIDEO_FPS


@needs_espeak
def test_words_are_spelt_as_in_the_text_whatever_espeak_is_given():
    texts = list(itertools.islice(sentences("grid", "test", 0), 200))
    place = next(place for place, text in enumerate(texts) if " a " in text)
    (clip,) = generate(Shard("grid", "test", seed=0, first=place, count=1))
    assert [word.text for word in clip.words] == texts[place].split()


@needs_espeak
def test_languages_take_turns_each_with_its_own_speakers():
    clips = list(generate(Shard("open", "test", 0, 0, 10, language="multi")))
    speakers = [clip.speaker.rpartition("-")[0] or "en" for clip in clips]
    assert speakers == list(LANGUAGES) * 2
    assert clips[0].id == "open-multi_test_000000"
    (spanish,) = generate(Shard("open", "test", 0, 0, 1, language="es"))
    assert spanish.id == "open-es_test_000000"
    assert spanish.text == clips[1].text


@needs_espeak
def test_other_languages_are_said_faster_slower_and_with_pauses():
    clips = list(generate(Shard("open", "test", 0, 0, 30, language="fr")))
    gaps = []
    for clip in clips:
        for word, later in itertools.pairwise(clip.words):
            if word.end is not None:
                gaps.append(later.start - word.end)
    assert 0.2 < sum(gap > 0.25 for gap in gaps) / len(clips) < 0.6
    assert max(gaps) < 1.2


def test_a_world_that_is_english_is_refused_in_other_languages():
    with pytest.raises(InputError, match="the grid world is in English, not in 'es'"):
        corpus.cache_folder("grid", toy.corpus_sizes(10), language="es")


def interrupt(what, done, total):
    raise KeyboardInterrupt


@needs_espeak
def test_an_interrupted_corpus_does_not_count_as_done_and_a_done_one_is_reused(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("OMNI_AVSR_CACHE", str(tmp_path))
    options = ToyOptions(toy_clips=16)
    with pytest.raises(KeyboardInterrupt):
        toy.toy_corpus(options, ["test"], interrupt)
    assert not list(tmp_path.rglob("*.csv"))
    told = Told()
    labels = toy.toy_corpus(options, ["test"], told)
    assert told == [("Making the grid corpus", 2, 2)]
    assert len(labels["test"].read_text().splitlines()) == 2
    assert toy.toy_corpus(options, ["test"], interrupt) == labels


def test_a_cached_corpus_has_the_name_of_its_content(tmp_path, monkeypatch):
    monkeypatch.setenv("OMNI_AVSR_CACHE", str(tmp_path))
    sizes = toy.corpus_sizes(1600)
    assert sizes == {"train": 1600, "valid": 160, "test": 160}
    folder = corpus.cache_folder("grid", sizes)
    assert folder == tmp_path / "toy-grid-78255e452e91"
    assert corpus.cache_folder("grid", sizes, seed=1) != folder
    assert corpus.cache_folder("grid", {**sizes, "test": 2}) != folder
    russian = corpus.cache_folder("open", sizes, language="ru")
    assert russian.name.startswith("toy-open-ru-")
    assert corpus.cache_folder("open", sizes).name == "toy-open-352922506d96"


def test_a_world_that_runs_out_of_sentences_says_so():
    with pytest.raises(InputError, match="the grid world has no 5000 sentences to test on: ask"):
        generate(Shard("grid", "test", seed=0, first=0, count=5000))


@needs_espeak
def test_an_input_error_of_another_process_is_raised_here(monkeypatch):
    monkeypatch.setattr(corpus, "SHARD", 4000)
    with pytest.raises(InputError, match="the grid world has no 4000 sentences"):
        next(toy.generate_shards("grid", "valid", 4000, 0, 1))


@needs_espeak
def test_a_folder_that_cannot_be_written_ends_with_a_message(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"Not a directory: .*file"):
        corpus.write_corpus(tmp_path / "file", "grid", {"train": 1}, processes=1)


def test_without_espeak_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(InputError, match=r'pip install "omni-avsr\[toy\]"'):
        next(toy.generate_shards("grid", "train", 1, 0, 1))


def test_the_toy_corpus_is_imported_without_torch():
    code = "import sys, omni_avsr.toy; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
