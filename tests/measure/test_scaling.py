"""A scaling study goes on where it stopped, and its fit and front are right where the answer is known."""

import json
import shlex
import shutil
from dataclasses import asdict, replace

import pytest
from typer.testing import CliRunner

from omni_avsr.cli.app import app
from omni_avsr.measure import scaling
from omni_avsr.settings import TrainSettings
from tests.support.corpus import write_split


@pytest.fixture(scope="module")
def settings(tower_folders, tmp_path_factory):
    root = tmp_path_factory.mktemp("scale")
    files = {split: str(write_split(root, split, 4, seed)) for seed, split in enumerate(("train", "valid", "test"))}
    shutil.copytree(tower_folders["llm"], root / "other")
    towers = {"audio_encoder": tower_folders["audio"], "video_encoder": tower_folders["video"]}
    small = {"projector_width": 16, "lora_rank": 2, "lora_targets": "q_proj,v_proj", "logger": "none", "valid_clips": 1}
    data = {"data": files["train"], "valid": files["valid"], "test": files["test"], "out": str(root / "study")}
    return TrainSettings(**towers, llm=f"{tower_folders['llm']},{root / 'other'}", **small, max_steps=2, **data)


def test_a_study_trains_and_measures_each_size_and_goes_on_where_it_stopped(settings, tmp_path, monkeypatch):
    first, second = scaling.sizes(settings)
    scaling.train_one(scaling.one(settings, first), lambda *_: None)
    with pytest.raises(ValueError, match="not finished in"):
        scaling.collect(settings)
    run = tmp_path.__class__(scaling.one(settings, second).out)
    run.mkdir(parents=True)
    known = {"settings": asdict(scaling.one(settings, second))}
    (run / "run.json").write_text(json.dumps(known))  # a training that was cut off
    trained = []
    fit = scaling.fit
    monkeypatch.setattr(scaling, "fit", lambda s, report: trained.append(s.llm) or fit(s, report))
    found = scaling.scale(settings)
    assert trained == [second]
    assert [size.llm for size in found] == [first, second]
    assert found[0].total == found[1].total
    assert set(found[0].wer) == {"asr", "vsr", "avsr"}
    study = tmp_path.__class__(settings.out)
    assert len(json.loads((study / "scaling.json").read_text())["sizes"]) == 2
    assert "<svg" in (study / "scaling.html").read_text()
    assert scaling.collect(settings) == found
    with pytest.raises(ValueError, match=r"was trained with lr .*: choose another --out"):
        scaling.scale(replace(settings, lr=0.5))
    (run / "model/config.json").unlink()
    scaling.scale(settings)
    assert trained == [second, second]
    with pytest.raises(ValueError, match="needs --test"):
        scaling.scale(replace(settings, test=None))


def test_commands_for_a_cluster_carry_every_option(settings):
    lines = scaling.commands(replace(settings, llm="tiny-s,tiny-m", out="runs/x", seed=7))
    assert len(lines) == 3
    assert lines[0].startswith("omni-avsr scale --llm tiny-s,tiny-m --out runs/x ")
    assert lines[0].endswith("--only tiny-s")
    assert "--seed 7" in lines[1]
    assert "--max-steps 2" in lines[1]
    assert lines[2].endswith("--collect")
    odd = replace(settings, llm="tiny-s,tiny-m", out="runs/my scale", gradient_checkpointing=True)
    for line in scaling.commands(odd):
        again = CliRunner().invoke(app, [*shlex.split(line)[1:], "--print-commands"])
        assert again.output.splitlines() == scaling.commands(odd)


@pytest.mark.parametrize(("rates", "gflops"), [("fixed", 1 + 10), ("sampled", 2 + 10), ("all", 4 + 10)])
def test_a_step_costs_its_passes(rates, gflops):
    costs = [("asr", 1.0), ("asr", 3.0), ("vsr", 10.0)]
    rows = [{"task": task, "training_gflops_per_second": cost} for task, cost in costs]
    assert scaling.of_a_step(rows, rates, "training_gflops") == gflops


def test_the_command_prints_them():
    result = CliRunner().invoke(app, ["scale", "--llm", "tiny-s,tiny-m", "--print-commands"])
    assert "omni-avsr scale --llm tiny-s,tiny-m --out runs/scale --only tiny-m" in result.output


def test_one_size_makes_no_study():
    with pytest.raises(ValueError, match="names 1 LLM"):
        scaling.sizes(TrainSettings(llm="tiny-s"))


def test_a_power_law_is_found_again():
    law = scaling.power_law([(p, 40 * p**-0.3) for p in (1e6, 3e6, 9e6)])
    assert law["exponent"] == pytest.approx(0.3)
    assert law["factor"] == pytest.approx(40)
    assert law["per_doubling"] == pytest.approx(2**-0.3)


def test_the_pareto_front_leaves_out_what_is_beaten():
    assert scaling.pareto([(1, 30), (2, 20), (3, 25), (2, 20), (4, 20)]) == [True, True, False, True, False]
