"""Raw video becomes mouth clips; failures are named, and interrupted runs resume."""

import errno
import json
import os
import pickle
import re
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from omni_avsr.cli.app import app
from omni_avsr.data import manifest
from omni_avsr.data import prepare as preparing
from omni_avsr.data.prepare import prepare, read_journal
from omni_avsr.data.sources import Item, Word, cut_at_words, read_words, split
from omni_avsr.errors import InputError
from omni_avsr.media import streams
from omni_avsr.media.faces import MODEL, MODEL_VARIABLE
from omni_avsr.settings import PrepareSettings
from omni_avsr.toy import lip_track, make_face
from omni_avsr.toy.portrait import render_face
from tests.support.heads import still_head

TABLE = "Text:  HELLO THERE OLD {LG} FRIEND\nConf:  3\n\nWORD START END ASDSCORE\n"
WORDS = "HELLO 0.10 0.50 9.1\nTHERE 0.60 0.90 8\nOLD 1.10 1.40 7\nFRIEND 1.50 1.90 3\n"
SHARED_DETECTOR = Path(__file__).parents[3] / "shared/models" / MODEL
DETECTOR = Path(os.environ.get(MODEL_VARIABLE, SHARED_DETECTOR))


def raw_video(path, frames=50, face=True):
    """Writes a video with sound whose mouth is a bright disc; returns its rows of landmarks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    video = np.full((frames, 200, 240, 3), 90, np.uint8)
    rows = []
    for index, frame in enumerate(video):
        mouth = np.array([120.0 + 20 * np.sin(index / 12), 140.0])
        cv2.circle(frame, tuple(mouth.round().astype(int).tolist()), 8, (250, 250, 250), -1)
        rows.append(still_head() * 0.9 + mouth if face else None)
    sound = 6000 * np.sin(np.arange(frames * 640) / 9)
    streams.write_video(path, video, sound.astype(np.int16))
    return rows


def write_landmarks(tmp_path, name, rows):
    file = tmp_path / "landmarks" / f"{name}.pkl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps(rows))


@pytest.fixture
def lrs3(tmp_path):
    """A small LRS3 with landmarks."""
    source = tmp_path / "LRS3"
    for name in ("pretrain/a/00001", "trainval/b/00001", "trainval/b/00002", "test/c/00001"):
        rows = raw_video(source / f"{name}.mp4", face=name != "trainval/b/00002")
        write_landmarks(tmp_path, name, rows)
        text = TABLE + WORDS if name.startswith("pretrain") else "Text:  GOOD DAY\nConf:  4\n"
        (source / f"{name}.txt").write_text(text)
    return source


def settings(tmp_path, **changes):
    given = {
        "dataset": "lrs3",
        "landmarks": tmp_path / "landmarks",
        "processes": 2,
        "seconds": 1,
    }
    return PrepareSettings(**{**given, **changes})


def errors_of(records):
    """The errors, by the videos' ids."""
    return {record.id: record.error for record in records if record.error}


def test_lrs3_becomes_clips_that_its_label_files_name(lrs3, tmp_path):
    records = prepare(lrs3, tmp_path / "out", settings(tmp_path))
    (failed,) = [record for record in records if record.error]
    assert failed.id == "trainval/b/00002"
    assert "no faces in" in failed.error
    train = manifest.read(tmp_path / "out/labels/lrs3_train_transcript_lengths_seg1s.csv")
    texts = {clip.id.removeprefix("lrs3_video_seg1s/"): clip.text for clip in train}
    assert texts == {
        "pretrain/a/00001_00": "hello there",
        "pretrain/a/00001_01": "old friend",
        "trainval/b/00001": "good day",
    }
    for clip in train:
        video = streams.read_video(clip.video)
        audio = streams.read_audio(clip.audio)
        assert video.shape == (clip.frames, 96, 96)
        assert len(audio) == 640 * clip.frames
        middles = video[:, 44:52, 44:52].mean((1, 2))
        assert (middles > 200).all()  # the mouth is in the middle of every frame
        assert np.abs(audio).max() > 0.1
        text = Path(str(clip.video).replace("_video_", "_text_")).with_suffix(".txt")
        assert text.read_text() == f"{clip.text.upper()}\n"
    (test,) = manifest.read(tmp_path / "out/labels/lrs3_test_transcript_lengths_seg1s.csv")
    assert test.frames == 50


