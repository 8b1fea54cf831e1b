"""Plans: sizes by name, steps and decoding without values, and what fits into a GPU."""

import json
import math
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from benchmarks import plan as benchmark
from omni_avsr.cli.app import app
from omni_avsr.cli.planned import show_plan
from omni_avsr.errors import InputError
from omni_avsr.measure.phantom import Phantoms
from omni_avsr.measure.plan import MOST_CLIPS, largest_batch, plan
from omni_avsr.measure.rehearsal import Clips, Rehearsal
from omni_avsr.measure.sizes import known_sizes
from omni_avsr.settings import PlanSettings

SMALL = PlanSettings(
    method="llama-avsr",
    llm="tiny-s",
    lora_targets=("q_proj",),
    cache_copies=0,
    max_frames=100,
    seconds=2.0,
    gpu_memory=(80.0,),
)
SOME = Clips(2, 50, tokens=6)


def rehearsal(dtype=torch.float32, precision="32-true", **changes):
    return Rehearsal(replace(SMALL, **changes), dtype, precision, gpu=True)


@pytest.fixture(scope="module")
def planned():
    return plan(SMALL)


def test_a_name_without_sizes_is_refused_with_those_that_have_some(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"no sizes of the audio tower 'large'.*whisper-tiny"):
        plan(replace(SMALL, audio_encoder="large"))
    assert "openai/whisper-tiny.en" in known_sizes("audio")


def test_memory_is_planned_as_it_is_taken(monkeypatch):
    monkeypatch.setitem(benchmark.LLMS, "tiny", lambda: benchmark.small_llm(192, 4, 1000))
    case = benchmark.Case(
        *("tiny", "llama-mt", "bfloat16", "bf16-mixed", True),
        audio="tiny-audio",
        beams=1,
        clips=4,
        frames=40,
    )
    found = benchmark.measure(case)
    assert found["step planned"] == pytest.approx(found["step"], rel=0.1)
    assert found["decoding planned"] == pytest.approx(found["decoding"], rel=0.15)


def test_a_model_that_does_not_exist_is_named(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="no model 'nothing-here': it is neither a run nor"):
        plan(PlanSettings(from_="nothing-here"))


@pytest.mark.parametrize("seconds", [math.nan, math.inf, 0])
def test_a_clip_needs_a_length(seconds):
    with pytest.raises(InputError, match="seconds must be"):
        PlanSettings(seconds=seconds)


def test_phantoms_take_no_memory_and_count_all_of_it_while_it_is_alive():
    phantoms = Phantoms()
    with phantoms, phantoms.measured() as spent:
        huge = torch.empty(2**40)  # 4 TiB
        halves = huge.half()
        del huge
        view = halves[:10]
    assert spent.peak == 6 * 2**40
    assert spent.after == 2 * 2**40
    assert len(view) == 10


def test_what_decides_where_the_code_goes_has_values_among_phantoms():
    with Phantoms():
        mask = torch.arange(6).reshape(2, 3) > 2
        values = torch.randn(2, 3, 5)[mask]
        assert values.shape == (3, 5)
        assert mask.sum(1).tolist() == [0, 3]
        assert torch.randn(3).isfinite().all()


def test_flops_of_phantoms_are_those_of_the_products():
    phantoms = Phantoms()
    with phantoms, phantoms.measured() as spent:
        torch.randn(3, 5) @ torch.randn(5, 7)
        torch.nn.functional.scaled_dot_product_attention(*torch.randn(3, 1, 2, 4, 8))
    assert spent.flops == 2 * 3 * 5 * 7 + 2 * 2 * (2 * 4 * 4 * 8)


def test_the_parts_of_a_plan_add_up_and_none_is_negative(planned):
    for parts in (planned.training, planned.decoding):
        assert min(parts.values()) >= 0
    assert planned.training_peak >= sum(planned.training.values())
    assert [part for part in planned.training if "AVSR (4,2)" in part]
    assert planned.training["weights: LLM"] == 2 * planned.parameters["LLM"]  # in bfloat16
    assert planned.max_frames[80.0] == MOST_CLIPS * SMALL.frames


