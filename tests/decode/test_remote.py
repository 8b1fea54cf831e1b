"""An engine that runs the LLM elsewhere gives what the model gives."""

import json
import shlex
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from omni_avsr import OmniAVSRConfig
from omni_avsr.cli.app import app
from omni_avsr.convert.vllm import LONGEST, Exported, export_vllm
from omni_avsr.decode.decode import load_decoder
from omni_avsr.decode.remote import EngineError
from omni_avsr.errors import InputError
from omni_avsr.measure.evaluate import decode_file
from omni_avsr.settings import CheckpointOptions, DecodeSettings
from omni_avsr.tasks import Task
from tests.support.corpus import write_split
from tests.support.engine import ReferenceEngine, engine
from tests.support.towers import llm_config, whisper_config

CLIPS = 5


@pytest.fixture(scope="module")
def exported(make, tmp_path_factory):
    """A checkpoint with LoRAs for all and for each task, and what is written for vLLM."""
    folder = tmp_path_factory.mktemp("exported")
    _saved(make, folder / "model")
    export_vllm(folder / "model", folder / "vllm")
    return folder


def _saved(make, folder, **settings):
    model, processor = make(**settings)
    model.save_pretrained(folder, full=True)
    processor.save_pretrained(folder)


@pytest.fixture(scope="module")
def remote(exported):
    """The reference engine, and where it listens."""
    reference = ReferenceEngine(exported / "vllm")
    with engine(reference) as address:
        yield reference, address


def decoded(checkpoint, file, task, **options):
    settings = DecodeSettings(checkpoint=str(checkpoint), data=file, task=task, **options)
    return decode_file(settings).hypotheses


@pytest.mark.parametrize("task", Task)
def test_an_engine_gives_the_transcripts_of_the_model(exported, remote, tmp_path, task):
    file = write_split(tmp_path, "test", CLIPS, 3)
    _, address = remote
    ours = decoded(exported / "model", file, task, max_new_tokens=8)
    theirs = decoded(exported / "vllm/front", file, task, max_new_tokens=8, engine_url=address)
    assert [one.hypothesis for one in theirs] == [one.hypothesis for one in ours]
    assert [one.is_cut for one in theirs] == [one.is_cut for one in ours]
    confidences = [one.confidence for one in ours]
    assert [one.confidence for one in theirs] == pytest.approx(confidences, abs=2e-4)
    assert len({one.hypothesis for one in ours}) > 1  # or it would prove little


def test_each_route_of_scale_adapters_has_its_lora(make, tmp_path):
    _saved(make, tmp_path / "model", adapters=["task", "scale"])
    exported = export_vllm(tmp_path / "model", tmp_path / "vllm")
    assert "avsr-a4v2" in exported.sums
    assert len(exported.sums) == len(set(exported.sums)) == 8
    file = write_split(tmp_path, "test", 2, 3)
    reference = ReferenceEngine(tmp_path / "vllm")
    rates = {"audio_rate": 16, "video_rate": 5, "max_new_tokens": 4}
    with engine(reference) as address:
        ours = decoded(tmp_path / "model", file, "avsr", **rates)
        theirs = decoded(tmp_path / "vllm/front", file, "avsr", engine_url=address, **rates)
    assert [one.hypothesis for one in theirs] == [one.hypothesis for one in ours]
    assert {asked["model"] for asked in reference.asked} == {"avsr-a16v5"}


def test_a_model_without_adapters_needs_no_lora(make, tmp_path):
    _saved(make, tmp_path / "model", adapters=[])
    exported = export_vllm(tmp_path / "model", tmp_path / "vllm")
    assert not exported.sums
    assert "--enable-lora" not in " ".join(exported.command)
    with engine(ReferenceEngine(tmp_path / "vllm")) as address:
        file = write_split(tmp_path, "test", 2, 3)
        ours = decoded(tmp_path / "model", file, "asr", max_new_tokens=4)
        theirs = decoded(tmp_path / "vllm/front", file, "asr", max_new_tokens=4, engine_url=address)
    assert [one.hypothesis for one in theirs] == [one.hypothesis for one in ours]


def test_the_front_has_no_layers_and_says_what_it_needs(exported, remote):
    front = str(exported / "vllm/front")
    with pytest.raises(InputError, match="an engine runs: give --engine-url"):
        load_decoder(CheckpointOptions(checkpoint=front))
    decoder = load_decoder(CheckpointOptions(checkpoint=front, engine_url=remote[1]))
    assert not list(decoder.model.llm.get_decoder().layers)


def test_an_engine_without_the_loras_of_a_model_is_refused(exported, remote, monkeypatch):
    reference, address = remote
    monkeypatch.setattr(reference, "loras", reference.loras[:1])
    options = CheckpointOptions(checkpoint=str(exported / "vllm/front"), engine_url=address)
    with pytest.raises(EngineError, match=r"has no shared-avsr, shared-vsr: start it"):
        load_decoder(options)


def test_an_engine_that_is_not_there_is_named(exported):
    options = CheckpointOptions(
        checkpoint=str(exported / "vllm/front"), engine_url="http://127.0.0.1:9/v1"
    )
    with pytest.raises(EngineError, match=r"the engine at http://127\.0\.0\.1:9 does not answer"):
        load_decoder(options)


def test_an_engine_has_no_beams():
    with pytest.raises(InputError, match="an engine decodes greedily: leave out beams 5"):
        CheckpointOptions(engine_url="http://127.0.0.1:9", beams=5)


def test_the_command_prints_what_starts_the_engine(exported, tmp_path):
    out = tmp_path / "vllm"
    result = CliRunner().invoke(app, ["export", "vllm", str(exported / "model"), str(out)])
    assert result.exit_code == 0, result.output
    words = result.output.replace("\\\n", " ").split()
    assert words[words.index("serve") + 1] == f"{out}/llm"
    assert f"shared-avsr={out}/adapters/shared-avsr" in words
    assert f"--checkpoint {out}/front --engine-url" in " ".join(words)
    lora = json.loads((out / "adapters/shared-avsr/adapter_config.json").read_text())
    assert int(words[words.index("--max-lora-rank") + 1]) >= lora["r"] == 8


def test_the_compose_file_starts_the_engine_as_the_command_says():
    config = OmniAVSRConfig(tasks=["asr"], audio_config=whisper_config(), llm_config=llm_config())
    services = yaml.safe_load(Path("compose.yaml").read_text())["services"]
    sums = [f"shared-{task}" for task in Task]
    targets = list(config.lora_targets)
    exported = Exported(Path("/model"), sums, 2 * config.lora_rank, targets, LONGEST)
    given = services["engine"]["command"]
    assert options_of(given) == options_of(shlex.split(" ".join(exported.command))[2:])


def options_of(words):
    """The values of each option of a command."""
    found: dict[str, list[str]] = {"": []}
    for word in words:
        name, equals, value = word.partition("=")
        if not name.startswith("--"):
            found[list(found)[-1]].append(word)
            continue
        found[name] = [value] if equals else []
    return found


def test_what_was_exported_is_not_exported_again(exported, tmp_path):
    with pytest.raises(InputError, match="was exported before"):
        export_vllm(exported / "vllm/front", tmp_path / "again")
