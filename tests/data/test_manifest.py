"""Every layout of label files gives the same clips; wrong lines are refused with their numbers."""

import gzip
import json
import os
import re
from dataclasses import dataclass

import numpy as np
import pytest
from typer.testing import CliRunner

from omni_avsr.cli.app import app
from omni_avsr.data import check, manifest
from omni_avsr.data.loading import ClipDataset, ClipKey, UnreadableClip
from omni_avsr.data.noise import babble_of_clips
from omni_avsr.errors import InputError
from omni_avsr.media import streams
from omni_avsr.media.folders import media_files
from omni_avsr.run import no_progress
from omni_avsr.tasks import SAMPLES_PER_VIDEO_FRAME
from tests.support.corpus import SENTENCES, write_clip

FRAMES = (10, 12, 15)


@dataclass(frozen=True)
class Row:
    """What the label files say of a clip."""

    id: str
    frames: int
    text: str
    tokens: str

    @property
    def samples(self) -> int:
        return self.frames * SAMPLES_PER_VIDEO_FRAME


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A root with three clips laid out as LRS3, their texts, and a label file of each format."""
    root = tmp_path_factory.mktemp("world with spaces and ü")
    labels = root / "labels"
    labels.mkdir()
    token_of = numbered_pieces()
    write_lines(labels / "units.txt", [f"{piece} {token}" for piece, token in token_of.items()])
    rows = []
    for index, frames in enumerate(FRAMES):
        text = SENTENCES[index]
        tokens = [str(token_of[f"▁{word}"]) for word in text.upper().split()]
        id = f"corpus_video_seg16s/test/{index:05}"
        rows.append(Row(id, frames, text, " ".join(tokens)))
    write_media_and_texts(root / "corpus", rows)
    write_label_files(root, rows)
    return root


def numbered_pieces():
    """A number for each word of the sentences, as sentencepiece would write it."""
    words = " ".join(SENTENCES).upper().split()
    pieces = sorted({f"▁{word}" for word in words})
    return {piece: number for number, piece in enumerate(pieces, start=1)}


def write_media_and_texts(folder, rows):
    rng = np.random.default_rng(0)
    videos = folder / "corpus_video_seg16s/test"
    texts = folder / "corpus_text_seg16s/test"
    for path in (videos, texts):
        path.mkdir(parents=True)
    for index, row in enumerate(rows):
        write_clip(videos, f"{index:05}", row.text, row.frames, rng)
        (texts / f"{index:05}.txt").write_text(f"{row.text.upper()}\n")


def write_label_files(root, rows):
    labels = root / "labels"
    texts = [row.text for row in rows]
    for name in ("avh.wrd", "muavic.en", "mms.wrd"):
        write_lines(labels / name, texts)
    write_lines(
        labels / "llama.csv", [f"corpus,{row.id}.mp4,{row.frames},0,{row.text}" for row in rows]
    )
    write_lines(
        labels / "auto.csv", [f"corpus,{row.id}.mp4,{row.frames},{row.tokens}" for row in rows]
    )
    avhubert, muavic, mms_llama, jsonl = [str(root)], [str(root)], ["/"], []
    for row in rows:
        path = f"corpus/{row.id}"
        lengths = f"{row.frames}\t{row.samples}"
        avhubert.append(f"{row.id}\t{path}.mp4\t{path}.wav:{row.id}\t{lengths}")
        muavic.append(f"{row.id}\t{path}.mp4\t{path}.wav\t{lengths}")
        mms_llama.append(
            f"{row.id}\t{{TOY_ROOT}}/{path}.mp4\t{{TOY_ROOT}}/{path}.wav\t{row.frames}\t0\t4.2"
        )
        media = {"audio": f"../{path}.wav", "video": f"../{path}.mp4"}
        jsonl.append(json.dumps({"id": row.id, **media, "text": row.text}))
    write_lines(labels / "avh.tsv", avhubert)
    write_lines(labels / "muavic.tsv", muavic)
    write_lines(labels / "mms.tsv", mms_llama)
    write_lines(labels / "own.jsonl", jsonl)


def write_lines(file, lines):
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def content(clips):
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
    labels = world / "labels"
    if "tokens" in options:
        options = {**options, "tokens": labels / options["tokens"]}
    expected = manifest.load(labels / "llama.csv")
    assert expected.format == "llama-avsr"
    loaded = manifest.load(labels / name, **options)
    assert loaded.format == format
    assert content(loaded.clips) == content(expected.clips)
    assert [clip.id for clip in loaded.clips] == [clip.id for clip in expected.clips]
    first = 2 if name.endswith(".tsv") else 1
    assert loaded.lines == [first, first + 1, first + 2]


def test_a_folder_of_media_gives_clips_with_the_texts_beside_them(tmp_path):
    rng = np.random.default_rng(1)
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("both", "sound only", "video only"):
        write_clip(folder, name, "we talk", 11, rng)
    (folder / "both.txt").write_text("Text:  WE TALK {LG} NOW\nConf:  5\n")
    (folder / "sound only.mp4").unlink()
    (folder / "video only.wav").unlink()
    both, sound, video = manifest.read(folder)
    assert (both.id, both.text, both.frames) == ("both", "we talk now", 11)
    assert both.sound.suffix == ".wav"
    assert both.video.suffix == ".mp4"
    assert sound.video == sound.audio == folder / "sound only.wav"
    assert video.sound == folder / "video only.mp4"


def test_hidden_media_are_skipped(tmp_path):
    for name in ("a.mp4", ".b.mp4", ".trash/c.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert media_files(tmp_path) == [tmp_path / "a.mp4"]


def test_a_sentencepiece_model_stands_for_the_list_beside_it(world, tmp_path):
    file = world / "labels/auto.csv"
    model = tmp_path / "unigram.model"
    model.write_bytes(b"a model")
    units = tmp_path / "unigram_units.txt"
    with pytest.raises(InputError, match=r"no list of pieces and ids .*unigram_units\.txt"):
        manifest.read(file, tokens=model)
    units.write_text((world / "labels/units.txt").read_text())
    texts = [clip.text for clip in manifest.read(file, tokens=model)]
    assert texts == [clip.text for clip in manifest.read(file)]


def test_a_wrong_list_of_pieces_is_refused_with_its_line(world, tmp_path):
    units = tmp_path / "units.txt"
    units.write_text("▁SET 1\n\n▁WHITE\n")
    with pytest.raises(InputError, match=r"units\.txt, line 3: a piece and its id expected"):
        manifest.read(world / "labels/auto.csv", tokens=units)
    units.write_text("▁SET 1\n")
    with pytest.raises(InputError, match=r"line 1: token \d+ is not in .*units\.txt"):
        manifest.read(world / "labels/auto.csv", tokens=units)


def test_of_several_languages_that_of_the_folder_is_read(world, tmp_path):
    folder = tmp_path / "es"
    folder.mkdir()
    file = folder / "test.tsv"
    file.write_text((world / "labels/avh.tsv").read_text())
    (folder / "test.en").write_text("one\ntwo\nthree\n")
    (folder / "test.es").write_text("uno\ndos\ntres\n")
    assert [clip.text for clip in manifest.read(file)] == ["uno", "dos", "tres"]
    (folder / "test.es").rename(folder / "test.fr")
    with pytest.raises(InputError, match=r"several languages: test\.en, test\.fr"):
        manifest.read(file)


def test_a_tsv_in_the_current_folder_is_read(world, monkeypatch):
    monkeypatch.chdir(world / "labels")
    assert content(manifest.read("avh.tsv")) == content(manifest.read("llama.csv"))


def test_frames_that_are_not_given_are_taken_from_the_video(world, tmp_path):
    clip = manifest.read(world / "labels/llama.csv")[0]
    file = tmp_path / "x.jsonl"
    write_lines(file, [json.dumps({"video": str(clip.video), "text": "a"})])
    assert manifest.read(file)[0].frames == clip.frames


def test_all_lines_of_a_text_are_read(tmp_path):
    file = tmp_path / "x.txt"
    file.write_text("this is\nmine\n")
    assert manifest.transcript(file) == "this is mine"
    file.write_bytes("café".encode("latin-1"))
    with pytest.raises(InputError, match=r"x\.txt is not UTF-8"):
        manifest.transcript(file)


def test_of_files_that_differ_only_in_their_suffix_the_preferred_one_is_taken(tmp_path, caplog):
    for name in ("a.mov", "a.mp4", "a.MP3", "a.wav", "b.wma", "b.aiff", "c.gif"):
        (tmp_path / name).touch()
    found = [(clip.video.name, clip.audio.name) for clip in manifest.read(tmp_path)]
    assert found == [("a.mp4", "a.wav"), ("b.aiff", "b.aiff"), ("c.gif", "c.gif")]
    assert "a.mov (a.mp4 is taken)" in caplog.text
    assert "a.MP3 (a.wav is taken), " in caplog.text
    assert len(caplog.records) == 2


def test_many_files_that_are_left_out_are_counted(tmp_path, caplog):
    for index in range(7):
        (tmp_path / f"{index}.wav").touch()
        (tmp_path / f"{index}.mp3").touch()
    assert len(manifest.read(tmp_path)) == 7
    assert "4.mp3 (4.wav is taken) and 2 more" in caplog.text
    assert "5.mp3" not in caplog.text


def test_all_clips_take_the_audio_track_that_is_asked_for(world, tmp_path):
    file = world / "labels/llama.csv"
    assert [clip.track for clip in manifest.read(file)] == [None] * 3
    clips = manifest.read(file, track=2)
    assert [clip.track for clip in clips] == [2] * 3
    manifest.write(clips, tmp_path / "new/x.jsonl")
    assert [clip.track for clip in manifest.read(tmp_path / "new/x.jsonl")] == [2] * 3


def test_what_is_written_is_read_back_from_anywhere(world, tmp_path, monkeypatch):
    clips = manifest.read(world / "labels/llama.csv")
    monkeypatch.chdir(tmp_path)
    manifest.write(clips, "out.jsonl")
    assert content(manifest.read("out.jsonl")) == content(clips)
    assert [clip.frames for clip in manifest.read("out.jsonl")] == list(FRAMES)


def test_paths_are_found_below_the_root_with_or_without_the_dataset(world, tmp_path):
    file = tmp_path / "labels/x.csv"
    file.parent.mkdir()
    file.write_text("corpus,corpus_video_seg16s/test/00000.mp4,10,0,set white\n")
    assert manifest.read(file, world)[0].video.is_file()
    assert manifest.read(file, world / "corpus")[0].video.is_file()


def test_a_windows_file_with_a_byte_order_mark_and_strange_letters_is_read(tmp_path):
    file = tmp_path / "x.csv"
    text = "\ufeffds,ä b/1.mp4,5,0,größe\u2028ja\r\n\r\nds,2.mp4,6,0,TWO\r\n"
    file.write_bytes(text.encode())
    first, second = manifest.read(file)
    assert (first.id, first.text) == ("ä b/1", "größe\u2028ja")
    assert second.text == "two"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ('"well, he said ""yes"""', 'well, he said "yes"'),
        ('"yes" he said "no"', '"yes" he said "no"'),
        ('""', ""),
        ('"', '"'),
    ],
)
def test_a_text_in_quotes_is_read_as_programs_write_it(tmp_path, written, read):
    (tmp_path / "x.csv").write_text(f"{{d}},a.mp4,5,0,{written}\n")  # and no JSON
    (clip,) = manifest.read(tmp_path / "x.csv")
    assert clip.text == read