def test_the_largest_batch_just_fits():
    small = rehearsal()
    steps = [small.train(Clips(count, 50, tokens=8)) for count in (2, 4)]
    usable = 2**28
    most = largest_batch(usable, 2, [step.peak for step in steps], lambda _: 0)
    assert most > 20
    peaks = [small.train(Clips(count, 50, tokens=8)).peak for count in (most - 1, most + 1)]
    assert peaks[0] < usable < peaks[1]


@pytest.mark.parametrize(("usable", "clips"), [(50, 4), (44, 3), (26, 2), (9, 0)])
def test_the_encoders_may_allow_fewer_clips_than_the_training(usable, clips):
    found = largest_batch(usable, 2, [20, 40], lambda count: 10 * count + 5)
    assert found == clips


def test_checkpointing_and_fewer_bits_save_memory():
    whole = rehearsal().train(SOME)
    checkpointed = rehearsal(gradient_checkpointing=True).train(SOME)
    assert checkpointed.peak < whole.peak
    assert checkpointed.learning.flops > whole.learning.flops  # it computes twice
    assert checkpointed.features == whole.features  # frozen encoders keep nothing else
    quantised = rehearsal(quantize="4bit")
    assert quantised.weights["LLM"] < rehearsal().weights["LLM"] / 2
    assert quantised.parameters == rehearsal().parameters
    assert quantised.train(SOME).peak < whole.peak


def test_several_gpus_share_the_llm_and_the_work():
    found = plan(replace(SMALL, llm="tiny-m", gpus=8, strategy="fsdp", epochs=3.0))
    assert found.training["weights: LLM"] < 2 * found.parameters["LLM"]
    assert found.training["gradients between GPUs"] == 4 * found.parameters["trainable"]
    batches = SMALL.hours * 3600 * 25 / (50 + 49)
    flops = 3 * batches * found.step_tflops * 1e12
    assert found.hours == pytest.approx(flops / (8 * 0.4 * 312e12) / 3600)


def test_features_are_encoded_once_where_they_are_cached(planned):
    cached = plan(replace(SMALL, cache_copies=1, epochs=10.0))
    assert cached.hours < 10 * planned.hours / planned.epochs
    assert cached.encoding_peak < planned.encoding_peak  # the optimizer has no state yet
    assert cached.encoding_peak > cached.training["weights: LLM"] + planned.encoding_peak / 2
    assert cached.step_tflops + cached.encoding_tflops == pytest.approx(planned.step_tflops)


def test_what_does_not_go_together_is_refused():
    with pytest.raises(InputError, match="towers in bfloat16 need --precision"):
        plan(replace(SMALL, precision="16-mixed"))
    with pytest.raises(InputError, match="more than max_frames 100"):
        replace(SMALL, seconds=5.0)


def test_a_saved_model_is_planned_from_its_config():
    assert rehearsal(from_="tiny").parameters["LLM"] == 1_037_280


def test_a_plan_is_printed_as_json():
    options = "--llm tiny-s --method llama-avsr --lora-targets q_proj --max-frames 25 --seconds 1"
    options += " --gpu-memory 0.001 --json"
    result = CliRunner().invoke(app, ["plan", *options.split()])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["max_frames"] == {"0.001": 0}
    assert found["training_peak"] > sum(found["training"].values()) / 2
    assert found["parameters"]["total"] > found["parameters"]["trainable"] > 0


def test_a_plan_is_shown(planned, capsys):
    show_plan(planned)
    shown = capsys.readouterr().out
    assert "kept by the pass of AVSR (4,2)" in shown
    assert "A GPU of 80 GiB holds: --max-frames" in shown
