"""A model that was calibrated says how sure it is, and chooses what it decodes again."""

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import omni_avsr
from omni_avsr import transcribe
from omni_avsr.cli.app import app
from omni_avsr.data import manifest
from omni_avsr.decode.live import Live, played
from omni_avsr.errors import InputError
from omni_avsr.files import read_rows
from omni_avsr.measure.calibrate import calibrate
from omni_avsr.measure.evaluate import decode_file
from omni_avsr.settings import CalibrateSettings, DecodeSettings
from omni_avsr.tasks import Route, Task
from omni_avsr.toy import toy_corpus

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("espeakng_loader"), reason="no espeak: omni-avsr[toy]"
)

SHIPPED = Path(omni_avsr.__file__).parent / "tiny"
CLIPS = 200  # of the toy corpus; a tenth are for validation, and an eighth for tests
OPEN = {"toy_world": "open", "toy_clips": CLIPS}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of a copy of tiny that is not calibrated."""
    root = tmp_path_factory.mktemp("tiny")
    for folder in SHIPPED.iterdir():
        if folder.name.startswith("tiny-"):
            (root / folder.name).symlink_to(folder)
    model = root / "model"
    shutil.copytree(SHIPPED / "omni-avsr-st", model)
    config = model / "config.json"
    known = json.loads(config.read_text())
    config.write_text(json.dumps({**known, "calibration": {}, "ladders": {}}))
    return model


@pytest.fixture(scope="module")
def found(tiny):
    """What was fitted to a few clips; the model is calibrated then."""
    settings = CalibrateSettings(checkpoint=str(tiny), **OPEN)
    with pytest.raises(InputError, match="cannot tell when to doubt"):
        decode_file(DecodeSettings(checkpoint=str(tiny), task="auto", **OPEN), corpus=toy_corpus)
    return calibrate(settings, corpus=toy_corpus)


@pytest.fixture
def settings(tiny, found, tmp_path):
    return DecodeSettings(checkpoint=str(tiny), out=tmp_path / "hyp.jsonl", **OPEN)


def test_probabilities_are_closer_to_the_truth_and_stand_in_the_config(found, tiny):
    assert [own.task for own in found] == list(Task)
    assert all(own.after < min(0.1, own.before) for own in found)
    config = json.loads((tiny / "config.json").read_text())
    assert config["calibration"] == {str(own.task): own.weights for own in found}
    assert len(config["ladders"]) == 5


def test_decoding_says_how_sure_it_is_of_each_word(settings):
    (result,) = decode_file(replace(settings, snr=0.0), corpus=toy_corpus).results
    assert result.calibration_error < 0.15
    for row in read_rows(settings.out):
        assert len(row["probabilities"]) == len(row["hypothesis"].split())


def test_what_is_in_doubt_is_decoded_at_the_finest_rates_too(settings):
    (coarse,) = decode_file(
        replace(settings, audio_rate=16, video_rate=5), corpus=toy_corpus
    ).results
    (chosen,) = decode_file(replace(settings, rates="auto"), corpus=toy_corpus).results
    assert (chosen.begun, chosen.route) == ("AVSR (16,5)", Route(Task.AVSR, 4, 2))
    assert 0 < chosen.doubted < 1
    assert chosen.wer <= coarse.wer
    routes = {Route.from_row(row) for row in read_rows(settings.out)}
    assert routes == {Route(Task.AVSR, 16, 5), Route(Task.AVSR, 4, 2)}
    frugal = replace(settings, rates="auto", budget=9.0)
    (frugal_result,) = decode_file(frugal, corpus=toy_corpus).results
    assert frugal_result.doubted <= (9.0 - 8.125) / 25


def test_in_noise_more_is_looked_at(settings):
    hearing = replace(settings, task="auto", rates="auto")
    (clean,) = decode_file(hearing, corpus=toy_corpus).results
    (loud,) = decode_file(replace(hearing, snr=0.0), corpus=toy_corpus).results
    assert clean.begun == loud.begun == "ASR (16)"
    assert loud.doubted > clean.doubted


def test_files_and_captions_choose_their_rates(tiny, found):
    file = manifest.read(toy_corpus(DecodeSettings(**OPEN), ["test"])["test"])[0].audio
    chosen = transcribe(file, checkpoint=str(tiny), task="asr", rates="auto")
    coarse = transcribe(file, checkpoint=str(tiny), task="asr", audio_rate=16)
    fine = transcribe(file, checkpoint=str(tiny), task="asr", audio_rate=4)
    assert chosen.text in (coarse.text, fine.text)
    live = Live(str(tiny), task="asr", rates="auto")
    words = []
    for sound, _ in played(file):
        words += [word for caption in live.feed(sound) for word in caption.words]
    words += [word for caption in live.finish() for word in caption.words]
    assert words


def test_the_command_says_how_far_probabilities_are_off(tiny, found):
    arguments = ["calibrate", "--checkpoint", str(tiny), "--tasks", "asr", "--toy-world", "open"]
    result = CliRunner().invoke(app, [*arguments, "--toy-clips", str(CLIPS)])
    assert result.exit_code == 0
    assert "is calibrated" in result.output.replace("\n", " ")
    assert "ASR: probabilities of" in result.output


def test_an_evaluation_shows_what_the_model_chooses(tiny, found, tmp_path):
    arguments = ["evaluate", "--checkpoint", str(SHIPPED / "omni-avsr-st"), "--elastic"]
    arguments += ["--tasks", "asr", "--toy-clips", "64", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    (row,) = json.loads((tmp_path / "out" / "elastic.json").read_text())["rows"]
    wers = [point["wer"] for point in row["points"]]
    results = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    of_rate = {own["audio_rate"]: own["wer"] for own in results}
    assert wers[0] == of_rate[16]  # without any doubt it is the coarse rate alone
    assert row["points"][-1]["tokens"] == 50 / 16 + 50 / 4
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Where the model chooses" in page
    assert "How sure, and how right" in page


def test_captions_are_measured_while_the_clips_play(tmp_path):
    arguments = [
        "evaluate",
        "--checkpoint",
        "tiny",
        "--live",
        "--tasks",
        "asr",
        "--toy-clips",
        "16",
    ]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path)])
    assert result.exit_code == 0
    assert "until words settle" in result.output
    (row,) = json.loads((tmp_path / "live.json").read_text())["rows"]
    assert row["clips"] == 2
    assert row["wer"] < 0.5
    assert 0 < row["last"]["mean"] < row["without_computing"]["most"] < 2
    assert row["all"]["mean"] >= row["without_computing"]["mean"]
    assert 0 <= row["changed"] <= 1


def test_what_cannot_be_calibrated_is_refused(tiny, found):
    with pytest.raises(InputError, match="tiny is no folder"):
        calibrate(CalibrateSettings(checkpoint="tiny"))
    few = CalibrateSettings(checkpoint=str(tiny), toy_world="open", toy_clips=10)
    with pytest.raises(InputError, match="words of asr were decoded, 100 are needed"):
        calibrate(few, corpus=toy_corpus)
