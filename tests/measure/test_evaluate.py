"""The whole grid in one go, its intervals, comparisons, averages, and what a model is made of."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from omni_avsr import OmniAVSR
from omni_avsr.cli.app import app
from omni_avsr.decode import decode as decoding
from omni_avsr.decode.decode import evaluate, make_noise
from omni_avsr.measure.compare import compare
from omni_avsr.measure.cost import inspect
from omni_avsr.measure.results import interval, resampled
from omni_avsr.media import streams as media
from omni_avsr.settings import EvaluateSettings, TrainSettings
from omni_avsr.text import normalise
from omni_avsr.train.average import average
from omni_avsr.train.fit import fit
from tests.support.corpus import write_split


@pytest.fixture(scope="module")
def run(tower_folders, tmp_path_factory):
    """A trained run with checkpoints kept, and its test file."""
    root = tmp_path_factory.mktemp("run")
    files = {split: str(write_split(root, split, 6, seed)) for seed, split in enumerate(("train", "valid", "test"))}
    towers = {"audio_encoder": tower_folders["audio"], "video_encoder": tower_folders["video"]}
    small = {"projector_width": 16, "lora_rank": 2, "lora_targets": "q_proj,v_proj", "logger": "none"}
    steps = {"max_steps": 6, "valid_every": 1, "keep": 4, "valid_clips": 2, "lr": 0.05}
    data = {"data": files["train"], "valid": files["valid"], "out": str(root / "one")}
    fit(TrainSettings(**towers, llm=tower_folders["llm"], **small, **steps, **data))
    return root / "one", files["test"]


def settings(run, **changes):
    return EvaluateSettings(**{"checkpoint": str(run[0]), "data": run[1], "max_new_tokens": 6, **changes})


def test_the_grid_is_every_task_at_every_rate_in_every_noise_and_the_same_again(run):
    grid = settings(run, snr="clean,0", noise="babble,white")
    rows, hypotheses = evaluate(grid)
    routes = {(row["task"], row["audio_rate"], row["video_rate"]) for row in rows if row["snr"] is None}
    assert len(routes) == 8
    assert [row["noise"] for row in rows].count("white") == 6  # ASR at two rates, AVSR at four
    assert len(hypotheses) == 6 * (8 + 6 + 6)
    again = evaluate(grid)
    for row in (*rows, *again[0]):
        del row["decode_seconds"]
    assert (rows, hypotheses) == again


def test_an_evaluation_that_is_cut_off_goes_on(run, tmp_path, monkeypatch):
    grid = settings(run, snr="clean,0", tasks="asr", max_frames=40)
    rows, hypotheses = evaluate(grid)
    read, left = decoding._decode_batch, iter(range(3))

    def cut_off(*batch):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return read(*batch)

    monkeypatch.setattr(decoding, "_decode_batch", cut_off)
    with pytest.raises(KeyboardInterrupt):
        evaluate(grid, out=tmp_path)
    monkeypatch.undo()
    again = evaluate(grid, out=tmp_path)
    assert [row["wer"] for row in again[0]] == [row["wer"] for row in rows]
    assert [(h.id, h.hypothesis) for h in again[1]] == [(h.id, h.hypothesis) for h in hypotheses]


def test_what_is_asked_for_is_measured_alone(run):
    rows, _ = evaluate(settings(run, tasks="asr,vsr", audio_rates="16", video_rates="2,5", snr="5"))
    assert [(row["task"], row["audio_rate"]) for row in rows] == [("asr", 16)]  # lips do not hear noise
    with pytest.raises(ValueError, match="audio rate 3 was not trained"):
        evaluate(settings(run, audio_rates="3"))
    with pytest.raises(ValueError, match="'loud' is no signal-to-noise ratio"):
        evaluate(settings(run, snr="loud"))


def test_noise_may_be_a_folder_of_sounds(run, tmp_path):
    for name, level in (("a/one.wav", 1), ("b/two.wav", 2)):
        (tmp_path / name).parent.mkdir()
        media.write_audio(tmp_path / name, np.full(20_000, 1000 * level, np.int16))
    noise = make_noise(str(tmp_path), 0.0, [], 1)
    speech = np.sin(np.arange(8_000)).astype(np.float32)
    drawn = set()
    for seed in range(8):
        mixed, _ = noise(speech, np.zeros((1, 96, 96)), np.random.default_rng(seed))
        added = mixed.astype(np.float64) - speech
        assert 10 * np.log10(np.mean(speech**2) / np.mean(added**2)) == pytest.approx(0, abs=0.1)
        drawn.add(int(np.random.default_rng(seed).integers(2)))
    assert drawn == {0, 1}
    rows, _ = evaluate(settings(run, tasks="asr", audio_rates="4", snr="0", noise=str(tmp_path)))
    assert rows[0]["noise"] == str(tmp_path)
    with pytest.raises(ValueError, match="available: babble, white, or a folder"):
        make_noise("pink", 0.0, [], 1)


def test_the_command_writes_all_that_it_measured(run, tmp_path):
    arguments = ["--checkpoint", str(run[0]), "--data", run[1], "--max-new-tokens", "6", "--out", str(tmp_path / "e")]
    result = CliRunner().invoke(app, ["evaluate", *arguments, "--snr", "clean,0", "--normaliser", "13a"])
    assert result.exit_code == 0, result.output
    assert "normalised by '13a'" in result.output
    assert sorted(path.name for path in (tmp_path / "e").iterdir()) == [
        "hypotheses.jsonl",
        "report.html",
        "results.json",
    ]
    rows = json.loads((tmp_path / "e/results.json").read_text())["rows"]
    assert {row["normaliser"] for row in rows} == {"13a"}
    assert all(row["wer_low"] <= row["wer"] <= row["wer_high"] for row in rows)
    assert "95 % interval" in (tmp_path / "e/report.html").read_text()


def test_the_bootstrap_is_right_where_the_answer_is_known():
    rng = np.random.default_rng(0)
    errors, words = rng.random(400) < 0.2, np.ones(400)
    low, high = interval(errors.astype(int), words.astype(int))
    wer = errors.mean()
    spread = 1.96 * np.sqrt(wer * (1 - wer) / 400)  # of a binomial
    assert (wer - low, high - wer) == (pytest.approx(spread, rel=0.15), pytest.approx(spread, rel=0.15))
    assert interval([1, 1], [2, 2]) == (0.5, 0.5)


def test_two_models_share_their_draws():
    words = np.full(50, 6)
    first, second = resampled(np.ones(50, int), words), resampled(np.full(50, 2), words)
    assert np.allclose(second - first, 1 / 6)


def hypotheses(path, errors):
    rows = [
        {"id": str(i), "task": "asr", "audio_rate": 4, "video_rate": None, "snr": None, "noise": None}
        | {"errors": int(e), "words": 6}
        for i, e in enumerate(errors)
    ]
    path.mkdir()
    (path / "hypotheses.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_comparison_tells_a_real_difference_from_chance(tmp_path):
    rng = np.random.default_rng(1)
    base = rng.integers(0, 3, 200)
    hypotheses(tmp_path / "a", base)
    hypotheses(tmp_path / "b", np.maximum(base - (rng.random(200) < 0.4), 0))
    hypotheses(tmp_path / "c", rng.permutation(base))
    (better,) = compare(tmp_path / "a", tmp_path / "b")
    assert better.real
    assert better.second < better.first
    assert not compare(tmp_path / "a", tmp_path / "c")[0].real
    result = CliRunner().invoke(app, ["compare", str(tmp_path / "a"), str(tmp_path / "b")])
    assert "better" in result.output
    with pytest.raises(ValueError, match=r"there is no .*hypotheses\.jsonl"):
        compare(tmp_path / "a", tmp_path)


def test_an_average_is_the_mean_of_the_last_checkpoints(run, tmp_path):
    chosen = average(run[0], 3, tmp_path / "mean")
    assert [path.stem for path in chosen] == ["step=4", "step=5", "step=6"]
    states = [torch.load(path, weights_only=True)["state_dict"] for path in chosen]
    weights = OmniAVSR.from_pretrained(tmp_path / "mean").state_dict()
    assert len(states[0]) > 10
    for name in states[0]:
        mean = sum(state[name] for state in states) / 3
        assert torch.allclose(weights[name.removeprefix("model.")], mean, atol=1e-6)
    with pytest.raises(ValueError, match="keeps 4 checkpoints, 9 are needed: train with --keep 9"):
        average(run[0], 9, tmp_path / "other")


def test_info_counts_what_there_is(run):
    facts = inspect(str(run[0]))
    parts = facts["parameters"]
    assert sum(count for part, count in parts.items() if part not in ("total", "trainable")) == parts["total"]
    model = OmniAVSR.from_pretrained(run[0] / "model")
    assert parts["total"] == sum(weight.numel() for weight in model.parameters())
    costs = {(row["task"], row["audio_rate"], row["video_rate"]): row for row in facts["costs"]}
    fine, coarse = costs["avsr", 4, 2], costs["avsr", 16, 5]
    assert (fine["llm_tokens_per_second"], coarse["llm_tokens_per_second"]) == (25.0, 8.125)
    assert fine["llm_gflops_per_second"] > 1.5 * coarse["llm_gflops_per_second"]
    assert fine["encoder_gflops_per_second"] == coarse["encoder_gflops_per_second"]
    assert 2 * fine["llm_gflops_per_second"] < fine["training_gflops_per_second"] < 3 * fine["llm_gflops_per_second"]
    assert fine["kept_megabytes_per_second"] > 1.5 * coarse["kept_megabytes_per_second"]
    merged = sum(weight.numel() for weight in model.llm.get_base_model().parameters())
    assert costs["asr", 4, None]["active_parameters"] < merged + parts["audio encoder"] + parts["projectors"]
    assert facts["trained"]["max_steps"] == 6
    shown = CliRunner().invoke(app, ["info", str(run[0])])
    assert "AVSR (4,2)" in shown.output
    assert json.loads(CliRunner().invoke(app, ["info", str(run[0]), "--json"]).output)["parameters"] == parts


@pytest.mark.parametrize(
    ("how", "text", "expected"),
    [
        ("lower", "Hello, World!", "hello, world!"),
        ("13a", "Hello, World! It's 3.5 -- e.g. good-bye.", "hello world it's 3.5 e g good-bye"),
        ("whisper", "Mr. Smith isn't twenty-one!", "mister smith is not 21"),
    ],
)
def test_a_normaliser_does_what_its_name_says(how, text, expected):
    assert normalise(text, how) == expected


def test_an_unknown_normaliser_is_refused():
    with pytest.raises(ValueError, match="unknown normaliser 'upper'; available: lower, 13a, whisper"):
        normalise("x", "upper")
    with pytest.raises(ValueError, match="unknown normaliser 'upper'; available: lower, 13a, whisper"):
        EvaluateSettings(normaliser="upper")
