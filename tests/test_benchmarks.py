"""The benchmarks run; what they measure is not tested."""

import json

import pytest
from typer.testing import CliRunner

from benchmarks import __main__ as all_of_them
from benchmarks import cost, gpu, yardstick


def test_the_benchmark_of_a_gpu_runs_in_miniature(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "REPEATS", 1)
    gpu.main(small=True, write=tmp_path / "gpu.json")
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert abs(found["small"]["agreement"]["fp32, relative"]) < 1e-6
    assert abs(found["small"]["agreement"]["bf16, relative"]) < 0.02
    assert found["small"]["step seconds"] > 0
    assert found["small"]["share of the bandwidth"] > 0


def test_tables_and_figure_go_between_the_marks(tmp_path, monkeypatch):
    file = tmp_path / "performance.md"
    file.write_text(f"before\n{all_of_them.BEGIN}old\n{all_of_them.END}after\n")
    points = {name: [(size, {"wall": 1.0, "mib": 2.0}) for size in sizes] for name, sizes in cost.GROWING.items()}
    for benchmark in ("step", "decode", "matryoshka", "data"):
        module = getattr(all_of_them, benchmark)
        monkeypatch.setattr(module, "sheet", lambda *_: yardstick.Sheet("Title", ("a", "b"), [("1", "2")]))
    monkeypatch.setattr(cost, "points", lambda _: points)
    all_of_them.main(write=file, threads=1)
    text = file.read_text()
    assert text.startswith(f"before\n{all_of_them.BEGIN}")
    assert text.endswith(f"{all_of_them.END}after\n")
    assert "old" not in text
    assert "| a | b |\n| ---: | ---: |\n| 1 | 2 |" in text
    assert (tmp_path / "performance.png").is_file()


@pytest.mark.parametrize("name", ["step", "decode", "matryoshka", "data", "cost", "gpu"])
def test_each_has_a_command(name):
    import importlib

    import typer

    app = typer.Typer()
    app.command()(importlib.import_module(f"benchmarks.{name}").main)
    assert CliRunner().invoke(app, ["--help"]).exit_code == 0
