"""What the doctor says of a machine: good, or a remedy."""

import sys
from types import SimpleNamespace

from typer.testing import CliRunner

from omni_avsr.cli.app import app, doctor


def test_this_machine_is_well():
    findings = {finding.name: finding for finding in doctor.examine()}
    assert not [finding for finding in findings.values() if finding.fails]
    assert list(findings) == ["packages", "GPU", "FFmpeg", "face detector", "toy corpus", "disk", "self-test"]
    assert "transformers 5." in findings["packages"].found
    assert findings["toy corpus"].found.startswith("spoke ")
    assert "tokens of two seconds" in findings["self-test"].found


def test_each_lack_has_its_remedy(monkeypatch):
    monkeypatch.setattr(doctor, "requires", lambda _: ["torch>=99", "rich>=1", "nothing>=2", "pytest; extra == 'dev'"])
    monkeypatch.setattr(doctor, "find_spec", lambda _: None)
    monkeypatch.setattr(doctor, "CODECS", {"h264", "none-such"})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9))
    monkeypatch.setitem(sys.modules, "omni_avsr.decode.decode", None)
    findings = {finding.name: finding for finding in doctor.examine()}
    assert findings["packages"].remedy == "pip install 'torch>=99' 'nothing>=2'"
    assert "nothing missing" in findings["packages"].found
    assert findings["toy corpus"].remedy == "pip install 'omni-avsr[toy]'"
    assert findings["FFmpeg"].remedy.startswith("it lacks none-such: ")
    assert findings["disk"].remedy.startswith("free some")
    assert findings["self test"].found.startswith("ModuleNotFoundError")
    assert {name for name, finding in findings.items() if finding.fails} == {"packages", "FFmpeg", "self test"}


def test_the_command_prints_a_line_each_and_fails_if_one_does(monkeypatch):
    monkeypatch.setattr(doctor, "examine", lambda: iter([doctor.Finding("disk", "40 GB")]))
    result = CliRunner().invoke(app, ["doctor"])
    assert (result.exit_code, result.output) == (0, "good disk: 40 GB\n")
    monkeypatch.setattr(doctor, "examine", lambda: iter([doctor.Finding("av", "none", "install [it]", True)]))
    result = CliRunner().invoke(app, ["doctor"])
    assert (result.exit_code, result.output) == (1, "fails av: none\n      install [it]\n")