def test_finished_videos_are_skipped_and_failed_ones_are_tried_again(lrs3, tmp_path):
    out = tmp_path / "out"
    prepare(lrs3, out, settings(tmp_path))
    journal = out / "prepared/lrs3_seg1s_1of1.jsonl"
    made = {file: file.stat().st_mtime_ns for file in out.rglob("*.mp4")}
    lines = journal.read_text().splitlines()
    kept = [line for line in lines if '"test/c/00001"' not in line]
    (cut_off,) = [line for line in lines if '"test/c/00001"' in line]
    journal.write_text("\n".join(kept) + "\n" + cut_off[:30])
    assert len(read_journal(journal)) == 3
    landmarks = tmp_path / "landmarks/trainval/b"
    (landmarks / "00002.pkl").write_bytes((landmarks / "00001.pkl").read_bytes())
    records = prepare(lrs3, out, settings(tmp_path))
    assert errors_of(records) == {}
    again = [file for file, time in made.items() if file.stat().st_mtime_ns > time]
    assert [str(file.relative_to(out)) for file in again] == [
        "lrs3/lrs3_video_seg1s/test/c/00001.mp4"
    ]
    assert len(manifest.read(out / "labels/lrs3_train_transcript_lengths_seg1s.csv")) == 4
    assert not list(out.rglob("*.part"))


def test_a_deleted_clip_is_made_again_and_a_half_written_journal_is_read(lrs3, tmp_path):
    out = tmp_path / "out"
    prepare(lrs3, out, settings(tmp_path))
    deleted = next(out.rglob("test/c/00001.wav"))
    deleted.unlink()
    with (out / "prepared/lrs3_seg1s_1of1.jsonl").open("ab") as journal:
        journal.write('{"id": "ä'.encode()[:-1])
    prepare(lrs3, out, settings(tmp_path))
    assert deleted.is_file()


@pytest.mark.parametrize("name", ["talk, part 1", "a.v2", "[raw] *", "-\"a\" 'b'"])
def test_a_folder_of_any_names_becomes_a_label_file(tmp_path, name):
    source = tmp_path / f"{name} in"
    write_landmarks(tmp_path, name, raw_video(source / f"{name}.mp4"))
    (source / f"{name}.txt").write_text("hello\nyou\n")
    for _ in range(2):  # the second time, the source contains what the first wrote
        (record,) = prepare(source, source / "out", settings(tmp_path, dataset="folder"))
        assert record.error is None
    (file,) = (source / "out/labels").iterdir()
    (clip,) = manifest.read(file)
    assert (clip.text, clip.frames, clip.video.is_file()) == ("hello you", 50, True)


def test_a_fault_of_one_video_fails_no_other(lrs3, tmp_path):
    (lrs3 / "pretrain/a/00001.txt").write_text(TABLE + WORDS.replace("0.60", "x.6"))
    (lrs3 / "trainval/b/00001.txt").unlink()
    (lrs3 / "test/c/00001.txt").write_bytes("Text:  CAFÉ\n".encode("latin-1"))
    rows = raw_video(lrs3 / "trainval/d/00001.mp4")
    (lrs3 / "trainval/d/00001.txt").write_text("Text:  HI\n")
    write_landmarks(tmp_path, "trainval/d/00001", rows[:30])
    errors = errors_of(prepare(lrs3, tmp_path / "out", settings(tmp_path)))
    assert "00001.txt: could not convert string to float: 'x.6'" in errors["pretrain/a/00001"]
    assert "No such file" in errors["trainval/b/00001"]
    assert "00001.txt is not UTF-8" in errors["test/c/00001"]
    assert "has 50 frames, its landmarks are of 30" in errors["trainval/d/00001"]


def test_audio_is_read_from_its_own_folder(tmp_path):
    write_landmarks(tmp_path, "id1/x/1", raw_video(tmp_path / "mp4/id1/x/1.mp4"))
    given = settings(tmp_path, dataset="folder", name="vox", audio=tmp_path / "aac")
    (record,) = prepare(tmp_path / "mp4", tmp_path / "out", given)
    assert "has no sound for" in record.error
    (tmp_path / "aac/id1/x").mkdir(parents=True)
    streams.write_audio(tmp_path / "aac/id1/x/1.wav", np.full(50 * 640, 3000, np.int16))
    prepare(tmp_path / "mp4", tmp_path / "out", given)
    (clip,) = manifest.read(tmp_path / "out/labels/vox_all_transcript_lengths_seg1s.csv")
    assert np.allclose(streams.read_audio(clip.audio), 3000 / 32768, atol=1e-3)


