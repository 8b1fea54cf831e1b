"""The toy corpus: what it says, how it sounds and looks, and that it is the same every time."""

import importlib.util
import itertools
import subprocess
import sys

import numpy as np
import pytest

from omni_avsr import toy
from omni_avsr.media import streams as media
from omni_avsr.tasks import SAMPLES_PER_VIDEO_FRAME
from omni_avsr.toy import corpus, mouth, phones, speech
from omni_avsr.toy.sentences import pronounced

needs_espeak = pytest.mark.skipif(not importlib.util.find_spec("espeakng_loader"), reason="needs espeak-ng")


def some(world, split, seed, count=2000):
    return list(itertools.islice(toy.sentences(world, split, seed), count))


@pytest.mark.parametrize("world", toy.WORLDS)
def test_splits_share_no_sentence_whatever_the_seeds(world):
    sets = [set(some(world, split, seed, 600)) for seed, split in enumerate(toy.SPLITS)]
    assert len(set.union(*sets)) == 1800


@pytest.mark.parametrize("world", toy.WORLDS)
def test_a_stream_repeats_nothing_and_depends_on_its_seed_only(world):
    texts = some(world, "train", 3)
    assert len(set(texts)) == len(texts) == 2000
    assert texts == some(world, "train", 3)
    assert texts != some(world, "train", 4)


def test_the_grid_has_64000_commands():
    assert sum(len(list(toy.sentences("grid", split, 0))) for split in toy.SPLITS) == 64_000


def test_the_open_world_has_500_words_and_sentences_of_4_to_12():
    texts = [text.split() for text in some("open", "train", 0, 20_000)]
    assert {word for text in texts for word in text} == set(toy.words("open"))
    assert len(toy.words("open")) >= 500
    assert {len(text) for text in texts} == set(range(4, 13))
    assert all(word.isascii() and word.isalpha() and word.islower() for word in toy.words("mixed"))


def test_the_mixed_world_is_half_and_half():
    grid = set(toy.words("grid"))
    commands = [set(text.split()) <= grid and len(text.split()) == 6 for text in some("mixed", "test", 0, 400)]
    assert 0.4 < np.mean(commands) < 0.6


def test_an_unknown_world_or_split_is_refused_with_those_that_exist():
    with pytest.raises(ValueError, match="available: grid, open, mixed"):
        toy.sentences("lrs3", "train", 0)
    with pytest.raises(ValueError, match="available: train, valid, test"):
        toy.sentences("grid", "dev", 0)


def test_the_letter_a_is_no_article():
    assert pronounced("bin blue at a two now") == "bin blue at ay two now"
    assert pronounced("tom is as tall as a tiger") == "tom is as tall as a tiger"


def test_test_speakers_are_unseen_and_so_are_their_voices():
    variants = {split: {voice.espeak.split("+")[1] for voice in voices} for split, voices in toy.SPEAKERS.items()}
    assert len(toy.SPEAKERS["train"]) >= 24
    assert len(toy.SPEAKERS["valid"]) + len(toy.SPEAKERS["test"]) >= 6
    for one, other in itertools.combinations(toy.SPLITS, 2):
        assert not variants[one] & variants[other]
        assert not {voice.name for voice in toy.SPEAKERS[one]} & {voice.name for voice in toy.SPEAKERS[other]}


def test_no_voice_is_seeded_by_the_clock():
    breathing = {
        "Alicia",
        "Demonic",
        "Reed",
        "Storm",
        "caleb",
        "f2",
        "f3",
        "f5",
        "sandro",
        "victor",
        "whisper",
        "whisperf",
    }
    assert not breathing & {voice.espeak.split("+")[1] for voices in toy.SPEAKERS.values() for voice in voices}


@needs_espeak
def test_every_voice_speaks():
    rng = np.random.default_rng(0)
    for voice in itertools.chain(*toy.SPEAKERS.values()):
        spoken = toy.speak("we saw a bird", voice, rng)
        heard = [toy.phoneme_class(name) for _, _, name in spoken.phonemes]
        assert {"w", "s", "b", "d"} <= set(heard), voice
        assert np.abs(spoken.audio).max() > 2000, voice
        assert len(spoken.audio) % SAMPLES_PER_VIDEO_FRAME == 0


