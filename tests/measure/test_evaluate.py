"""The whole grid at once, its intervals, comparisons, averages, and what a model is made of."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from omni_avsr import OmniAVSR
from omni_avsr.cli.app import app
from omni_avsr.data.noise import make_noise
from omni_avsr.decode import decode as decoding
from omni_avsr.decode.hypothesis import Hypothesis
from omni_avsr.errors import InputError
from omni_avsr.files import as_lines
from omni_avsr.measure.compare import compare
from omni_avsr.measure.cost import inspect
from omni_avsr.measure.evaluate import evaluate
from omni_avsr.measure.results import interval, is_measured, read_results, resampled
from omni_avsr.media import streams
from omni_avsr.settings import EvaluateSettings
from omni_avsr.tasks import CLEAN, Condition, Route, Task
from omni_avsr.text import normalise
from omni_avsr.train.average import average
from omni_avsr.train.fit import fit
from tests.support.interruptions import Killed, kill, killed_after
from tests.support.small_llm import TARGETS, write_small_llm

CLIPS = 6  # in the test file


@pytest.fixture(scope="session")
def run(small_settings, tokenizer_file, tmp_path_factory):
    """The folder of a run that has validated after each of four steps and kept three of them."""
    root = tmp_path_factory.mktemp("run")
    small = replace(
        small_settings,
        llm=str(write_small_llm(root / "llm", tokenizer_file)),
        lora_targets=TARGETS,
        max_steps=4,
        valid_every=1,
        keep=3,
        valid_clips=1,
        lr=0.05,
        logger="none",
        out=root / "one",
    )
    fit(small)
    return small.out


@pytest.fixture
def settings(run, files, tmp_path):
    return EvaluateSettings(
        checkpoint=str(run), data=files["test"], max_new_tokens=6, out=tmp_path / "evaluation"
    )


def without_times(results):
    return [replace(result, decode_seconds=0.0) for result in results]


def texts(evaluation):
    return [(hypothesis.id, hypothesis.hypothesis) for hypothesis in evaluation.hypotheses]


def test_the_grid_is_every_task_at_every_rate_in_every_noise_and_the_same_again(settings):
    grid = replace(settings, snr=("clean", "0"), noise=("babble", "white"))
    evaluation = evaluate(grid)
    routes = [result.route for result in evaluation.results if result.condition == CLEAN]
    assert len(set(routes)) == len(routes) == 8
    white = [result.route for result in evaluation.results if result.condition.noise == "white"]
    assert sorted(white) == [route for route in sorted(routes) if route.task.hears]
    assert len(evaluation.hypotheses) == CLIPS * (8 + 6 + 6)
    again = evaluate(grid)
    assert without_times(again.results) == without_times(evaluation.results)
    assert again.hypotheses == evaluation.hypotheses
    assert read_results(settings.out) == again.results


def count_batches(monkeypatch):
    """Returns a list that gets an item for each batch that is decoded."""
    encode = decoding._encode
    batches = []

    def counted(*arguments):
        batches.append(arguments)
        return encode(*arguments)

    monkeypatch.setattr(decoding, "_encode", counted)
    return batches


def test_killed_decoding_of_a_grid_is_resumed(settings, tmp_path, monkeypatch):
    grid = replace(settings, snr=("clean", "0"), tasks=(Task.ASR,), max_frames=40)
    with monkeypatch.context() as patch:
        batches = count_batches(patch)
        whole = evaluate(replace(grid, out=tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "_encode", killed_after(3, decoding._encode))
        with pytest.raises(Killed):
            evaluate(grid)
    assert not is_measured(grid.out)
    remaining = count_batches(monkeypatch)
    resumed = evaluate(grid)
    assert len(remaining) == len(batches) - 3 > 0
    assert [result.wer for result in resumed.results] == [result.wer for result in whole.results]
    assert texts(resumed) == texts(whole)
    assert sorted(os.listdir(grid.out)) == ["hypotheses.jsonl", "results.json"]


def test_an_evaluation_that_is_killed_before_its_report_is_resumed(settings, monkeypatch):
    grid = replace(settings, tasks=(Task.ASR,))
    with pytest.raises(Killed):
        evaluate(grid, write_report=kill)
    assert (grid.out / "hypotheses.jsonl").is_file()
    assert not is_measured(grid.out)
    reported = []

    def write_report(evaluation):
        assert not is_measured(grid.out)  # the results mark the end
        reported.append(evaluation)
        (grid.out / "report.html").write_text("a report")

    monkeypatch.setattr(decoding, "_encode", None)  # nothing is decoded again
    evaluation = evaluate(grid, write_report=write_report)
    assert reported == [evaluation]
    assert read_results(grid.out) == evaluation.results
    assert sorted(os.listdir(grid.out)) == ["hypotheses.jsonl", "report.html", "results.json"]


def test_an_evaluation_in_the_folder_of_another_is_not_measured_until_it_has_finished(settings):
    evaluate(replace(settings, tasks=(Task.ASR,)))
    assert is_measured(settings.out)
    with pytest.raises(Killed):
        evaluate(replace(settings, tasks=(Task.VSR,)), write_report=kill)
    assert not is_measured(settings.out)


def test_only_what_is_asked_for_is_measured(settings):
    asked = replace(
        settings,
        tasks=(Task.ASR, Task.VSR),
        audio_rates=(16,),
        video_rates=(2, 5),
        snr=("5",),
    )
    (result,) = evaluate(asked).results  # lips do not hear noise
    assert result.route == Route(Task.ASR, 16)
    with pytest.raises(InputError, match="audio rate 3 was not trained"):
        evaluate(replace(settings, audio_rates=(3,)))
    with pytest.raises(InputError, match="'loud' is neither clean nor a signal-to-noise"):
        evaluate(replace(settings, snr=("loud",)))


def test_noise_may_be_a_folder_of_sounds(settings, tmp_path):
    folder = tmp_path / "sounds"
    for name, level in (("a/above.wav", 1000), ("b/below.wav", -1000)):
        (folder / name).parent.mkdir(parents=True)
        streams.write_audio(folder / name, np.full(20_000, level, np.int16))
    condition = Condition(0.0, str(folder))
    noise = make_noise(condition, [], 1)
    speech = np.sin(np.arange(8_000)).astype(np.float32)
    signs = set()
    for seed in range(8):
        mixed, _ = noise(speech, None, np.random.default_rng(seed))
        added = mixed.astype(np.float64) - speech
        ratio = 10 * np.log10(np.mean(speech**2) / np.mean(added**2))
        assert ratio == pytest.approx(0, abs=0.1)
        signs.add(np.sign(added.mean()))
    assert signs == {-1.0, 1.0}  # each sound is drawn for some clips
    one_route = replace(settings, tasks=(Task.ASR,), audio_rates=(4,))
    (result,) = evaluate(replace(one_route, snr=("0",), noise=(str(folder),))).results
    assert result.condition == condition


def test_the_command_writes_all_that_it_has_measured(settings):
    arguments = [
        *("--checkpoint", settings.checkpoint),
        *("--data", str(settings.data)),
        *("--max-new-tokens", "6"),
        *("--out", str(settings.out)),
        *("--snr", "clean,0"),
        *("--normaliser", "13a"),
    ]
    shown = CliRunner().invoke(app, ["evaluate", *arguments])
    assert shown.exit_code == 0, shown.output
    assert "normalised by '13a'" in shown.output
    assert sorted(os.listdir(settings.out)) == ["hypotheses.jsonl", "report.html", "results.json"]
    results = read_results(settings.out)
    assert len(results) == 8 + 6
    for result in results:
        assert result.normaliser == "13a"
        assert result.wer_low <= result.wer <= result.wer_high
    assert "95 % interval" in (settings.out / "report.html").read_text()


def hypothesis(reference, text):
    return Hypothesis("a clip", reference, text, Route(Task.ASR, 4))


def test_the_bootstrap_interval_is_right_where_the_answer_is_known():
    wrong = np.random.default_rng(0).random(400) < 0.2
    low, high = interval([hypothesis("yes", "no" if error else "yes") for error in wrong])
    wer = wrong.mean()
    half_width = 1.96 * np.sqrt(wer * (1 - wer) / 400)  # of a binomial
    assert wer - low == pytest.approx(half_width, rel=0.15)
    assert high - wer == pytest.approx(half_width, rel=0.15)
    half_wrong = hypothesis("one two", "one")
    assert interval([half_wrong, half_wrong]) == (0.5, 0.5)


def test_two_models_share_the_draws_of_their_clips():
    words = np.full(50, 6)
    first = resampled(np.ones(50, int), words)
    second = resampled(np.full(50, 2), words)
    assert np.allclose(second - first, 1 / 6)


def write_scores(folder, errors):
    """Writes hypotheses of six words each with so many errors."""
    rows = []
    for number, count in enumerate(errors):
        row = {**Route(Task.ASR, 4).as_row(), **CLEAN.as_row()}
        rows.append({**row, "id": str(number), "errors": int(count), "words": 6})
    folder.mkdir()
    (folder / "hypotheses.jsonl").write_text(as_lines(rows))


def test_a_comparison_tells_a_real_difference_from_chance(tmp_path):
    rng = np.random.default_rng(1)
    errors = rng.integers(0, 3, 200)
    fewer = np.maximum(errors - (rng.random(200) < 0.4), 0)
    write_scores(tmp_path / "first", errors)
    write_scores(tmp_path / "better", fewer)
    write_scores(tmp_path / "shuffled", rng.permutation(errors))
    (better,) = compare(tmp_path / "first", tmp_path / "better")
    assert better.real
    assert better.second < better.first
    (same,) = compare(tmp_path / "first", tmp_path / "shuffled")
    assert not same.real
    arguments = ["compare", str(tmp_path / "first"), str(tmp_path / "better")]
    assert "better" in CliRunner().invoke(app, arguments).output
    with pytest.raises(InputError, match=r"there is no .*hypotheses\.jsonl"):
        compare(tmp_path / "first", tmp_path)


@pytest.mark.parametrize("row", ['{"id": "a"}', "[1]", "3"])
def test_a_comparison_of_other_rows_is_refused(tmp_path, row):
    write_scores(tmp_path / "first", [1])
    (tmp_path / "hypotheses.jsonl").write_text(row)
    with pytest.raises(InputError, match=r"hypotheses\.jsonl holds other rows than"):
        compare(tmp_path / "first", tmp_path)


def test_a_comparison_leaves_out_clips_without_a_text(tmp_path):
    for name, errors in (("first", 6), ("second", 0)):
        write_scores(tmp_path / name, [0, 3])
        row = {**Route(Task.ASR, 4).as_row(), **CLEAN.as_row(), "id": "no text"}
        with (tmp_path / name / "hypotheses.jsonl").open("a") as file:
            file.write(as_lines([{**row, "errors": errors, "words": 0}]))
    (same,) = compare(tmp_path / "first", tmp_path / "second")
    assert (same.clips, same.first, same.second) == (2, 0.25, 0.25)


def test_a_file_without_texts_is_refused_before_anything_is_decoded(settings, monkeypatch):
    monkeypatch.setattr(decoding, "_encode", None)
    labels = settings.data.with_name("textless.csv")
    lines = settings.data.read_text().splitlines()
    labels.write_text("".join(line.rsplit(",", 1)[0] + ",?!\n" for line in lines))
    with pytest.raises(InputError, match=r"no readable clip of .*textless\.csv has a text"):
        evaluate(replace(settings, data=labels, normaliser="13a"))
    assert not settings.out.exists()


def test_an_output_that_is_a_file_is_refused_before_anything_is_loaded(settings, monkeypatch):
    monkeypatch.setattr("omni_avsr.measure.evaluate.load_decoder", None)
    settings.out.write_text("a file")
    for out in (settings.out, settings.out / "below"):
        with pytest.raises(InputError, match=r"evaluation is a file, a folder is needed"):
            evaluate(replace(settings, out=out))
    assert settings.out.read_text() == "a file"


def test_lips_alone_are_not_measured_in_noise_alone(settings):
    with pytest.raises(InputError, match="add clean to --snr"):
        EvaluateSettings(tasks=(Task.VSR,), snr=("0",))
    twice = replace(settings, snr=("0", "clean", "0.0"), noise=("babble", "babble"))
    assert twice.conditions == [CLEAN, Condition(0.0, "babble")]


def test_an_average_is_the_mean_of_the_last_checkpoints(run, tmp_path):
    chosen = average(run, 2, tmp_path / "mean")
    assert [path.stem for path in chosen] == ["step=3", "step=4"]
    first, second = (torch.load(path, weights_only=True)["state_dict"] for path in chosen)
    weights = OmniAVSR.from_pretrained(tmp_path / "mean").state_dict()
    assert len(first) > 10
    changed = 0
    for name in first:
        mean = (first[name] + second[name]) / 2
        assert torch.allclose(weights[name.removeprefix("model.")], mean, atol=1e-6)
        changed += not torch.equal(first[name], second[name])
    assert changed
    with pytest.raises(InputError, match="has 3 checkpoints, 9 are needed: train with --keep 9"):
        average(run, 9, tmp_path / "other")


@pytest.fixture(scope="session")
def facts(run):
    """What `omni-avsr info` says of the run."""
    return inspect(str(run))


def test_info_counts_the_parameters_that_there_are(run, facts):
    parts = dict(facts.parameters)
    total = parts.pop("total")
    del parts["trainable"]
    assert sum(parts.values()) == total
    model = OmniAVSR.from_pretrained(run / "model")
    assert total == sum(weight.numel() for weight in model.parameters())
    cost = {cost.route: cost for cost in facts.costs}[Route(Task.ASR, 4)]
    plain = sum(weight.numel() for weight in model.llm.get_base_model().parameters())
    assert cost.active_parameters < plain + parts["audio encoder"] + parts["projectors"]


def test_info_names_a_model_that_is_not_there(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="no model 'nothing-here': it is neither a run nor"):
        inspect("nothing-here")


def test_info_shows_that_fewer_tokens_cost_less(facts):
    costs = {cost.route: cost for cost in facts.costs}
    fine, coarse = Route(Task.AVSR, 4, 2), Route(Task.AVSR, 16, 5)
    assert fine.tokens_per_second == 25.0
    assert coarse.tokens_per_second == 8.125
    fine, coarse = costs[fine], costs[coarse]
    assert fine.llm_gflops_per_second > 1.5 * coarse.llm_gflops_per_second
    assert fine.encoder_gflops_per_second == coarse.encoder_gflops_per_second
    assert fine.kept_megabytes_per_second > 1.5 * coarse.kept_megabytes_per_second
    ratio = fine.training_gflops_per_second / fine.llm_gflops_per_second
    assert 2 < ratio < 3  # forward and backward, without gradients of frozen weights


def test_info_prints_a_table_or_json(run, facts, monkeypatch):
    known = {str(run): facts}
    monkeypatch.setattr("omni_avsr.measure.cost.inspect", lambda name, towers: known[name])
    assert facts.trained["max_steps"] == 4
    assert "AVSR (4,2)" in CliRunner().invoke(app, ["info", str(run)]).output
    printed = json.loads(CliRunner().invoke(app, ["info", str(run), "--json"]).output)
    assert printed["parameters"] == facts.parameters
    assert printed["costs"][0]["llm_tokens_per_second"] == facts.costs[0].route.tokens_per_second


@pytest.mark.parametrize(
    ("normaliser", "text", "expected"),
    [
        ("lower", "Hello, World!", "hello, world!"),
        ("13a", "Hello, World! It's 3.5 -- e.g. good-bye.", "hello world it's 3.5 e g good-bye"),
        ("whisper", "Mr. Smith isn't twenty-one!", "mister smith is not 21"),
    ],
)
def test_a_normaliser_does_what_its_name_says(normaliser, text, expected):
    assert normalise(text, normaliser) == expected


def test_an_unknown_normaliser_is_refused():
    message = "unknown normaliser 'upper'; available: lower, 13a, whisper"
    with pytest.raises(InputError, match=message):
        normalise("x", "upper")
    with pytest.raises(InputError, match=message):
        EvaluateSettings(normaliser="upper")
