"""A scaling study is resumed, and its power law and Pareto front are right where they are known."""

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from omni_avsr.cli.app import app
from omni_avsr.errors import InputError
from omni_avsr.measure import scaling, study
from omni_avsr.measure.cost import training_step
from omni_avsr.run import start_run
from omni_avsr.settings import TrainSettings
from omni_avsr.tasks import Route, Task
from tests.support.corpus import write_split


@pytest.fixture(scope="module")
def settings(tower_folders, tmp_path_factory):
    root = tmp_path_factory.mktemp("scale")
    files = {}
    for seed, split in enumerate(("train", "valid", "test")):
        files[split] = write_split(root, split, 4, seed)
    shutil.copytree(tower_folders["llm"], root / "other")
    return TrainSettings(
        data=files["train"],
        valid=files["valid"],
        test=files["test"],
        out=root / "study",
        audio_encoder=tower_folders["audio"],
        video_encoder=tower_folders["video"],
        llm=f"{tower_folders['llm']},{root / 'other'}",
        projector_width=16,
        lora_rank=2,
        lora_targets=("q_proj", "v_proj"),
        logger="none",
        valid_clips=1,
        max_steps=2,
    )


@pytest.fixture
def trained(monkeypatch):
    """The LLMs that are trained from now on."""
    names = []
    fit = study.fit

    def noted(settings, *others):
        names.append(settings.llm)
        return fit(settings, *others)

    monkeypatch.setattr(study, "fit", noted)
    return names


def test_a_study_trains_and_measures_each_size_once(settings, trained):
    first, second = scaling.sizes(settings)
    scaling.train_one(scaling.one(settings, first))
    with pytest.raises(InputError, match="not finished in"):
        scaling.collect(settings)
    interrupted = scaling.one(settings, second)
    start_run(interrupted.out, interrupted)  # and no more: this training was interrupted
    found = scaling.scale(settings)
    assert trained == [first, second]
    assert [size.llm for size in found] == [first, second]
    assert found[0].total == found[1].total
    assert set(found[0].wer) == set(Task)
    content = json.loads((settings.out / "scaling.json").read_text())
    assert len(content["sizes"]) == 2
    assert set(content["power_laws"]["asr"]) == {"factor", "exponent", "per_doubling"}
    assert "<svg" in (settings.out / "scaling.html").read_text()
    assert scaling.scale(settings) == found
    assert trained == [first, second]
    with pytest.raises(InputError, match=r"was trained with lr .*: choose another --out"):
        scaling.scale(replace(settings, lr=0.5))


def test_a_study_of_label_files_needs_clips_to_measure(settings):
    with pytest.raises(InputError, match="needs --test"):
        scaling.scale(replace(settings, test=None))


def test_commands_for_a_cluster_carry_every_option(settings):
    changed = replace(settings, llm="tiny-s,tiny-m", out=Path("runs/x"), seed=7)
    lines = scaling.commands(changed)
    assert len(lines) == 3
    assert lines[0].startswith("omni-avsr scale --llm tiny-s,tiny-m --out runs/x ")
    assert lines[0].endswith("--only tiny-s")
    assert "--seed 7" in lines[1]
    assert "--max-steps 2" in lines[1]
    assert "--lora-targets q_proj,v_proj" in lines[1]
    assert lines[2].endswith("--collect")


def test_commands_are_understood_by_the_command_line(settings):
    odd = replace(
        settings,
        llm="tiny-s,tiny-m",
        out=Path("runs/my scale"),
        gradient_checkpointing=True,
        noise_snr=(-2.5, 0.0),
        tasks=(Task.ASR, Task.VSR),
    )
    for line in scaling.commands(odd):
        words = shlex.split(line)[1:]
        again = CliRunner().invoke(app, [*words, "--print-commands"])
        assert again.output.splitlines() == scaling.commands(odd)


@pytest.mark.parametrize(
    ("rates", "cost"), [("fixed", 1 + 10), ("sampled", 2 + 10), ("all", 4 + 10)]
)
def test_a_step_costs_its_passes(rates, cost):
    per_route = {
        Route(Task.ASR, 4): 1.0,
        Route(Task.ASR, 16): 3.0,
        Route(Task.VSR, None, 2): 10.0,
    }
    assert training_step(per_route, rates) == cost


def test_the_command_prints_them():
    result = CliRunner().invoke(app, ["scale", "--llm", "tiny-s,tiny-m", "--print-commands"])
    assert "omni-avsr scale --llm tiny-s,tiny-m --out runs/scale --only tiny-m" in result.output


def test_a_study_does_not_start_from_a_checkpoint():
    with pytest.raises(InputError, match="new weights for each LLM: leave out --from"):
        scaling.sizes(TrainSettings(llm="tiny-s,tiny-m", from_="tiny"))


def test_one_size_makes_no_study():
    with pytest.raises(InputError, match="names 1 LLM"):
        scaling.sizes(TrainSettings(llm="tiny-s"))


def test_a_power_law_is_found_again():
    parameters = (1e6, 3e6, 9e6)
    law = scaling.power_law(parameters, [40 * count**-0.3 for count in parameters])
    assert law.exponent == pytest.approx(0.3)
    assert law.factor == pytest.approx(40)
    assert law.per_doubling == pytest.approx(2**-0.3)


def test_the_pareto_front_leaves_out_what_is_beaten():
    points = [(1, 30), (2, 20), (3, 25), (2, 20), (4, 20)]
    assert scaling.pareto_front(points) == [(1, 30), (2, 20), (2, 20)]