@pytest.mark.parametrize(
    ("name", "text", "options", "message"),
    [
        (
            "x.csv",
            "d,a.mp4,5,0,x\nd,b.mp4,5,0,y\nd,a.mp4,5,0,z\n",
            {},
            "x.csv: line 3: a is on line 1 too",
        ),
        ("x.csv", "d,a.mp4,5,1 2 3\n", {}, "line 1: no text in"),
        ("x.csv", "d,,5,0,x\n", {}, "line 1: '' is not the path of a file"),
        ("x.csv", "d,a.mp4,-5,0,x\n", {}, "line 1: '-5' is not a whole number of frames"),
        ("x.csv", f"d,{'a' * 5000}.mp4,5\n", {}, "line 1: 3 fields, 5 expected"),
        (
            "x.csv",
            "d,a.mp4,5,1 2 3\n",
            {"format": "usr"},
            "only token ids; give the list of pieces and ids with --tokens",
        ),
        (
            "x.csv",
            "d,a.mp4,5,0,x\n",
            {"format": "lrs4"},
            "unknown format 'lrs4'; available: llama-avsr",
        ),
        (
            "x.tsv",
            "/\na\ta.mp4\ta.wav\t5\t3200\n",
            {},
            "x.tsv has no text: there is no x.wrd next to it",
        ),
        (
            "x.jsonl",
            '{"id": "a", "text": "b"}\n',
            {},
            "line 1: an object with the path of an 'audio' or a 'video' expected",
        ),
        ("x.jsonl", '{"audio": 5}\n', {}, "line 1: 'audio' must be a string, not 5"),
        ("x.jsonl", '{"audio": "a", "text": 0}\n', {}, "line 1: 'text' must be a string, not 0"),
        ("x.jsonl", '{"audio": "a", "text": ["b"]}\n', {}, "line 1: 'text' must be a string"),
        ("x.jsonl", '{"audio": "a", "track": 0}\n', {}, "line 1: 'track' must be the number"),
        ("x.jsonl", '{"audio": "a", "track": true}\n', {}, "line 1: 'track' must be the number"),
        ("x.jsonl", '{"audio": "a", "id": "\\ud800"}\n', {}, "line 1: not JSON"),
        ("x.mp4", "", {}, "x.mp4 is not a label file: of media, give the folder"),
        ("x.tsv", "/data\n", {"format": "avhubert"}, "x.tsv has no text"),
        ("x.jsonl", '{"id": "a"\n', {}, "line 1: not JSON"),
        ("x.csv", "\n\n", {}, "x.csv holds no clips: no line names one"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(tmp_path, name, text, options, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=re.escape(message)) as refused:
        manifest.read(tmp_path / name, **options)
    assert "\n" not in str(refused.value)


def test_the_first_problems_are_named_and_the_others_counted(tmp_path):
    file = tmp_path / "x.csv"
    write_lines(file, ["wrong"] * 7)
    with pytest.raises(InputError, match=r"line 5: 1 fields, 5 expected and 2 more$"):
        manifest.read(file)
    assert [problem.line for problem in manifest.load(file).problems] == list(range(1, 8))


def test_other_files_are_refused_by_their_first_odd_byte(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"d,a.mp4,5,0,caf\xe9\n")
    with pytest.raises(InputError, match=r"x\.csv is not UTF-8 text: byte 15 is 0xe9"):
        manifest.read(tmp_path / "x.csv")


def test_what_is_no_label_file_is_named_as_what_it_is(tmp_path):
    (tmp_path / "x.csv").write_bytes(gzip.compress(b"d,a.mp4,5,0,x\n"))
    with pytest.raises(InputError, match=r"x\.csv is not UTF-8 text: .* unpack it"):
        manifest.read(tmp_path / "x.csv")
    with pytest.raises(InputError, match=r"neither videos nor sounds; is .*x\.csv meant\?"):
        manifest.read(tmp_path)
    (tmp_path / "x.csv").rename(tmp_path / "x.gz")
    with pytest.raises(InputError, match=r"neither videos nor sounds, such as \.mp4"):
        manifest.read(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    for file in ("/dev/null", tmp_path / "pipe"):
        with pytest.raises(InputError, match="is neither a label file nor a folder of media"):
            manifest.read(file)
    with pytest.raises(InputError, match=r"label file .*gone\.csv does not exist"):
        manifest.read(tmp_path / "gone.csv")


def test_blank_lines_after_the_texts_of_a_tsv_are_no_texts(world, tmp_path):
    (tmp_path / "x.tsv").write_text((world / "labels/avh.tsv").read_text() + "\n\n")
    (tmp_path / "x.wrd").write_text("one\ntwo\n\n\n\n")
    assert [clip.text for clip in manifest.read(tmp_path / "x.tsv")] == ["one", "two", ""]


def test_a_path_may_be_absolute_and_an_id_may_be_null(world, tmp_path):
    video = manifest.read(world / "labels/llama.csv")[0].video
    (tmp_path / "x.csv").write_text(f"d,{video},10,0,set white\n")
    assert manifest.read(tmp_path / "x.csv")[0].video == video
    write_lines(tmp_path / "x.jsonl", [json.dumps({"id": None, "video": str(video)})])
    assert manifest.read(tmp_path / "x.jsonl")[0].id == video.stem


def test_a_placeholder_without_a_value_is_named(world, monkeypatch):
    monkeypatch.delenv("TOY_ROOT", raising=False)
    file = world / "labels/mms.tsv"
    message = r"line 2: \{TOY_ROOT\} is in the path: set the environment variable TOY_ROOT"
    with pytest.raises(InputError, match=message):
        manifest.read(file)
    assert manifest.read(file, world)[0].video.is_file()


def test_a_tsv_needs_one_text_per_clip(world, tmp_path):
    (tmp_path / "x.tsv").write_text((world / "labels/avh.tsv").read_text())
    (tmp_path / "x.wrd").write_text("one\ntwo\n")
    with pytest.raises(InputError, match=r"x\.wrd has 2 lines for the 3 clips of .*x\.tsv"):
        manifest.read(tmp_path / "x.tsv")


def test_a_check_counts_what_is_there(world):
    findings = check.check(manifest.load(world / "labels/llama.csv"), 0, False, no_progress)
    assert findings.problems == []
    assert findings.read == 3
    assert findings.frames == list(FRAMES)
    assert findings.wrong_frames == 0
    assert dict(findings.fps) == {25.0: 3}


@pytest.fixture
def faulty(tmp_path):
    """A label file with one good clip and one clip with each kind of fault."""
    folder = tmp_path / "d"
    folder.mkdir()
    names = ("fine", "torn", "late", "large", "gone")
    rng = np.random.default_rng(2)
    for name in names:
        write_clip(folder, name, "we talk", 20, rng)
    torn = folder / "torn.mp4"
    torn.write_bytes(torn.read_bytes()[:500])
    streams.write_audio(folder / "late.wav", np.ones(30 * SAMPLES_PER_VIDEO_FRAME, np.int16))
    streams.write_video(folder / "large.mp4", np.zeros((20, 288, 360), np.uint8))
    (folder / "gone.wav").unlink()
    (folder / "gone.mp4").unlink()
    file = tmp_path / "x.csv"
    lines = [f"d,{name}.mp4,19,0,we talk" for name in names]
    write_lines(file, [*lines, "d,fine.mp4"])
    return file


def test_a_check_finds_what_is_wrong(faulty):
    findings = check.check(manifest.load(faulty, faulty.parent), 0, False, no_progress)
    assert findings.read == 3
    assert findings.wrong_frames == 3
    expected = {
        2: "torn.mp4 cannot be read",
        3: "late.wav is 10.0 frames longer than late.mp4",
        4: "large.mp4 has 288 x 360 pixels, 96 x 96 expected",
        5: "gone.mp4 is missing",
        6: "2 fields, 5 expected",
    }
    problems = "\n".join(findings.problems)
    for line, words in expected.items():
        assert re.search(f"x.csv:{line}: .*{words}", problems)
    assert "x.csv:1:" not in problems


def test_the_sound_of_a_file_is_compared_with_its_picture(tmp_path):
    samples = np.ones(12 * SAMPLES_PER_VIDEO_FRAME, np.int16)
    streams.write_video(tmp_path / "a.mp4", np.zeros((20, 96, 96), np.uint8), samples)
    streams.write_video(tmp_path / "b.mp4", np.zeros((5, 96, 96), np.uint8))
    streams.write_audio(tmp_path / "c.wav", samples)
    findings = check.check(manifest.load(tmp_path), 0, False, no_progress)
    problems = "\n".join(findings.problems)
    assert re.search(r"a\.mp4: the sound is \d\.\d frames shorter than the picture", problems)
    assert re.search(r"b\.mp4 has no audio stream.* for VSR only", problems)
    assert re.search(r"c\.wav has no video stream.* for ASR only", problems)


def test_a_check_of_files_that_are_all_missing_asks_for_the_root(tmp_path):
    write_lines(tmp_path / "x.csv", [f"d,{'a' * 300}{i}.mp4,5,0,x" for i in range(2)])
    findings = check.check(manifest.load(tmp_path / "x.csv"), 0, False, no_progress)
    assert "no clip has its files: give --root" in findings.problems[-1]
    assert len(findings.problems) == 3


def test_a_clip_is_heard_on_its_own_audio_track(tmp_path):
    write_clip(tmp_path, "a", "we talk", 20, np.random.default_rng(0))
    (clip,) = manifest.read(tmp_path, track=2)
    assert isinstance(ClipDataset([clip])[ClipKey(0, 0)], UnreadableClip)
    with pytest.raises(InputError, match="none of 1 clips could be read"):
        babble_of_clips([clip], 0)
    findings = check.check(manifest.load(tmp_path, track=2), 0, False, no_progress)
    assert "a.wav has 1 audio tracks, there is no track 2" in findings.problems[0]
    (clip,) = manifest.read(tmp_path, track=1)
    assert not isinstance(ClipDataset([clip])[ClipKey(0, 0)], UnreadableClip)


def test_the_bins_of_a_histogram_are_whole_lengths():
    assert check.histogram([155, 155]) == [(155, 155, 2)]
    assert check.histogram([3, 1, 1]) == [(1, 1, 2), (2, 2, 0), (3, 3, 1)]
    assert check.histogram(range(20))[-2:] == [(15, 17, 3), (18, 19, 2)]


def run(*command):
    return CliRunner().invoke(app, [str(argument) for argument in command])


def test_data_check_prints_a_table_and_writes_the_clips(world, tmp_path):
    out = tmp_path / "out.jsonl"
    result = run("data", "check", world / "labels/auto.csv", "--write", out)
    assert result.exit_code == 0, result.output
    assert "auto-avsr" in result.output
    assert "Lengths in seconds" in result.output
    assert len(manifest.read(out)) == 3


def test_data_check_exits_with_1_if_something_is_wrong(tmp_path):
    file = tmp_path / "x.csv"
    file.write_text("d,a.mp4,5,0,x\n")
    result = run("data", "check", file)
    assert result.exit_code == 1
    assert ":1: " in result.output
