"""The benchmarks run; what they measure is not tested."""

import json

import pytest
from typer.testing import CliRunner

from benchmarks import __main__ as all_of_them
from benchmarks import cost, decode, gpu, intervals, matryoshka, step, stops, yardstick
from omni_avsr.tasks import Task


def test_the_benchmark_of_a_gpu_runs_in_miniature(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "REPEATS", 1)
    gpu.main(small=True, write=tmp_path / "gpu.json")
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert abs(found["small"]["agreement"]["fp32, relative"]) < 1e-6
    assert abs(found["small"]["agreement"]["bf16-mixed, relative"]) < 0.02
    assert (found["dtype"], found["precision"]) == ("torch.bfloat16", "bf16-mixed")
    assert found["small"]["step seconds"] > 0
    assert found["small"]["share of the bandwidth"] > 0


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A page with marks, and benchmarks that take no time."""
    file = tmp_path / "performance.md"
    marks = [
        f"{all_of_them.begin(name)}old {name}\n{all_of_them.END}" for name in all_of_them.PARTS
    ]
    file.write_text(f"before\n{''.join(marks)}after\n")
    points = {}
    for name, sizes in cost.GROWING.items():
        points[name] = [cost.Point(size, seconds=1.0, mib=2.0) for size in sizes]
    for benchmark in ("step", "decode", "stops", "matryoshka", "data"):
        module = getattr(all_of_them, benchmark)
        monkeypatch.setattr(
            module, "sheet", lambda *_: yardstick.Sheet("Title", ("a", "b"), [("1", "2")])
        )
    monkeypatch.setattr(cost, "points", lambda _: points)
    return file


def test_tables_and_figure_go_between_the_marks(page):
    all_of_them.main(write=page, threads=1)
    text = page.read_text()
    assert text.startswith(f"before\n{all_of_them.begin('step')}")
    assert text.endswith(f"{all_of_them.END}after\n")
    assert "old" not in text
    assert "| a | b |\n| ---: | ---: |\n| 1 | 2 |" in text
    assert page.with_suffix(".png").is_file()


def test_one_part_leaves_the_tables_of_the_others(page):
    all_of_them.main(write=page, only="decode")
    text = page.read_text()
    assert "old decode" not in text
    assert all(f"old {name}" in text for name in ("step", "stops", "data", "cost"))


@pytest.fixture
def short_clips(monkeypatch):
    """Makes every benchmark run on two short clips."""
    clips = yardstick.clips((0.4, 0.6))
    monkeypatch.setattr(yardstick, "clips", lambda *_: clips)
    for name in ("Steps", "SharedSteps"):  # which the published way of decoding replaces
        monkeypatch.setattr(decode.beams, name, getattr(decode.beams, name))
    supports = decode.beams.SharedSteps.supports
    monkeypatch.setattr(decode.beams.SharedSteps, "supports", staticmethod(supports))


@pytest.mark.parametrize("way", ["published", "ours", "checkpointing", "cached"])
def test_a_step_is_measured_in_miniature(short_clips, way):
    found = step.measure(2048, way)
    assert found["wall"] > 0
    assert (found["share"] > 0) == (way != "published")


def test_only_the_published_way_computes_the_frames_that_pad_a_clip(short_clips):
    of_way = {}
    for published in (True, False):
        media = step.Step(*yardstick.model_and_processor(2048, published)).batch.media
        of_way[published] = media.video_lengths.tolist()
    assert len(set(of_way[True])) == 1
    assert len(set(of_way[False])) > 1


@pytest.mark.parametrize("way", ["published", "ours", "greedy", "merged"])
def test_decoding_is_measured_in_miniature(short_clips, way, monkeypatch):
    monkeypatch.setattr(decode, "NEW_TOKENS", 3)
    assert decode.measure(2048, Task.AVSR, way)["wall"] > 0


def test_the_published_way_finds_what_ours_finds(short_clips):
    model, processor = yardstick.model_and_processor(2048)
    both = yardstick.clips()
    together = model.generate(decode.batch_of(processor, both, Task.AVSR), decode.BEAMS, 5)
    decode.decode_as_published(decode.BEAMS)
    for clip, expected in zip(decode.one_by_one(both), together, strict=True):
        batch = decode.batch_of(processor, clip, Task.AVSR)
        (found,) = model.generate(batch, decode.BEAMS, 5)
        assert found.tolist() == expected.tolist()


def test_all_ways_of_decoding_with_real_stops_find_the_same(short_clips):
    found = {way: stops.measure(way, Task.ASR, 2, 3)["texts"] for way in reversed(stops.WAYS)}
    assert found["joined"] == found["batches"] == found["published"]
    assert all(found["joined"])


def test_rates_cost_passes(short_clips, monkeypatch):
    monkeypatch.setattr(matryoshka, "STEPS", 1)
    fixed = matryoshka.measure("fixed", 2)
    every = matryoshka.measure("all", 2)
    assert (fixed["passes"], every["passes"]) == (3, 8)
    assert every["gflops"] > fixed["gflops"]


def test_the_cost_of_growing_work_is_measured_in_miniature(short_clips):
    assert cost.measure(seconds=0.4, clips=2, width=64, rates=1)["wall"] > 0


@pytest.mark.parametrize("name", ["step", "decode", "stops", "matryoshka", "data", "cost", "gpu"])
def test_each_has_a_command(name):
    import importlib

    import typer

    app = typer.Typer()
    app.command()(importlib.import_module(f"benchmarks.{name}").main)
    assert CliRunner().invoke(app, ["--help"]).exit_code == 0


def test_intervals_are_counted_in_miniature():
    spread, seeds, *misses, width = intervals.row(of_seed=0.1, seeds=3, worlds=4)
    assert (spread, seeds) == ("1.0 points", "3")
    assert len(misses) == 3
    assert width.startswith("±")
