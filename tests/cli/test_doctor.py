"""What the doctor finds on a machine: it is good, or there is a remedy."""

import sys
from types import SimpleNamespace

from typer.testing import CliRunner

from omni_avsr.cli import doctor
from omni_avsr.cli.app import app
from omni_avsr.cli.doctor import Finding
from omni_avsr.media import faces

REQUIREMENTS = ["torch>=99", "rich>=1", "nothing>=2", "pytest; extra == 'dev'"]
CHECKS = [
    "packages",
    "GPU",
    "FFmpeg",
    "face detector",
    "toy corpus",
    "quantised LLMs",
    "disk",
    "self-test",
]


def installed_version(package):
    """Version 1 of everything, but for what is missing."""
    return None if package in ("nothing", "bitsandbytes") else "1.0"


def examined():
    return {finding.name: finding for finding in doctor.examine()}


def test_this_machine_is_well():
    findings = examined()
    assert not [finding for finding in findings.values() if finding.fails]
    assert list(findings) == CHECKS
    assert "transformers 5." in findings["packages"].found
    assert findings["toy corpus"].found.startswith("spoke ")
    assert "tokens of two seconds" in findings["self-test"].found


def test_what_is_missing_has_its_remedy(monkeypatch):
    monkeypatch.setattr(doctor, "requires", lambda _: REQUIREMENTS)
    monkeypatch.setattr(doctor, "find_spec", lambda _: None)
    monkeypatch.setattr(doctor, "_installed_version", installed_version)
    monkeypatch.setattr(doctor, "CODECS", {"h264", "none-such"})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9))
    monkeypatch.setitem(sys.modules, "omni_avsr.decode.decode", None)
    findings = examined()
    assert findings["packages"].remedy == "pip install 'torch>=99' 'nothing>=2'"
    assert "nothing missing" in findings["packages"].found
    assert findings["toy corpus"].remedy == "pip install 'omni-avsr[toy]'"
    assert findings["quantised LLMs"].remedy == "pip install 'omni-avsr[quantize]'"
    assert findings["FFmpeg"].remedy.startswith("it lacks none-such: ")
    assert findings["disk"].remedy.startswith("free some space")
    assert findings["self-test"].found.startswith("ModuleNotFoundError")
    failed = {name for name, finding in findings.items() if finding.fails}
    assert failed == {"packages", "FFmpeg", "self-test"}


def test_without_a_detector_it_says_where_one_is(monkeypatch, tmp_path):
    monkeypatch.setenv("OMNI_AVSR_CACHE", str(tmp_path))
    monkeypatch.delenv("OMNI_AVSR_FACE_DETECTOR", raising=False)
    finding = doctor.detector()
    assert not finding.fails
    assert "only raw video needs it" in finding.found
    assert "--detector" in finding.remedy
    assert "omni-avsr doctor --fetch" in finding.remedy


def test_fetch_downloads_the_detector_or_says_why_not(monkeypatch, tmp_path):
    monkeypatch.setenv("OMNI_AVSR_CACHE", str(tmp_path))
    monkeypatch.delenv("OMNI_AVSR_FACE_DETECTOR", raising=False)
    monkeypatch.setattr(faces, "_download", lambda file: "the download failed: no network")
    result = CliRunner().invoke(app, ["doctor", "--fetch"])
    assert result.exit_code == 1
    assert "fails face detector: not installed" in result.output
    assert "the download failed: no network" in result.output


def test_the_command_prints_each_finding_and_fails_if_one_does(monkeypatch):
    good = Finding("disk", "40 GB")
    lacking = Finding("toy", "no voices", "install them")
    failing = Finding("av", "none", "install [it]", fails=True)
    monkeypatch.setattr(doctor, "examine", lambda fetch: iter([good, lacking]))
    result = CliRunner().invoke(app, ["doctor"])
    expected = "good disk: 40 GB\nlacks toy: no voices\n      install them\n"
    assert (result.exit_code, result.output) == (0, expected)
    monkeypatch.setattr(doctor, "examine", lambda fetch: iter([failing]))
    result = CliRunner().invoke(app, ["doctor"])
    assert (result.exit_code, result.output) == (1, "fails av: none\n      install [it]\n")