def test_a_face_seen_in_few_frames_is_reported(tmp_path):
    rows = raw_video(tmp_path / "in/x.mp4")
    write_landmarks(tmp_path, "x", rows[:5] + [None] * 45)
    (record,) = prepare(tmp_path / "in", tmp_path / "out", settings(tmp_path, dataset="folder"))
    assert "is seen in only 5 of 50 frames" in record.error


def test_a_face_that_does_not_exist_is_refused(tmp_path):
    write_landmarks(tmp_path, "x", raw_video(tmp_path / "in/x.mp4"))
    given = settings(tmp_path, dataset="folder", face=2)
    (record,) = prepare(tmp_path / "in", tmp_path / "out", given)
    assert re.search(r"1 faces in .*x\.mp4, --face 2", record.error)


@pytest.mark.parametrize(("shard", "taken"), [("1/2", ["d", "f,g"]), ("2/2", ["e"])])
def test_of_names_that_differ_only_in_their_suffix_one_is_taken_in_every_shard(
    tmp_path, caplog, shard, taken
):
    (tmp_path / "in").mkdir()
    for name in ("d.mov", "d.mkv", "d.mp4", "e.mp4", "f,g.mp4", "f_g.mp4"):
        (tmp_path / "in" / name).touch()
    given = settings(tmp_path, dataset="folder", shard=shard)
    records = prepare(tmp_path / "in", tmp_path / "out", given)
    assert sorted(record.id for record in records) == taken
    assert re.search(r"d\.mov \(d\.mp4 is taken\), .*d\.mkv \(d\.mp4 is taken\)", caplog.text)
    assert re.search(r"f_g\.mp4, whose clip would be named like that of .*f,g\.mp4", caplog.text)


@pytest.mark.parametrize("path", ["../../5/1", "/etc/5/1", "5/../../1", "5/\0"])
def test_a_list_cannot_name_videos_elsewhere(tmp_path, path):
    source = tmp_path / "mvlrs_v1"
    (source / "main").mkdir(parents=True)
    (tmp_path / "train.txt").write_text(f"5/1\n{path}\n")
    with pytest.raises(InputError, match=r"train\.txt: .* is not the path of a video"):
        prepare(source, tmp_path / "out", settings(tmp_path, dataset="lrs2"))
    assert not (tmp_path / "out").exists()


def test_a_video_in_two_lists_is_refused(tmp_path):
    (tmp_path / "main").mkdir()
    (tmp_path / "train.txt").write_text("5/1\n5/1\n5/2\n")
    (tmp_path / "test.txt").write_text("5//2\n")
    with pytest.raises(InputError, match=r"main/5/2 is in train\.txt and in test\.txt"):
        prepare(tmp_path, tmp_path / "out", settings(tmp_path, dataset="lrs2"))


