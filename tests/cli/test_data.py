"""What `omni-avsr data check` prints of label files that hold little."""

from typer.testing import CliRunner

from omni_avsr.cli.app import app


def test_a_file_without_a_single_clip_is_shown_with_its_problems(tmp_path):
    file = tmp_path / "labels.jsonl"
    file.write_text('{"id": 1}\n')
    result = CliRunner().invoke(app, ["data", "check", str(file)])
    assert result.exit_code == 1, result.exception
    assert "labels.jsonl:1: " in result.output
