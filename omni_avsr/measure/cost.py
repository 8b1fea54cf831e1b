"""What a model is made of and what it costs: parameters, tokens, and FLOPs on each route."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from omni_avsr.choice import chosen_model
from omni_avsr.errors import InputError
from omni_avsr.measure.phantom import Phantoms
from omni_avsr.model import Media, OmniAVSR, OmniAVSRConfig, OmniAVSRProcessor
from omni_avsr.model.sums import adapter_names
from omni_avsr.model.towers import locate_model
from omni_avsr.run import read_run
from omni_avsr.tasks import CROP_SIZE, MODALITIES, SAMPLE_RATE, VIDEO_FPS, Route, Row, Task

SECONDS = 4  # length of the speech whose FLOPs are counted
TRANSCRIPT = "three words a second"
PARTS = {
    "audio encoder": ("audio_encoder.",),
    "video encoder": ("video_encoder.",),
    "LLM": ("llm.",),
    "projectors": ("audio_compressor.", "video_compressor."),
    "aligner": ("aligner.",),
}


@dataclass(frozen=True)
class RouteCost:
    """What a second of speech costs on a route.

    The LLM reads it with its transcript; training adds the backward pass.
    """

    route: Route
    active_parameters: int
    encoder_gflops_per_second: float
    llm_gflops_per_second: float
    training_gflops_per_second: float  # of the LLM, forward and backward
    kept_megabytes_per_second: float  # what the forward pass keeps for the backward pass

    def as_json(self) -> Row:
        """Its object in `omni-avsr info --json`."""
        return {
            **self.route.as_row(),
            "active_parameters": self.active_parameters,
            "llm_tokens_per_second": self.route.tokens_per_second,
            "encoder_gflops_per_second": self.encoder_gflops_per_second,
            "llm_gflops_per_second": self.llm_gflops_per_second,
            "training_gflops_per_second": self.training_gflops_per_second,
            "kept_megabytes_per_second": self.kept_megabytes_per_second,
        }


@dataclass(frozen=True)
class ModelFacts:
    """What `omni-avsr info` says of a checkpoint."""

    checkpoint: str
    tasks: list[Task]
    audio_rates: list[int]
    video_rates: list[int]
    towers: dict[str, str | None]  # their names, by kind
    adapters: list[str]
    parameters: dict[str, int]  # by part
    costs: list[RouteCost]
    trained: Row  # how, if the checkpoint is in a run's folder
    ladders: dict[str, float]  # the doubt that is too much, for pairs of routes

    def as_json(self) -> Row:
        """What `omni-avsr info --json` prints."""
        return {**asdict(self), "costs": [cost.as_json() for cost in self.costs]}


def inspect(checkpoint: str | None, towers: Mapping[str, str | Path] | None = None) -> ModelFacts:
    """The facts of a checkpoint; `towers` says where moved towers are now, by their kind.

    No weights are read: the model is built without values, and so is what is computed.
    """
    name = chosen_model(checkpoint)
    moved = dict(towers or {})
    config = saved_config(name)
    processor = OmniAVSRProcessor.from_pretrained(name, towers=moved)
    with torch.device("meta"):
        model = OmniAVSR(config)
    phantoms = Phantoms()
    phantoms.adopt(model)
    places = _places(config, Path(locate_model(name)))
    costs = [route_cost(model, processor, route, phantoms) for route in config.routes()]
    return ModelFacts(
        checkpoint=name,
        tasks=[*map(Task, config.tasks)],
        audio_rates=list(config.audio_rates),
        video_rates=list(config.video_rates),
        towers=places | {kind: str(tower) for kind, tower in moved.items()},
        adapters=sorted(getattr(model.llm, "peft_config", {})),
        parameters=parameters(model),
        costs=costs,
        trained=trained(Path(name)),
        ladders=config.ladders,
    )


def saved_config(name: str | Path) -> OmniAVSRConfig:
    """The config of a model's folder or hub id, without its weights."""
    try:
        return OmniAVSRConfig.from_pretrained(locate_model(name))
    except OSError as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"no model {str(name)!r}: it is neither a run nor a model's folder, "
            f"and the hub says: {reason}"
        ) from None


def _places(config: OmniAVSRConfig, folder: Path) -> dict[str, str | None]:
    """Where the towers of the model in a folder are, or should be."""
    places = {}
    for kind, tower in config.towers.items():
        place = tower and tower["name"]
        if place and (folder / place).exists():
            place = str((folder / place).resolve())
        places[kind] = place
    return places