def test_links_to_folders_are_followed_and_unwritable_names_are_left_out(tmp_path, caplog):
    write_landmarks(tmp_path, "linked/-dash", raw_video(tmp_path / "elsewhere/-dash.mp4", 5))
    write_landmarks(tmp_path, "line\nbreak", raw_video(tmp_path / "in/line\nbreak.mp4", 5))
    (tmp_path / "in/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / os.fsdecode(b"caf\xe9.mp4")).touch()
    out = tmp_path / "out"
    prepare(tmp_path / "in", out, settings(tmp_path, dataset="folder"))
    (file,) = (out / "labels").iterdir()
    assert [clip.id.partition("/")[2] for clip in manifest.read(file)] == [
        "line_break",
        "linked/-dash",
    ]
    assert r"caf\xe9.mp4; rename it" in caplog.text


def test_a_name_that_is_too_long_for_what_is_written_is_reported(tmp_path):
    write_landmarks(tmp_path, "n" * 240, raw_video(tmp_path / f"in/{'n' * 240}.mp4", 5))
    (record,) = prepare(tmp_path / "in", tmp_path / "out", settings(tmp_path, dataset="folder"))
    assert re.match(r"n{240}: .*File name too long", record.error)
    assert record.rows == []


def test_a_folder_that_lies_in_the_output_is_prepared(tmp_path):
    write_landmarks(tmp_path, "x", raw_video(tmp_path / "data/raw/x.mp4", 5))
    for _ in range(2):
        given = settings(tmp_path, dataset="folder")
        (record,) = prepare(tmp_path / "data/raw", tmp_path / "data", given)
        assert record.error is None
    assert (tmp_path / "data/raw/raw_video_seg1s/x.mp4").is_file()


def test_a_piece_whose_face_is_long_unseen_is_left_out_and_the_others_are_kept(lrs3, tmp_path):
    rows = raw_video(lrs3 / "pretrain/a/00001.mp4", 120)
    late = "HELLO 0.10 0.50 9\nTHERE 0.60 1.00 8\nOLD 1.10 2.70 7\nFRIEND 3.10 3.90 3\n"
    (lrs3 / "pretrain/a/00001.txt").write_text(TABLE + late)
    write_landmarks(tmp_path, "pretrain/a/00001", rows[:30] + [None] * 28 + rows[58:])
    for _ in range(2):  # it is named again by the run that finds it finished
        records = prepare(lrs3, tmp_path / "out", settings(tmp_path))
        record = next(record for record in records if record.id == "pretrain/a/00001")
        assert record.error is None
        (left_out,) = record.left_out
        assert re.match(r"pretrain/a/00001_01: the face is not seen for 1\.1 s", left_out)
        assert [row.split(",")[-1] for row in record.rows] == ["hello there", "friend"]


def test_a_face_that_is_unseen_for_a_second_is_bridged(tmp_path):
    rows = raw_video(tmp_path / "in/x.mp4", 75)
    write_landmarks(tmp_path, "x", rows[:25] + [None] * 25 + rows[50:])
    (record,) = prepare(tmp_path / "in", tmp_path / "out", settings(tmp_path, dataset="folder"))
    assert record.error is None
    write_landmarks(tmp_path, "x", rows[:25] + [None] * 26 + rows[51:])
    (record,) = prepare(tmp_path / "in", tmp_path / "out2", settings(tmp_path, dataset="folder"))
    assert record.error.startswith("x: the face is not seen for 1.0 s")
    assert not (tmp_path / "out2/labels").exists()


def test_a_journal_of_an_earlier_version_is_read(tmp_path):
    old = {"id": "a", "subset": "all", "rows": [], "quality": {}, "error": None}
    (tmp_path / "x.jsonl").write_text(f"{json.dumps(old)}\n")
    (record,) = read_journal(tmp_path / "x.jsonl")
    assert record.left_out == []


def test_shards_share_the_label_files(lrs3, tmp_path):
    prepare(lrs3, tmp_path / "one", settings(tmp_path))
    for shard in ("1/2", "2/2"):
        prepare(lrs3, tmp_path / "two", settings(tmp_path, shard=shard))
    for subset in ("train", "test"):
        name = f"labels/lrs3_{subset}_transcript_lengths_seg1s.csv"
        assert (tmp_path / "one" / name).read_text() == (tmp_path / "two" / name).read_text()


def test_a_failure_in_another_shard_does_not_take_a_clip_from_the_label_files(tmp_path):
    source = tmp_path / "vox"
    for name in ("1", "2"):
        write_landmarks(tmp_path, name, raw_video(source / f"{name}.mp4", 10))
    given = {"dataset": "folder", "processes": 1}
    (source / "2.txt").write_bytes(b"\xff")
    assert errors_of(prepare(source, tmp_path / "out", settings(tmp_path, shard="2/2", **given)))
    (source / "2.txt").write_text("two")
    prepare(source, tmp_path / "out", settings(tmp_path, **given))
    clips = manifest.read(tmp_path / "out/labels/vox_all_transcript_lengths_seg1s.csv")
    assert [clip.text for clip in clips] == ["", "two"]


def test_clips_of_another_video_of_the_same_name_are_not_taken_for_its_own(tmp_path):
    for folder in ("a/vox", "b/vox"):
        frames = 10 if folder < "b" else 12
        write_landmarks(tmp_path, "1", raw_video(tmp_path / folder / "1.mp4", frames))
        given = settings(tmp_path, dataset="folder", processes=1)
        if frames == 10:
            prepare(tmp_path / folder, tmp_path / "out", given)
    with pytest.raises(InputError, match=r"clips of 1 are of another video than .*b/vox/1\.mp4"):
        prepare(tmp_path / "b/vox", tmp_path / "out", given)
    (tmp_path / "a").rename(tmp_path / "c")
    prepare(tmp_path / "c/vox", tmp_path / "out", given)  # the same video may have moved


def test_clips_of_other_options_are_kept_and_said_to_be(tmp_path, caplog):
    write_landmarks(tmp_path, "1", raw_video(tmp_path / "vox/1.mp4", 10))
    given = {"dataset": "folder", "processes": 1}
    prepare(tmp_path / "vox", tmp_path / "out", settings(tmp_path, **given))
    prepare(tmp_path / "vox", tmp_path / "out", settings(tmp_path, **given))
    assert not caplog.messages
    prepare(tmp_path / "vox", tmp_path / "out", settings(tmp_path, face=1, **given))
    assert "the clips of 1 videos are kept, although they were made with" in caplog.text


def test_a_full_disk_ends_the_work_at_once(tmp_path, monkeypatch):
    write_landmarks(tmp_path, "1", raw_video(tmp_path / "vox/1.mp4", 10))

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(preparing, "write_atomically", full)
    output = preparing._Output(tmp_path / "out", "vox", 1)
    item = Item("1", "all", tmp_path / "vox/1.mp4", spoken=False)
    with pytest.raises(InputError, match="out cannot be written: No space left on device"):
        preparing._make_clips(item, output, settings(tmp_path))


def test_lrs2_is_split_as_its_lists_say(tmp_path):
    source = tmp_path / "mvlrs_v1"
    for name in ("main/5/1", "main/5/2", "main/6/1", "pretrain/7/1"):
        write_landmarks(tmp_path, name, raw_video(source / f"{name}.mp4", 30))
        (source / f"{name}.txt").write_text("Text:  HI\n")
    (tmp_path / "train.txt").write_text("5/1\n")
    (tmp_path / "val.txt").write_text("5/2\n")
    (tmp_path / "test.txt").write_text("6/1 NF\n")
    (tmp_path / "pretrain.txt").write_text("7/1\n")
    out = tmp_path / "out"
    prepare(source, out, settings(tmp_path, dataset="lrs2", seconds=16))
    assert lrs2_clips(out, "train") == ["main/5/1", "pretrain/7/1"]
    assert lrs2_clips(out, "val") == ["main/5/2"]
    assert lrs2_clips(out, "test") == ["main/6/1"]


def lrs2_clips(out, split):
    clips = manifest.read(out / f"labels/lrs2_{split}_transcript_lengths_seg16s.csv")
    return [clip.id.removeprefix("lrs2_video_seg16s/") for clip in clips]


@pytest.fixture
def speakers(tmp_path):
    """Five speakers with two videos each, and their landmarks."""
    for index in range(10):
        name = f"mp4/s{index % 5}/{index}"
        write_landmarks(tmp_path, name, raw_video(tmp_path / f"vox/{name}.mp4", 5))
    return tmp_path / "vox"


def label_files(out):
    """The ids in each label file, by its subset."""
    found = {}
    for file in (out / "labels").iterdir():
        subset = file.name.split("_")[1]
        found[subset] = {clip.id.partition("/")[2] for clip in manifest.read(file)}
    return found


def test_a_split_never_has_a_speaker_in_two_parts(speakers, tmp_path):
    given = settings(tmp_path, dataset="folder", split="60/20/20")
    prepare(speakers, tmp_path / "one", given)
    parts = label_files(tmp_path / "one")
    assert {part: len(ids) for part, ids in parts.items()} == {"train": 6, "valid": 2, "test": 2}
    speakers_of = {part: {id.split("/")[1] for id in ids} for part, ids in parts.items()}
    assert sum(map(len, speakers_of.values())) == 5
    for shard in ("2/2", "1/2"):
        given = settings(tmp_path, dataset="folder", split="60/20/20", shard=shard)
        prepare(speakers, tmp_path / "two", given)
    assert label_files(tmp_path / "two") == parts


def test_another_split_only_writes_other_label_files(speakers, tmp_path):
    out = tmp_path / "out"
    given = settings(tmp_path, dataset="folder", split="60/20/20")
    prepare(speakers, out, given)
    made = {file: file.stat().st_mtime_ns for file in out.rglob("*.mp4")}
    own = out / "labels/vox_all_transcript_lengths_seg1s.csv"
    own.write_text("vox,a.mp4,5,0,made by hand\n")
    prepare(speakers, out, settings(tmp_path, dataset="folder", split="80/20"))
    assert made == {file: file.stat().st_mtime_ns for file in out.rglob("*.mp4")}
    assert own.is_file()  # what was not written here is kept
    own.unlink()
    parts = label_files(out)
    assert {part: len(ids) for part, ids in parts.items()} == {"train": 8, "valid": 2}
    prepare(speakers, out, settings(tmp_path, dataset="folder"))
    assert {part: len(ids) for part, ids in label_files(out).items()} == {"all": 10}


def test_a_split_of_lrs3_divides_its_training_set(lrs3, tmp_path):
    given = settings(tmp_path, split="50/50")
    prepare(lrs3, tmp_path / "out", given)
    parts = label_files(tmp_path / "out")
    assert parts.keys() == {"train", "valid", "test"}
    assert parts["test"] == {"test/c/00001"}
    speakers_of = {part: {id.split("/")[1] for id in ids} for part, ids in parts.items()}
    assert {*speakers_of["train"], *speakers_of["valid"]} == {"a", "b"}
    assert not speakers_of["train"] & speakers_of["valid"]


def test_videos_of_one_folder_are_split_one_by_one():
    ids = [f"mp4/me/{index}" for index in range(40)]
    parts = split(ids, (90, 5, 5))
    assert Counter(parts.values()) == {"train": 36, "valid": 2, "test": 2}
    assert split(ids[::-1], (90, 5, 5)) == parts
    assert split(["a", "b"], (98, 1, 1)).keys() == {"a", "b"}
    assert set(split(["a", "b"], (98, 1, 1)).values()) == {"train", "valid"}
    assert set(split(["b/1", "b/2"], (10, 90)).values()) == {"train", "valid"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "90"}, "not of the form 90/5/5"),
        ({"split": "90/20"}, "add up to 100"),
        ({"split": "100/0"}, "not of the form 90/5/5"),
        ({"split": "90/5/4/1"}, "not of the form 90/5/5"),
        ({"split": "110/-10"}, "not of the form 90/5/5"),
        ({"split": "nan/10"}, "not of the form 90/5/5"),
        ({"split": "90/10", "dataset": "lrs2"}, "lrs2, which has lists"),
        ({"split": "90/5/5", "dataset": "lrs3"}, "two shares for lrs3"),
        ({"name": "../x"}, "name '../x' cannot be"),
        ({"name": ""}, "name '' cannot be"),
    ],
)
def test_a_split_or_a_name_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(InputError, match=re.escape(message)):
        PrepareSettings(**changes)


