"""Every layout of label files is read to the same clips; what does not fit is refused with its line."""

import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from omni_avsr.cli.app import app
from omni_avsr.data import check, manifest
from omni_avsr.media import streams as media
from omni_avsr.run import silent
from tests.support.corpus import SENTENCES, write_clip

FRAMES = (10, 12, 15)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A root with three clips as LRS3 users have them, texts beside them, and a label file of every format."""
    root = tmp_path_factory.mktemp("world with spaces and ü")
    folder = root / "corpus/corpus_video_seg16s/test"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = [f"corpus_video_seg16s/test/{i:05}" for i in range(3)]
    for i, frames in enumerate(FRAMES):
        write_clip(folder, f"{i:05}", SENTENCES[i], frames, rng)
        text = root / f"corpus/corpus_text_seg16s/test/{i:05}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text(f"{SENTENCES[i].upper()}\n")
    pieces = sorted({f"▁{word}" for text in SENTENCES for word in text.upper().split()})
    numbers = {piece: i for i, piece in enumerate(pieces, 1)}
    ids = [" ".join(str(numbers[f"▁{word}"]) for word in text.upper().split()) for text in SENTENCES[:3]]
    labels = root / "labels"
    labels.mkdir()
    rows = list(zip(names, FRAMES, SENTENCES, ids, strict=False))
    files = {
        "llama.csv": [f"corpus,{name}.mp4,{n},0,{text}" for name, n, text, _ in rows],
        "auto.csv": [f"corpus,{name}.mp4,{n},{tokens}" for name, n, _, tokens in rows],
        "units.txt": [f"{piece} {i}" for piece, i in numbers.items()],
        "avh.tsv": [str(root), *(f"{n}\tcorpus/{n}.mp4\tcorpus/{n}.wav:{n}\t{f}\t{f * 640}" for n, f, *_ in rows)],
        "avh.wrd": SENTENCES[:3],
        "muavic.tsv": [str(root), *(f"{n}\tcorpus/{n}.mp4\tcorpus/{n}.wav\t{f}\t{f * 640}" for n, f, *_ in rows)],
        "muavic.en": SENTENCES[:3],
        "mms.tsv": [
            "/",
            *(f"{n}\t{{TOY_ROOT}}/corpus/{n}.mp4\t{{TOY_ROOT}}/corpus/{n}.wav\t{f}\t0\t4.2" for n, f, *_ in rows),
        ],
        "mms.wrd": SENTENCES[:3],
        "own.jsonl": [
            json.dumps({"id": n, "audio": f"../corpus/{n}.wav", "video": f"../corpus/{n}.mp4", "text": t})
            for n, _, t, _ in rows
        ],
    }
    for name, lines in files.items():
        (labels / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return root


def facts(clips):
    return [(clip.video.resolve(), clip.audio.resolve(), clip.text) for clip in clips]


@pytest.mark.parametrize(
    ("name", "format", "options"),
    [
        ("auto.csv", "auto-avsr", {}),
        ("auto.csv", "auto-avsr", {"tokens": "units.txt"}),
        ("auto.csv", "usr", {"tokens": "units.txt", "format": "usr"}),
        ("avh.tsv", "avhubert", {}),
        ("muavic.tsv", "avhubert", {}),
        ("mms.tsv", "mms-llama", {}),
        ("own.jsonl", "jsonl", {}),
    ],
)
def test_every_format_is_read_to_the_same_clips(world, monkeypatch, name, format, options):
    monkeypatch.setenv("TOY_ROOT", str(world))
    if "tokens" in options:
        options = {**options, "tokens": world / "labels" / options["tokens"]}
    loaded = manifest.load(world / "labels" / name, **options)
    assert loaded.format == format
    expected = manifest.load(world / "labels/llama.csv")
    assert expected.format == "llama-avsr"
    assert facts(loaded.clips) == facts(expected.clips)
    assert [clip.id for clip in loaded.clips] == [clip.id for clip in expected.clips]
    first = 2 if name.endswith(".tsv") else 1
    assert loaded.lines == [first, first + 1, first + 2]


def test_a_folder_of_media_is_its_clips_with_the_text_beside_them(world, tmp_path):
    rng = np.random.default_rng(1)
    (tmp_path / "mine").mkdir()
    for name in ("both", "sound only", "video only"):
        write_clip(tmp_path / "mine", name, "we talk", 11, rng)
    (tmp_path / "mine/both.txt").write_text("Text:  WE TALK {LG} NOW\nConf:  5\n")
    (tmp_path / "mine/sound only.mp4").unlink()
    (tmp_path / "mine/video only.wav").unlink()
    both, sound, video = manifest.read(tmp_path / "mine")
    assert (both.id, both.text, both.frames) == ("both", "we talk now", 11)
    assert both.sound.suffix == ".wav"
    assert both.video.suffix == ".mp4"
    assert sound.video == sound.audio == tmp_path / "mine/sound only.wav"
    assert video.sound == tmp_path / "mine/video only.mp4"


def test_a_sentencepiece_model_is_named_for_the_list_beside_it(world, tmp_path):
    file = world / "labels/auto.csv"
    (tmp_path / "unigram.model").write_bytes(b"a model")
    with pytest.raises(ValueError, match=r"no list of pieces and ids .*unigram_units\.txt"):
        manifest.read(file, tokens=tmp_path / "unigram.model")
    (tmp_path / "unigram_units.txt").write_text((world / "labels/units.txt").read_text())
    named = manifest.read(file, tokens=tmp_path / "unigram.model")
    assert [clip.text for clip in named] == [clip.text for clip in manifest.read(file)]


def test_of_several_languages_the_folders_own_is_read(world, tmp_path):
    folder = tmp_path / "es"
    folder.mkdir()
    (folder / "test.tsv").write_text((world / "labels/avh.tsv").read_text())
    (folder / "test.en").write_text("one\ntwo\nthree\n")
    (folder / "test.es").write_text("uno\ndos\ntres\n")
    assert [clip.text for clip in manifest.read(folder / "test.tsv")] == ["uno", "dos", "tres"]
    (folder / "test.es").rename(folder / "test.fr")
    with pytest.raises(ValueError, match=r"several languages: test\.en, test\.fr"):
        manifest.read(folder / "test.tsv")


def test_a_line_without_frames_is_measured(world, tmp_path):
    clip = manifest.read(world / "labels/llama.csv")[0]
    (tmp_path / "x.jsonl").write_text(json.dumps({"video": str(clip.video), "text": "a"}) + "\n")
    assert manifest.read(tmp_path / "x.jsonl")[0].frames == clip.frames


def test_a_text_of_several_lines_is_read_whole(tmp_path):
    (tmp_path / "x.txt").write_text("this is\nmine\n")
    assert manifest.transcript(tmp_path / "x.txt") == "this is mine"
    (tmp_path / "x.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(ValueError, match=r"x\.txt is not UTF-8"):
        manifest.transcript(tmp_path / "x.txt")


def test_files_that_differ_in_their_ending_alone_are_refused(tmp_path):
    for name in ("a.mp4", "a.mov"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="differ in their ending alone"):
        manifest.read(tmp_path)


def test_what_is_written_is_read_back_from_anywhere(world, tmp_path, monkeypatch):
    clips = manifest.read(world / "labels/llama.csv")
    monkeypatch.chdir(tmp_path)
    manifest.write(clips, "out.jsonl")
    assert facts(manifest.read("out.jsonl")) == facts(clips)
    assert [clip.frames for clip in manifest.read("out.jsonl")] == list(FRAMES)


def test_paths_are_found_below_the_root_with_or_without_the_dataset(world, tmp_path):
    (tmp_path / "labels").mkdir()
    file = tmp_path / "labels/x.csv"
    file.write_text("corpus,corpus_video_seg16s/test/00000.mp4,10,0,set white\n")
    assert manifest.read(file, world)[0].video.is_file()
    assert manifest.read(file, world / "corpus")[0].video.is_file()


def test_a_windows_file_with_a_byte_order_mark_and_strange_letters_is_read(tmp_path):
    file = tmp_path / "x.csv"
    file.write_bytes("\ufeffds,ä b/1.mp4,5,0,größe\u2028ja\r\n\r\nds,2.mp4,6,0,TWO\r\n".encode())
    first, second = manifest.read(file)
    assert (first.id, first.text) == ("ä b/1", "größe\u2028ja")
    assert second.text == "two"


@pytest.mark.parametrize(
    ("name", "text", "options", "message"),
    [
        ("x.csv", "d,a.mp4,5,0,x\nd,b.mp4,5,0,y\nd,a.mp4,5,0,z\n", {}, "x.csv: line 3: a is on line 1 too"),
        ("x.csv", "d,a.mp4,5,1 2 3\n", {}, "line 1: no text in"),
        ("x.csv", "d,a.mp4,5,1 2 3\n", {"format": "usr"}, "token ids alone: name what they mean with --tokens"),
        ("x.csv", "d,a.mp4,5,0,x\n", {"format": "lrs4"}, "unknown format 'lrs4'; available: llama-avsr"),
        ("x.tsv", "/\na\ta.mp4\ta.wav\t5\t3200\n", {}, "x.tsv has no text: no x.wrd beside it"),
        (
            "x.jsonl",
            '{"id": "a", "text": "b"}\n',
            {},
            "line 1: an object with the path of an audio or a video expected",
        ),
        ("x.jsonl", '{"id": "a"\n', {}, "line 1: no JSON"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(tmp_path, name, text, options, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        manifest.read(tmp_path / name, **options)
    assert "\n" not in str(refused.value)


def test_other_files_are_refused_by_their_first_odd_byte(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"d,a.mp4,5,0,caf\xe9\n")
    with pytest.raises(ValueError, match=r"x\.csv is not UTF-8 text: byte 15 is 0xe9"):
        manifest.read(tmp_path / "x.csv")


def test_a_placeholder_without_a_value_is_named(world, monkeypatch):
    monkeypatch.delenv("TOY_ROOT", raising=False)
    with pytest.raises(ValueError, match=r"line 2: \{TOY_ROOT\} is in the path: set the environment variable TOY_ROOT"):
        manifest.read(world / "labels/mms.tsv")
    assert manifest.read(world / "labels/mms.tsv", world)[0].video.is_file()


def test_text_and_clips_of_a_tsv_must_be_as_many(world, tmp_path):
    (tmp_path / "x.tsv").write_text((world / "labels/avh.tsv").read_text())
    (tmp_path / "x.wrd").write_text("one\ntwo\n")
    with pytest.raises(ValueError, match=r"x\.wrd has 2 lines for the 3 clips of .*x\.tsv"):
        manifest.read(tmp_path / "x.tsv")


def test_a_check_counts_what_is_there_and_finds_what_is_wrong(world, tmp_path):
    good = check.check(manifest.load(world / "labels/llama.csv"), 0, False, silent)
    assert good.problems == []
    assert (good.read, good.frames, good.wrong_frames) == (3, list(FRAMES), 0)
    assert dict(good.fps) == {25.0: 3}
    folder = tmp_path / "d"
    folder.mkdir()
    rng = np.random.default_rng(2)
    for name in ("fine", "torn", "late", "large", "gone"):
        write_clip(folder, name, "we talk", 20, rng)
    (folder / "torn.mp4").write_bytes((folder / "torn.mp4").read_bytes()[:500])
    media.write_audio(folder / "late.wav", np.ones(30 * 640, np.int16))
    media.write_video(folder / "large.mp4", np.zeros((20, 288, 360), np.uint8))
    (folder / "gone.wav").unlink()
    (folder / "gone.mp4").unlink()
    file = tmp_path / "x.csv"
    file.write_text("".join(f"d,{n}.mp4,19,0,we talk\n" for n in ("fine", "torn", "late", "large", "gone")))
    found = check.check(manifest.load(file, tmp_path), 0, False, silent)
    assert found.wrong_frames == 3
    file.write_text(file.read_text() + "d,fine.mp4\n")
    found = check.check(manifest.load(file, tmp_path), 0, False, silent)
    assert found.read == 3
    text = "\n".join(found.problems)
    for line, words in {
        2: "torn.mp4 cannot be read",
        3: r"late.wav is \+10.0 frames longer than late.mp4",
        4: "large.mp4 has 288 x 360 pixels, 96 x 96 expected",
        5: "gone.mp4 is missing",
        6: "2 fields, 5 expected",
    }.items():
        assert re.search(f"x.csv:{line}: .*{words}", text)
    assert "x.csv:1:" not in text


def test_data_check_prints_a_table_and_says_with_its_exit_code_whether_all_is_well(world, tmp_path):
    out = tmp_path / "out.jsonl"
    result = CliRunner().invoke(app, ["data", "check", str(world / "labels/auto.csv"), "--write", str(out)])
    assert result.exit_code == 0, result.output
    assert "auto-avsr" in result.output
    assert "Lengths in seconds" in result.output
    assert len(manifest.read(out)) == 3
    (tmp_path / "x.csv").write_text("d,a.mp4,5,0,x\n")
    result = CliRunner().invoke(app, ["data", "check", str(tmp_path / "x.csv")])
    assert result.exit_code == 1
    assert ":1: " in result.output