def parameters(model: OmniAVSR, size_of: Callable[[Tensor], int] = Tensor.numel) -> dict[str, int]:
    """The number of parameters of each part; LoRAs of all parts are counted together."""
    counts = dict.fromkeys([*PARTS, "LoRAs", "total", "trainable"], 0)
    for name, weight in model.named_parameters():
        size = size_of(weight)
        counts[_part(name)] += size
        counts["total"] += size
        if weight.requires_grad:
            counts["trainable"] += size
    return counts


def _part(name: str) -> str:
    if ".lora_" in name:
        return "LoRAs"
    for part, prefixes in PARTS.items():
        if name.startswith(prefixes):
            return part
    raise AssertionError(f"parameter {name} belongs to no part")


def active_parameters(model: OmniAVSR, route: Route) -> int:
    """The parameters that a route uses: its encoders, projectors and adapters, and the LLM."""
    count = 0
    for name, weight in model.named_parameters():
        if _is_used(name, model, route):
            count += weight.numel()
    return count


def _is_used(name: str, model: OmniAVSR, route: Route) -> bool:
    config = model.config
    owner, _, rest = name.partition(".")
    modality = owner.partition("_")[0]  # as in audio_encoder and audio_compressor
    if owner == "llm":
        adapter = name.split(".")[-2]  # as in ...q_proj.lora_A.shared.weight
        return ".lora_" not in name or adapter in adapter_names(config.adapters, route)
    if owner == "aligner":  # it finds when words are said, after they are known
        return False
    if modality in MODALITIES and modality not in route.modalities:
        return False
    if rest.startswith("projectors.") and config.projectors == "per_rate":
        rate = rest.split(".")[1]
        return rate == str(route.rate(modality))
    return True


def route_cost(
    model: OmniAVSR, processor: OmniAVSRProcessor, route: Route, phantoms: Phantoms
) -> RouteCost:
    """Counts what a second of speech costs on a route."""
    with phantoms:
        media = _silence(processor, route)
        with phantoms.measured() as encoders, torch.no_grad():
            features = model.encode(media)
        batch = processor.batch(features, route, [TRANSCRIPT])
        with phantoms.measured() as forward:
            loss = model(batch).loss
        with phantoms.measured() as backward:
            if loss.requires_grad:
                loss.backward()
        model.zero_grad(set_to_none=True)
    return RouteCost(
        route=route,
        active_parameters=active_parameters(model, route),
        encoder_gflops_per_second=encoders.flops / SECONDS / 1e9,
        llm_gflops_per_second=forward.flops / SECONDS / 1e9,
        training_gflops_per_second=(forward.flops + backward.flops) / SECONDS / 1e9,
        kept_megabytes_per_second=(forward.after - forward.before) / SECONDS / 1e6,
    )


def _silence(processor: OmniAVSRProcessor, route: Route) -> Media:
    """A clip of zeros with what the route needs."""
    audio = [torch.zeros(SECONDS * SAMPLE_RATE)] if route.task.hears else None
    frames = torch.zeros(SECONDS * VIDEO_FPS, CROP_SIZE, CROP_SIZE)
    video = [frames] if route.task.sees else None
    return processor.media(audio, video)


def training_step(per_route: Mapping[Route, float], rates_in_a_step: str) -> float:
    """What all passes of a training step cost together, given what each route costs.

    Sampled rates cost their mean.
    """
    by_task: dict[Task, list[float]] = {}
    for route, cost in per_route.items():
        by_task.setdefault(route.task, []).append(cost)
    total = 0.0
    for costs in by_task.values():
        if rates_in_a_step == "fixed":
            total += costs[0]
        elif rates_in_a_step == "sampled":
            total += sum(costs) / len(costs)
        else:
            total += sum(costs)
    return total


def trained(model: Path) -> Row:
    """How a model was trained, from the run's folder that it is in; empty outside of a run."""
    record = read_run(model.parent)
    if record is None:
        return {}
    settings = record.settings
    facts = {"started": record.started, "commit": record.commit}
    data = ("data",) if settings.get("data") else ("toy_world", "toy_language", "toy_clips")
    weights = "from_" if settings.get("from_") else "method"
    for name in (weights, *data, "max_steps", "seed"):
        facts[name.removesuffix("_")] = settings.get(name)
    return facts