def test_what_cannot_be_read_or_written_is_refused_before_any_work(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/x.mp4").touch()
    (tmp_path / "file").touch()
    out = tmp_path / "out"
    given = settings(tmp_path, dataset="folder")
    with pytest.raises(InputError, match=r"x\.mp4 is a file: give the folder"):
        prepare(tmp_path / "in/x.mp4", out, given)
    with pytest.raises(InputError, match=r"--out .*file is a file"):
        prepare(tmp_path / "in", tmp_path / "file", given)
    sheet_on_folder = settings(tmp_path, dataset="folder", sheet=tmp_path / "in")
    with pytest.raises(InputError, match=r"--sheet .*in is a folder"):
        prepare(tmp_path / "in", out, sheet_on_folder)
    sheet_on_video = settings(tmp_path, dataset="folder", sheet=tmp_path / "in/x.mp4")
    with pytest.raises(InputError, match=r"x\.mp4 exists and is not a PNG"):
        prepare(tmp_path / "in", out, sheet_on_video)
    with pytest.raises(InputError, match=r"none of the 1 videos of .*in is in part 2/2"):
        prepare(tmp_path / "in", out, settings(tmp_path, dataset="folder", shard="2/2"))
    with pytest.raises(
        InputError, match="no videos for --dataset lrs3: mp4 files in its folders pretrain"
    ):
        prepare(tmp_path / "in", out, settings(tmp_path, dataset="lrs3"))
    assert not out.exists()


def test_when_no_clip_is_made_the_command_says_so(tmp_path):
    raw_video(tmp_path / "in/x.mp4", 5)
    write_landmarks(tmp_path, "x", [None] * 5)
    given = ["--landmarks", str(tmp_path / "landmarks"), "--sheet", str(tmp_path / "sheet.png")]
    command = ["prepare", str(tmp_path / "in"), "--out", str(tmp_path / "out"), *given]
    result = CliRunner().invoke(app, [*command, "--processes", "1"])
    assert result.exit_code == 2
    assert "error: x: no faces in" in result.output
    assert "error: no clip was made" in result.output
    assert "label files" not in result.output
    assert not (tmp_path / "out/labels").exists()
    assert not (tmp_path / "sheet.png").exists()


def test_a_pretraining_clip_is_cut_between_words(tmp_path):
    (tmp_path / "x.txt").write_text(TABLE + WORDS)
    words = read_words(tmp_path / "x.txt")
    assert words[0] == Word("hello", 0.1, 0.5)
    pieces = cut_at_words("x", words, 1)
    assert [(piece.name, piece.text, piece.start, piece.end) for piece in pieces] == [
        ("x_00", "hello there", 0.1, 0.9),
        ("x_01", "old friend", 1.1, 1.9),
    ]
    (whole,) = cut_at_words("x", words, 16)
    assert (whole.name, whole.start, whole.end) == ("x", 0.0, None)
    assert cut_at_words("x", [], 16) == []


def test_a_word_without_finite_times_is_refused(tmp_path):
    (tmp_path / "x.txt").write_text(TABLE + WORDS.replace("0.60", "nan"))
    with pytest.raises(InputError, match=r"x\.txt: THERE nan 0\.90 8 .* no finite times"):
        read_words(tmp_path / "x.txt")


@pytest.mark.skipif(
    not DETECTOR.is_file(), reason=f"no face detector; name one in {MODEL_VARIABLE}"
)
def test_the_command_finds_drawn_faces_and_names_videos_without_one(tmp_path):
    source = tmp_path / "my videos ü"
    write_drawn_faces(source)
    write_unusable_videos(source)
    arguments = [
        "prepare",
        str(source),
        *("--out", str(tmp_path / "out")),
        *("--detector", str(DETECTOR)),
        *("--sheet", str(tmp_path / "sheet.png")),
        *("--processes", "2"),
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    expected = {
        "none": r"no faces in .*none\.mp4",
        "large": r"no faces in .*large\.mp4",
        "mute": r".*mute\.mp4 has no audio stream",
        "text": r".*text\.mp4 cannot be read",
        "empty": r".*empty\.mp4 cannot be read",
    }
    for name, error in expected.items():
        assert re.search(rf"error: {name}: {error}", result.output)
    assert "2 clips of 2 videos" in result.output
    (label_file,) = (tmp_path / "out/labels").iterdir()
    one, face = sorted(manifest.read(label_file), key=lambda clip: clip.frames)
    assert (face.frames, face.text, one.frames) == (50, "hello you", 1)
    assert streams.read_video(face.video).std() > 10
    sheet = cv2.imdecode(np.fromfile(tmp_path / "sheet.png", np.uint8), 0)
    assert sheet.shape == (2 * (96 + 16), 960)  # each clip's name and frames
    (journal,) = (tmp_path / "out/prepared").iterdir()
    record = json.loads(journal.read_text().splitlines()[0])
    assert record.keys() >= {"id", "subset", "rows", "quality", "left_out", "error"}


def write_drawn_faces(source):
    """Writes a video of 50 frames with a text, and one of a single frame."""
    source.mkdir()
    rng = np.random.default_rng(3)
    phonemes = [(0.2 * i, 0.2 * i + 0.2, "a" if i % 2 else "m") for i in range(10)]
    track = lip_track(phonemes, 50, make_face(rng), rng)
    frames, _ = render_face(track, 0)
    streams.write_video(source / "face.mp4", frames, np.full(50 * 640, 1000, np.int16))
    (source / "face.txt").write_text("hello you\n")
    first, _ = render_face(track[:1], 0)
    streams.write_video(source / "one.mp4", first, np.zeros(640, np.int16))


def write_unusable_videos(source):
    black = np.zeros((10, 200, 200, 3), np.uint8)
    large = np.zeros((3, 2160, 3840, 3), np.uint8)
    streams.write_video(source / "none.mp4", black, np.zeros(10 * 640, np.int16))
    streams.write_video(source / "large.mp4", large, np.zeros(3 * 640, np.int16))
    streams.write_video(source / "mute.mp4", black)
    (source / "text.mp4").write_text("no video\n")
    (source / "empty.mp4").touch()
