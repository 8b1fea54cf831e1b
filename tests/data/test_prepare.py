"""Raw video to mouth clips: the layouts of LRS2 and LRS3, failures named, interrupted runs taken up."""

import json
import os
import pickle
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from omni_avsr.cli.app import app
from omni_avsr.data import manifest
from omni_avsr.data.prepare import cut_at_words, prepare, read_journal, read_words
from omni_avsr.media import streams as media
from omni_avsr.media.mouth import EYES_AND_NOSE, MODEL_VARIABLE
from omni_avsr.settings import PrepareSettings

TABLE = "Text:  HELLO THERE OLD {LG} FRIEND\nConf:  3\n\nWORD START END ASDSCORE\n"
WORDS = "HELLO 0.10 0.50 9.1\nTHERE 0.60 0.90 8\nOLD 1.10 1.40 7\nFRIEND 1.50 1.90 3\n"
DETECTOR = Path(os.environ.get(MODEL_VARIABLE, Path(__file__).parents[3] / "shared/models/yunet_n_320_320.onnx"))


def raw_video(path, frames=50, face=True):
    """A large video whose mouth is a bright disc, its sound in it, and its landmarks; returns the landmarks' rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    video = np.full((frames, 200, 240, 3), 90, np.uint8)
    rows = []
    for t in range(frames):
        mouth = np.array([120.0 + 20 * np.sin(t / 12), 140.0])
        cv2.circle(video[t], tuple(mouth.round().astype(int).tolist()), 8, (250, 250, 250), -1)
        rows.append(np.concatenate([EYES_AND_NOSE * 0.9 + mouth, mouth[None]]) if face else None)
    media.write_video(path, video, (6000 * np.sin(np.arange(frames * 640) / 9)).astype(np.int16))
    return rows


@pytest.fixture
def lrs3(tmp_path):
    """A small LRS3 with landmarks."""
    source = tmp_path / "LRS3"
    for name in ("pretrain/a/00001", "trainval/b/00001", "trainval/b/00002", "test/c/00001"):
        rows = raw_video(source / f"{name}.mp4", face=name != "trainval/b/00002")
        landmarks = tmp_path / "landmarks" / f"{name}.pkl"
        landmarks.parent.mkdir(parents=True, exist_ok=True)
        landmarks.write_bytes(pickle.dumps(rows))
        (source / f"{name}.txt").write_text(TABLE + WORDS if name[0] == "p" else "Text:  GOOD DAY\nConf:  4\n")
    return source


def settings(tmp_path, **changes):
    given = {"dataset": "lrs3", "landmarks": str(tmp_path / "landmarks"), "processes": 2, "seconds": 1}
    return PrepareSettings(**{**given, **changes})


def test_lrs3_becomes_clips_that_its_label_files_name(lrs3, tmp_path):
    records = prepare(lrs3, tmp_path / "out", settings(tmp_path))
    assert sorted(record.id for record in records if record.error) == ["trainval/b/00002"]
    assert "no faces in" in next(record.error for record in records if record.error)
    train = manifest.read(tmp_path / "out/labels/lrs3_train_transcript_lengths_seg1s.csv")
    assert {clip.id.removeprefix("lrs3_video_seg1s/"): clip.text for clip in train} == {
        "pretrain/a/00001_00": "hello there",
        "pretrain/a/00001_01": "old friend",
        "trainval/b/00001": "good day",
    }
    for clip in train:
        video, audio = media.read_video(clip.video), media.read_audio(clip.audio)
        assert video.shape == (clip.frames, 96, 96)
        assert len(audio) == 640 * clip.frames
        assert (video[:, 44:52, 44:52].mean((1, 2)) > 200).all()  # the mouth is in the middle of every frame
        assert np.abs(audio).max() > 0.1
        text = Path(str(clip.video).replace("_video_", "_text_")).with_suffix(".txt").read_text()
        assert text == f"{clip.text.upper()}\n"
    (test,) = manifest.read(tmp_path / "out/labels/lrs3_test_transcript_lengths_seg1s.csv")
    assert test.frames == 50


def test_what_is_done_is_not_done_again_and_what_failed_is(lrs3, tmp_path):
    out = tmp_path / "out"
    prepare(lrs3, out, settings(tmp_path))
    journal = out / "prepared/lrs3_seg1s_1of1.jsonl"
    made = {file: file.stat().st_mtime_ns for file in out.rglob("*.mp4")}
    lines = journal.read_text().split("\n")
    kept = [line for line in lines if line and '"test/c/00001"' not in line]
    journal.write_text("\n".join(kept) + "\n" + next(line for line in lines if '"test/c/00001"' in line)[:30])
    assert len(read_journal(journal)) == 3
    (tmp_path / "landmarks/trainval/b/00002.pkl").write_bytes(
        (tmp_path / "landmarks/trainval/b/00001.pkl").read_bytes()
    )
    records = prepare(lrs3, out, settings(tmp_path))
    assert not [record.error for record in records if record.error]
    again = {file.parent.parent.name + file.stem for file, at in made.items() if file.stat().st_mtime_ns > at}
    assert again == {"test00001"}
    assert len(manifest.read(out / "labels/lrs3_train_transcript_lengths_seg1s.csv")) == 4
    assert not list(out.rglob("*.part"))


def test_a_clip_that_was_deleted_is_made_again_and_a_torn_journal_is_read(lrs3, tmp_path):
    out = tmp_path / "out"
    prepare(lrs3, out, settings(tmp_path))
    gone = next(out.rglob("test/c/00001.wav"))
    gone.unlink()
    with (out / "prepared/lrs3_seg1s_1of1.jsonl").open("ab") as journal:
        journal.write('{"id": "ä'.encode()[:-1])
    prepare(lrs3, out, settings(tmp_path))
    assert gone.is_file()


@pytest.mark.parametrize("name", ["talk, part 1", "a.v2", "[raw] *"])
def test_a_folder_of_any_names_becomes_a_label_file(tmp_path, name):
    source = tmp_path / f"{name} in"
    landmarks = tmp_path / "landmarks" / f"{name}.pkl"
    landmarks.parent.mkdir()
    landmarks.write_bytes(pickle.dumps(raw_video(source / f"{name}.mp4")))
    (source / f"{name}.txt").write_text("hello\nyou\n")
    for _ in range(2):  # the second time with what the first one wrote in its source
        (record,) = prepare(source, source / "out", settings(tmp_path, dataset="folder"))
        assert record.error is None
    (file,) = (source / "out/labels").iterdir()
    (clip,) = manifest.read(file)
    assert (clip.text, clip.frames, clip.video.is_file()) == ("hello you", 50, True)


def test_what_is_wrong_with_one_video_is_its_own(lrs3, tmp_path):
    (lrs3 / "pretrain/a/00001.txt").write_text(TABLE + WORDS.replace("0.60", "x.6"))
    (lrs3 / "trainval/b/00001.txt").unlink()
    (lrs3 / "test/c/00001.txt").write_bytes("Text:  CAFÉ\n".encode("latin-1"))
    rows = pickle.loads((tmp_path / "landmarks/trainval/b/00001.pkl").read_bytes())
    raw_video(lrs3 / "trainval/d/00001.mp4")
    (lrs3 / "trainval/d/00001.txt").write_text("Text:  HI\n")
    (tmp_path / "landmarks/trainval/d").mkdir()
    (tmp_path / "landmarks/trainval/d/00001.pkl").write_bytes(pickle.dumps(rows[:30]))
    errors = {record.id: record.error for record in prepare(lrs3, tmp_path / "out", settings(tmp_path))}
    assert "00001.txt: could not convert string to float: 'x.6'" in errors["pretrain/a/00001"]
    assert "No such file" in errors["trainval/b/00001"]
    assert "00001.txt is not UTF-8" in errors["test/c/00001"]
    assert "has 50 frames, its landmarks are of 30" in errors["trainval/d/00001"]


def test_sounds_of_a_folder_of_their_own_are_heard(tmp_path):
    rows = raw_video(tmp_path / "mp4/id1/x/1.mp4")
    (tmp_path / "landmarks/id1/x").mkdir(parents=True)
    (tmp_path / "landmarks/id1/x/1.pkl").write_bytes(pickle.dumps(rows))
    options = {"dataset": "folder", "name": "vox", "audio": str(tmp_path / "aac")}
    (record,) = prepare(tmp_path / "mp4", tmp_path / "out", settings(tmp_path, **options))
    assert "has no sound for" in record.error
    (tmp_path / "aac/id1/x").mkdir(parents=True)
    media.write_audio(tmp_path / "aac/id1/x/1.wav", np.full(50 * 640, 3000, np.int16))
    prepare(tmp_path / "mp4", tmp_path / "out", settings(tmp_path, **options))
    (clip,) = manifest.read(tmp_path / "out/labels/vox_all_transcript_lengths_seg1s.csv")
    assert np.allclose(media.read_audio(clip.audio), 3000 / 32768, atol=1e-3)


def test_a_face_seen_in_few_frames_is_reported(tmp_path):
    rows = raw_video(tmp_path / "in/x.mp4")
    (tmp_path / "landmarks").mkdir()
    (tmp_path / "landmarks/x.pkl").write_bytes(pickle.dumps(rows[:5] + [None] * 45))
    (record,) = prepare(tmp_path / "in", tmp_path / "out", settings(tmp_path, dataset="folder"))
    assert "is seen in 5 of 50 frames alone" in record.error


def test_names_that_differ_in_their_ending_alone_are_refused_in_every_shard(tmp_path):
    for name in ("d.mp4", "d.mkv"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).touch()
    for shard in ("1/2", "2/2"):
        with pytest.raises(ValueError, match="differ in their ending alone"):
            prepare(tmp_path / "in", tmp_path / "out", settings(tmp_path, dataset="folder", shard=shard))


def test_shards_share_the_label_files(lrs3, tmp_path):
    whole = settings(tmp_path)
    prepare(lrs3, tmp_path / "one", whole)
    for shard in ("1/2", "2/2"):
        prepare(lrs3, tmp_path / "two", settings(tmp_path, shard=shard))
    for split in ("train", "test"):
        name = f"labels/lrs3_{split}_transcript_lengths_seg1s.csv"
        assert (tmp_path / "one" / name).read_text() == (tmp_path / "two" / name).read_text()


def test_lrs2_is_split_as_its_lists_say(tmp_path):
    source = tmp_path / "mvlrs_v1"
    for folder, name in (("main", "5/1"), ("main", "5/2"), ("main", "6/1"), ("pretrain", "7/1")):
        rows = raw_video(source / folder / f"{name}.mp4", 30)
        (source / folder / f"{name}.txt").write_text("Text:  HI\n")
        pkl = tmp_path / "landmarks" / folder / f"{name}.pkl"
        pkl.parent.mkdir(parents=True, exist_ok=True)
        pkl.write_bytes(pickle.dumps(rows))
    for name, lines in {"train": "5/1\n", "val": "5/2\n", "test": "6/1 NF\n", "pretrain": "7/1\n"}.items():
        (tmp_path / f"{name}.txt").write_text(lines)
    prepare(source, tmp_path / "out", settings(tmp_path, dataset="lrs2", seconds=16))
    ids = {
        split: [
            clip.id.removeprefix("lrs2_video_seg16s/")
            for clip in manifest.read(tmp_path / f"out/labels/lrs2_{split}_transcript_lengths_seg16s.csv")
        ]
        for split in ("train", "val", "test")
    }
    assert ids == {"train": ["main/5/1", "pretrain/7/1"], "val": ["main/5/2"], "test": ["main/6/1"]}


def test_a_pretraining_clip_is_cut_between_words(tmp_path):
    (tmp_path / "x.txt").write_text(TABLE + WORDS)
    words = read_words(tmp_path / "x.txt")
    assert words[0] == ("hello", 0.1, 0.5)
    pieces = cut_at_words("x", words, 1)
    assert [(p.name, p.text, p.start, p.end) for p in pieces] == [
        ("x_00", "hello there", 0.1, 0.9),
        ("x_01", "old friend", 1.1, 1.9),
    ]
    (whole,) = cut_at_words("x", words, 16)
    assert (whole.name, whole.start, whole.end) == ("x", 0.0, None)
    assert cut_at_words("x", [], 16) == []


@pytest.mark.skipif(not DETECTOR.is_file(), reason=f"no face detector; {MODEL_VARIABLE} names one")
def test_the_command_finds_drawn_faces_and_names_what_has_none(tmp_path):
    from omni_avsr.toy import make_face, render_face
    from omni_avsr.toy.mouth import lip_track

    source = tmp_path / "my videos ü"
    source.mkdir()
    rng = np.random.default_rng(3)
    track = lip_track([(0.2 * i, 0.2 * i + 0.2, "a" if i % 2 else "m") for i in range(10)], 50, make_face(rng), rng)
    media.write_video(source / "face.mp4", render_face(track, 0)[0], np.full(50 * 640, 1000, np.int16))
    (source / "face.txt").write_text("hello you\n")
    media.write_video(source / "none.mp4", np.zeros((10, 200, 200, 3), np.uint8), np.zeros(6400, np.int16))
    media.write_video(source / "one.mp4", render_face(track[:1], 0)[0], np.zeros(640, np.int16))
    media.write_video(source / "mute.mp4", np.zeros((10, 200, 200, 3), np.uint8))
    media.write_video(source / "large.mp4", np.zeros((3, 2160, 3840, 3), np.uint8), np.zeros(1920, np.int16))
    (source / "text.mp4").write_text("no video\n")
    (source / "empty.mp4").touch()
    arguments = [str(source), "--out", str(tmp_path / "out"), "--detector", str(DETECTOR), "--processes", "2"]
    result = CliRunner().invoke(app, ["prepare", *arguments, "--sheet", str(tmp_path / "sheet.png")])
    assert result.exit_code == 1
    for name, words in {
        "none": "no faces in",
        "large": "no faces in",
        "mute": "has no audio stream",
        "text": "cannot be read",
        "empty": "cannot be read",
    }.items():
        assert re.search(rf"error: {name}: .*{name}\.mp4.*{words}|error: {name}: {words} .*{name}\.mp4", result.output)
    assert "2 clips of 2 videos" in result.output
    one, face = sorted(manifest.read(next((tmp_path / "out/labels").iterdir())), key=lambda clip: clip.frames)
    assert (face.frames, face.text, one.frames) == (50, "hello you", 1)
    assert media.read_video(face.video).std() > 10
    assert cv2.imdecode(np.fromfile(tmp_path / "sheet.png", np.uint8), 0).shape == (192, 960)
    record = json.loads((next((tmp_path / "out/prepared").iterdir())).read_text().split("\n")[0])
    assert set(record) == {"id", "subset", "rows", "quality", "error"}