@needs_espeak
def test_the_times_of_phonemes_are_those_of_the_sound():
    spoken = toy.speak("set red at e six now", toy.SPEAKERS["train"][0], np.random.default_rng(0))
    labels = toy.frame_labels(spoken.phonemes, len(spoken.audio) // 320, 50)
    loudness = np.sqrt((spoken.audio.reshape(-1, 320).astype(float) ** 2).mean(1))
    assert labels[0] == labels[-1] == 0
    assert np.median(loudness[labels == 0]) < 0.05 * np.median(loudness[labels > 0])
    assert all(start < end for start, end, _ in spoken.phonemes)


def test_every_phoneme_has_a_look_and_an_unknown_one_a_class():
    assert len(toy.PHONEMES) == len(set(toy.PHONEMES)) == 41
    assert set(phones.LOOKS) == set(toy.PHONEMES)
    assert [toy.phoneme_class(name) for name in ("'aI3", ",oU", "t#", "_:", "0", "X!", "")] == [
        *("aI", "oU", "t", "sil", "A:", "@", "sil")
    ]


def test_frame_labels_follow_the_middle_of_a_frame():
    labels = toy.frame_labels([(0.05, 0.13, "p"), (0.13, 0.5, "'i:")], 6, 25)
    assert [toy.PHONEMES[i] for i in labels] == ["sil", "p", "p", "i:", "i:", "i:"]


def test_homophemes_look_the_same_and_others_do_not():
    face = toy.make_face(np.random.default_rng(0))

    def seen(first):
        words = [(0.2, 0.3, first), (0.3, 0.5, "a"), (0.5, 0.6, "t"), (0.6, 0.9, "_:")]
        rng = np.random.default_rng(1)
        return toy.draw_mouth(toy.lip_track(words, 22, face, rng), face, rng)

    assert np.array_equal(seen("p"), seen("b"))
    assert np.array_equal(seen("p"), seen("m"))
    assert not np.array_equal(seen("p"), seen("f"))


def test_lips_close_on_a_bilabial_and_open_on_a_vowel():
    face = toy.make_face(np.random.default_rng(0))
    words = [(0.2, 0.4, "a"), (0.4, 0.5, "m"), (0.5, 0.7, "a"), (0.7, 1.0, "_:")]
    opening = np.mean(
        [toy.lip_track(words, 25, face, np.random.default_rng(i))[:, mouth.OPENING] for i in range(30)], 0
    )
    assert opening[11] < 0.25 < 0.5 < opening[7]
    assert opening[23] < 0.2


def test_a_rendered_face_says_where_its_mouth_is():
    track = np.tile([0.9, 0.6, 0.1, 0.0, 0.0, 0.0], (5, 1))
    frames, centres = toy.render_face(track, seed=3)
    assert (frames.shape, frames.dtype, centres.shape) == ((5, 288, 360, 3), np.uint8, (5, 2))
    for frame, (x, y) in zip(frames, centres.astype(int), strict=True):
        assert frame[y + 1 : y + 9, x - 3 : x + 4].mean() < 70  # the dark of an open mouth


@needs_espeak
def test_the_same_seed_gives_the_same_clips_with_one_and_two_processes(monkeypatch):
    monkeypatch.setattr(corpus, "SHARD", 3)
    one, two = ([*toy.generate_shards("mixed", "train", 6, 5, processes)] for processes in (1, 2))
    assert len({clip.id for clip in one}) == len({clip.text for clip in one}) == 6
    for a, b in zip(one, two, strict=True):
        assert (a.id, a.text, a.speaker, a.phonemes) == (b.id, b.text, b.speaker, b.phonemes)
        assert np.array_equal(a.audio, b.audio)
        assert np.array_equal(a.video, b.video)
        assert (a.audio.dtype, a.video.shape[1:]) == (np.int16, (96, 96))
        assert len(a.audio) == len(a.video) * SAMPLES_PER_VIDEO_FRAME


@needs_espeak
def test_a_written_corpus_is_complete_and_the_same_every_time(tmp_path):
    told, sizes = [], {"train": 3, "test": 2}
    written = [
        toy.write_corpus(
            tmp_path / name,
            "grid",
            seed=1,
            splits=list(sizes),
            sizes=sizes,
            processes=2,
            progress=lambda *now: told.append(now),
        )
        for name in ("a", "b")
    ]
    assert told[1] == (5, 5)
    for split, count in sizes.items():
        first, second = (labels[split].read_text() for labels in written)
        assert first == second
        rows = [row.split(",") for row in first.splitlines()]
        assert len(rows) == count
        for row in rows:
            check_written(tmp_path, *row)
    assert not list(tmp_path.rglob("*.part"))


def check_written(root, dataset, path, frames, ids, text):
    one, two = (root / name / dataset / path for name in ("a", "b"))
    assert media.read_video(one).shape == (int(frames), 96, 96)
    assert len(media.read_audio(one.with_suffix(".wav"))) == int(frames) * SAMPLES_PER_VIDEO_FRAME
    assert ids == "0"
    assert one.with_suffix(".wav").read_bytes() == two.with_suffix(".wav").read_bytes()
    assert np.array_equal(media.read_video(one), media.read_video(two))
    transcript = root / "a" / dataset / path.replace("_video_", "_text_").replace(".mp4", ".txt")
    assert transcript.read_text() == f"{text.upper()}\n"


@needs_espeak
def test_an_interrupted_corpus_does_not_count_as_done_and_a_done_one_is_reused(tmp_path, monkeypatch):
    monkeypatch.setenv("OMNI_AVSR_CACHE", str(tmp_path))
    request = {"world": "grid", "seed": 0, "splits": ["test"], "sizes": {"test": 2}, "processes": 1}

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy.cached_corpus(**request, progress=interrupt)
    assert not list(tmp_path.rglob("*.csv"))
    told = []
    labels = toy.cached_corpus(**request, progress=lambda *now: told.append(now))
    assert told == [(2, 2)]
    assert labels["test"].exists()
    assert toy.cached_corpus(**request, progress=interrupt) == labels
    assert corpus.cache_folder("grid", 1600, 1, {"test": 2}) != labels["test"].parents[1]


def test_a_world_that_runs_out_of_sentences_says_so():
    with pytest.raises(ValueError, match="the grid world has no 5000 sentences to test on; ask for fewer"):
        toy.generate("grid", "test", 5000, 0)


@needs_espeak
def test_what_is_wrong_with_a_request_comes_back_from_another_process(monkeypatch):
    monkeypatch.setattr(corpus, "SHARD", 4000)
    with pytest.raises(ValueError, match="the grid world has no 4000 sentences"):
        next(toy.generate_shards("grid", "valid", 4000, 0, 1))


def test_without_espeak_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(ValueError, match=r'the toy corpus needs espeak-ng: pip install "omni-avsr\[toy\]"'):
        next(toy.generate_shards("grid", "train", 1, 0, 1))
    assert "\n" not in speech.MISSING


def test_the_toy_corpus_is_imported_without_torch():
    code = "import sys, omni_avsr.toy; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
