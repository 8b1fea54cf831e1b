"""What `omni-avsr plan` says of memory, against what a step and decoding take on the CPU.

    python -m benchmarks.plan --write docs/performance.md

Each configuration runs in a process of its own: two training steps, and the decoding of the same
clips. "Measured" is what torch's allocator has handed out at the peak, by its profiler, over the
weights: what torch.cuda.max_memory_allocated is on a GPU. The memory of the process would not tell:
it has the profiler's and the libraries' own, and what the C library did not give back.
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import torch
import typer
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, PreTrainedConfig, Qwen2Config, Qwen3Config

from benchmarks import yardstick
from omni_avsr.measure.rehearsal import Clips, Rehearsal, built, finest_route
from omni_avsr.model.adapters import leave_casting_to_autocast
from omni_avsr.model.precision import AUTOCAST, to_dtype
from omni_avsr.settings import TrainSettings
from omni_avsr.train.step import Training

MODULE = "benchmarks.plan"
BEGIN = "<!-- written by python -m benchmarks.plan -->\n"
END = "<!-- end of the plan -->\n"
NEW_TOKENS = 32
MIB = 2**20
COLUMNS = (
    "LLM",
    "method",
    "numbers",
    "weights: MiB",
    "step, plan: MiB",
    "step, measured: MiB",
    "off by",
    "decoding, plan: MiB",
    "decoding, measured: MiB",
    "off by",
)


def small_llm(
    width: int, layers: int, vocabulary: int, family: Callable[..., Any] = LlamaConfig
) -> PreTrainedConfig:
    """A language model with heads of 64 numbers, four to a key-value head."""
    return family(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=max(1, width // 256),
        intermediate_size=3 * width,
        vocab_size=vocabulary,
        tie_word_embeddings=True,
        head_dim=64,
        bos_token_id=0,
        eos_token_id=1,
    )


LLMS: dict[str, Callable[[], PreTrainedConfig]] = {  # by what they are and their parameters
    "Llama, 40M": lambda: small_llm(512, 8, 32_000),
    "Qwen2, 160M": lambda: small_llm(768, 12, 128_000, Qwen2Config),
    "Qwen3, 100M": lambda: small_llm(640, 16, 64_000, Qwen3Config),
    "Llama, 280M": lambda: small_llm(1024, 20, 64_000),
}


@dataclass(frozen=True)
class Case:
    """A configuration."""

    llm: str
    method: str = "omni-avsr-st"
    dtype: str = "float32"
    precision: str = "32-true"
    checkpointing: bool = False
    clips: int = 4
    frames: int = 100
    beams: int = 3
    audio: str = "openai/whisper-tiny"
    video: str = "tiny-video"

    def settings(self, folder: Path) -> TrainSettings:
        """The settings of its training; the LLM's config is written to a folder."""
        LLMS[self.llm]().save_pretrained(folder)
        return TrainSettings(
            llm=str(folder),
            audio_encoder=self.audio,
            video_encoder=self.video,
            method=self.method,
            rates_in_a_step="all" if "mtsk" in self.method else "fixed",
            cache_copies=0,
            gradient_checkpointing=self.checkpointing,
            max_new_tokens=NEW_TOKENS,
        )

    @property
    def batch(self) -> Clips:
        """Its clips."""
        return Clips(self.clips, self.frames, tokens=self.frames // 6)

    @property
    def numbers(self) -> str:
        """Types and checkpointing in words."""
        how = f"{self.dtype}, {self.precision}"
        return f"{how}, checkpointing" if self.checkpointing else how


MIXED = {"dtype": "bfloat16", "precision": "bf16-mixed"}
CASES = (
    Case("Llama, 40M"),
    Case("Llama, 40M", "llama-mtsk-mss", checkpointing=True),
    Case("Qwen2, 160M", "llama-avsr", clips=2, frames=150, audio="openai/whisper-base"),
    Case("Qwen2, 160M", **MIXED, video="base", clips=3),
    Case("Qwen2, 160M", **MIXED, checkpointing=True, video="base", clips=3, beams=1),
    Case("Qwen3, 100M", "llama-mtsk-ms", precision="bf16-mixed"),
    Case("Qwen3, 100M", "omni-avsr-s", **MIXED, clips=1, frames=300, beams=10),
    Case("Llama, 280M", "omni-avsr-t", dtype="bfloat16", clips=2),
    Case("Llama, 280M", checkpointing=True, clips=6, frames=75),
)


def main(
    write: Annotated[
        Path | None, typer.Option(help="Write the table to this page, between its two marks.")
    ] = None,
    one: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Prints a row for each configuration."""
    if one:
        print(json.dumps(measure(Case(**json.loads(one)))))
        return
    found = sheet()
    yardstick.show(found)
    if write:
        yardstick.write_tables(write, [found], BEGIN, END)


def sheet() -> yardstick.Sheet:
    """The table of all configurations."""
    rows = []
    for case in CASES:
        found = yardstick.apart(MODULE, "--one", json.dumps(asdict(case)), threads=1)
        rows.append(row(case, found))
        print(rows[-1], flush=True)
    return yardstick.Sheet(f"Plan and measurement, {yardstick.machine(1)}", COLUMNS, rows)


def row(case: Case, found: dict[str, float]) -> tuple[str, ...]:
    """A configuration's line of the table."""
    return (
        case.llm,
        case.method,
        case.numbers,
        f"{found['weights']:.0f}",
        f"{found['step planned']:.0f}",
        f"{found['step']:.0f}",
        f"{found['step planned'] / found['step'] - 1:+.1%}",
        f"{found['decoding planned']:.0f}",
        f"{found['decoding']:.0f}",
        f"{found['decoding planned'] / found['decoding'] - 1:+.1%}",
    )


def measure(case: Case) -> dict[str, float]:
    """What the plan says, and what was measured, in MiB over the weights."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        settings = case.settings(Path(folder))
        planned = _planned(case, settings)
        model, processor = built(settings, to_dtype(case.dtype), "cpu")
    weights = sum(weight.nbytes for weight in model.parameters()) / MIB
    decoding = _allocated(lambda: _decode(case, model, processor))
    if case.precision != "32-true":
        leave_casting_to_autocast(model)
    model.train()
    step = _allocated(lambda: _steps(case, settings, model, processor))
    return {"weights": weights, "step": step, "decoding": decoding, **planned}


def _planned(case: Case, settings: TrainSettings) -> dict[str, float]:
    rehearsal = Rehearsal(settings, to_dtype(case.dtype), case.precision, gpu=False)
    weights = rehearsal.phantoms.alive
    decoding = rehearsal.decode(case.batch, case.beams, NEW_TOKENS)
    step = rehearsal.train(case.batch)
    return {
        "step planned": (max(step.peak, step.encoders.peak + step.state) - weights) / MIB,
        "decoding planned": (decoding.peak - weights) / MIB,
    }


def _steps(case: Case, settings: TrainSettings, model: Any, processor: Any) -> None:
    """Two steps, as the optimizer's state is there from the second on."""
    no_data: Any = SimpleNamespace(clips=[None])
    training = Training(model, processor, settings, no_data)
    training.log_dict = lambda *_, **__: None  # there is no trainer that logs
    optimizer: Any = training.configure_optimizers()["optimizer"]
    batch = case.batch.batch(_random(case.batch.media(model.config.streams)), None)
    dtype = AUTOCAST.get(case.precision)
    for number in range(2):
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            loss = training.training_step(batch, number)
        assert loss is not None
        loss.backward()
        trained = [weight for group in optimizer.param_groups for weight in group["params"]]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()


def _random(media: Any) -> Any:
    for tensor in (media.audio, media.video):
        if tensor is not None:
            tensor.normal_()
    return media


def _decode(case: Case, model: Any, processor: Any) -> None:
    model.eval()
    route = finest_route(model.config)
    with torch.no_grad():
        features = model.encode(_random(case.batch.media(route.modalities)))
        batch = processor.batch(features, route)
        model.generate_with_scores(batch, case.beams, NEW_TOKENS)


def _allocated(work: Callable[[], None]) -> float:
    """The most MiB that torch's allocator has handed out at a time, over what it had before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak / MIB


if __name__ == "__main__":
    typer.run(main)
