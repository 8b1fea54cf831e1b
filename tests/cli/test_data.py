"""What `omni-avsr data check` prints of label files that hold little."""

import re

import pytest
from typer.testing import CliRunner

from omni_avsr.cli.app import app
from omni_avsr.errors import InputError


def test_a_file_without_a_single_clip_is_shown_with_its_problems(tmp_path):
    file = tmp_path / "labels.jsonl"
    file.write_text('{"id": 1}\n')
    result = CliRunner().invoke(app, ["data", "check", str(file)])
    assert result.exit_code == 1, result.exception
    assert "labels.jsonl:1: " in result.output


def check(*arguments):
    command = ["data", "check", *map(str, arguments)]
    return CliRunner().invoke(app, command, standalone_mode=False)


def test_clips_of_unknown_length_are_counted_and_not_drawn(tmp_path):
    file = tmp_path / "labels.jsonl"
    file.write_text('{"video": "a.mp4"}\n{"video": "b.mp4", "frames": 50}\n')
    output = check(file).output
    assert "clips of unknown length" in output
    assert re.search(r"2 +│ 2 +│ 1", output)  # the only bin is from 2 to 2 seconds


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("labels.csv", "--write would replace"),
        ("link.csv", "--write would replace"),
        (".", "is a folder: give a file"),
        ("", "is a folder: give a file"),
    ],
)
def test_clips_are_not_written_over_what_is_checked(tmp_path, monkeypatch, target, message):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "labels.csv"
    file.write_text("d,a.mp4,5,0,x\n")
    (tmp_path / "link.csv").symlink_to(file)
    with pytest.raises(InputError, match=message):
        raise check(file, "--write", target).exception
    assert file.read_text() == "d,a.mp4,5,0,x\n"
