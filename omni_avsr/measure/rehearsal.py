"""A training step and the decoding of a batch, rehearsed on phantoms of a model of any size.

The code that runs is the one that trains and decodes, so what it needs is counted, not estimated.
Only weights of 8 or 4 bits have a stand-in, as their kernels do not take phantoms.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerFast

from omni_avsr.choice import model_of
from omni_avsr.errors import InputError
from omni_avsr.measure import cost
from omni_avsr.measure.phantom import Phantoms, Spent
from omni_avsr.measure.sizes import config_of, known_sizes
from omni_avsr.model import Features, Media, OmniAVSR, OmniAVSRConfig, OmniAVSRProcessor, towers
from omni_avsr.model.adapters import leave_casting_to_autocast, plain
from omni_avsr.model.avhubert import CHUNK, FrontEnd
from omni_avsr.model.gguf import readable, where
from omni_avsr.model.precision import AUTOCAST
from omni_avsr.model.vocabulary import token_settings
from omni_avsr.settings import TrainSettings
from omni_avsr.tasks import CROP_SIZE, SAMPLES_PER_VIDEO_FRAME, VIDEO_FPS, Route
from omni_avsr.train.batches import TrainingBatch
from omni_avsr.train.step import Training

WORDS = ("<s>", "</s>", "<unk>", "word")
# Bytes of a weight with the scales of its block, as bitsandbytes keeps them
QUANTISED = {"8bit": 1.0, "4bit": 0.5 + 1 / 64 + 4 / (64 * 256)}
ADAM_STATES = 2  # numbers that AdamW keeps for each that is trained
REHEARSED_TOKENS = 4  # of a transcript; all that follow cost the same more


@dataclass(frozen=True)
class Clips:
    """A batch of clips whose lengths in video frames differ a little, so that padding is masked."""

    count: int
    frames: int
    tokens: int  # of a transcript

    @property
    def lengths(self) -> list[int]:
        """Frames of each clip."""
        return [self.frames - place % 2 for place in range(self.count)]

    @property
    def text(self) -> str:
        """The transcript of each."""
        return " ".join(["word"] * self.tokens)

    def media(self, modalities: Sequence[str]) -> Media:
        """Their sounds and mouths."""
        audio = video = None
        lengths = torch.tensor(self.lengths)
        if "audio" in modalities:
            audio = torch.empty(self.count, self.frames * SAMPLES_PER_VIDEO_FRAME)
        if "video" in modalities:
            video = torch.empty(self.count, self.frames, CROP_SIZE, CROP_SIZE)
        return Media(audio, lengths * SAMPLES_PER_VIDEO_FRAME, video, lengths)

    def batch(self, media: Media | None, features: Features | None) -> TrainingBatch:
        """A batch of training."""
        return TrainingBatch(
            texts=[self.text] * self.count,
            seconds=[frames / VIDEO_FPS for frames in self.lengths],
            media=media,
            features=features,
        )


@dataclass(frozen=True)
class StepCost:
    """What a training step took."""

    encoders: Spent  # when the clips are encoded, in the step or before the training
    passes: dict[Route, Spent]  # of the LLM, forward
    learning: Spent  # all that follows the encoders, but for the optimizer
    state: int  # bytes of the optimizer's state, which all steps but the first begin with
    features: int  # bytes, with what the encoders keep for the backward pass

    @property
    def peak(self) -> int:
        """The most bytes in any but the first step, once the clips are encoded."""
        return self.learning.peak + self.state


@dataclass(frozen=True)
class DecodingCost:
    """What decoding a batch took, in bytes at the peak."""

    encoders: int
    prefix: int  # of the pass over what comes before the transcripts
    last_token: int  # of the longest transcript
    cache: int  # keys and values of all clips and beams at the end

    @property
    def peak(self) -> int:
        """The most bytes at a time."""
        return max(self.encoders, self.prefix, self.last_token)


class Rehearsal:
    """A model without values, and what a batch costs with it."""

    def __init__(self, settings: TrainSettings, dtype: torch.dtype, precision: str, gpu: bool):
        if settings.step_rates == "sampled":
            settings = replace(settings, rates_in_a_step="fixed")
        self.settings = settings
        self.precision = precision
        self.phantoms = Phantoms()
        self.model, self.processor = built(settings, dtype)
        self.parameters = cost.parameters(self.model)
        self._prepare(gpu)
        self.phantoms.adopt(self.model)
        self.weights = cost.parameters(self.model, lambda weight: weight.nbytes)  # bytes by part

    def _prepare(self, gpu: bool) -> None:
        model = self.model
        if self.settings.quantize:
            _quantise(plain(model.llm).get_decoder(), QUANTISED[self.settings.quantize])
        for module in model.modules():
            if isinstance(module, FrontEnd) and gpu:
                module.chunk = CHUNK
        model.rows_together = gpu

    def train(self, clips: Clips) -> StepCost:
        """What a step costs whose rates are the finest."""
        if self.precision != "32-true":
            leave_casting_to_autocast(self.model)
        step = _Step(self.model.train(), self.processor, self.settings, self.phantoms)
        with self.phantoms:
            batch = self._batch(clips, step)
            with self.phantoms.measured() as step.learning:
                with self._autocast():
                    loss = step.training_step(batch, 0)
                assert loss is not None
                loss.backward()
            self.model.zero_grad(set_to_none=True)
        state = ADAM_STATES * self.weights["trainable"]
        return StepCost(step.encoders, step.passes, step.learning, state, step.features)

    def encode(self, clips: Clips) -> Spent:
        """What the encoders take."""
        with self.phantoms:
            media = clips.media(self.model.config.streams)
            _, spent = self._encoded(media)
        return spent

    def _encoded(self, media: Media) -> tuple[Features, Spent]:
        """The features: of a training step, or as they are encoded before the training."""
        before = bool(self.settings.cache_copies)
        with (
            torch.set_grad_enabled(not before),
            self._autocast(not before),
            self.phantoms.measured() as spent,
        ):
            if before:
                features = _stored(self.model.encode_frozen(media))
            else:
                features = self.model.encode(media)
        return features, spent

    def _batch(self, clips: Clips, step: "_Step") -> TrainingBatch:
        """The batch of the step, with features if they are encoded before the training."""
        media = clips.media(self.model.config.streams)
        if not self.settings.cache_copies:
            return clips.batch(media, None)
        features, step.encoders = self._encoded(media)
        return clips.batch(None, features)

    def _autocast(self, wanted: bool = True) -> torch.autocast:
        # Phantoms are tensors of a CPU
        dtype = AUTOCAST.get(self.precision) if wanted else None
        return torch.autocast("cpu", dtype, enabled=dtype is not None)

    @torch.no_grad()
    def route_flops(self, clips: Clips, step: StepCost) -> dict[Route, float]:
        """FLOPs of the LLM on each route, forward and backward.

        The backward pass is that of the step, in proportion.
        """
        forward = {}
        text = [clips.text] * clips.count
        with self.phantoms, self._autocast():
            features = self.model.encode(clips.media(self.model.config.streams))
            for route in self.model.config.routes():
                with self.phantoms.measured() as spent:
                    self.model(self.processor.batch(features, route, text))
                forward[route] = spent.flops
        of_passes = sum(forward[route] for route in step.passes)
        training = step.learning.flops / of_passes
        return {route: training * flops for route, flops in forward.items()}

    @torch.no_grad()
    def decode(self, clips: Clips, beams: int, max_new_tokens: int) -> DecodingCost:
        """What decoding costs on the finest route."""
        route = finest_route(self.model.config)
        model = self.model.eval()
        calls = _Calls(self.phantoms)
        with self.phantoms:
            media = clips.media(route.modalities)
            with self.phantoms.measured() as encoders:
                features = model.encode(media)
            batch = self.processor.batch(features, route)
            handle = plain(model.llm).get_decoder().register_forward_pre_hook(calls)
            with self.phantoms.measured():
                model.generate_with_scores(batch, beams, REHEARSED_TOKENS)
                calls()
            handle.remove()
        return calls.cost(encoders, max_new_tokens)


class _Calls:
    """The peak of each call of the decoder: of the prefix, and of one token after another."""

    def __init__(self, phantoms: Phantoms):
        self.phantoms = phantoms
        self.peaks: list[int] = []
        self.alive: list[int] = []

    def __call__(self, *_: object) -> None:
        """Ends the call before, and whatever followed it."""
        self.peaks.append(self.phantoms.peak)
        self.alive.append(self.phantoms.alive)
        self.phantoms.peak = self.phantoms.alive

    def cost(self, encoders: Spent, max_new_tokens: int) -> DecodingCost:
        """What decoding transcripts of so many tokens costs."""
        _, prefix, *tokens = self.peaks
        more = max_new_tokens - REHEARSED_TOKENS
        growth = tokens[-1] - tokens[-2]
        cached = self.alive[-2] - self.alive[0] + more * (self.alive[-2] - self.alive[-3])
        return DecodingCost(encoders.peak, prefix, tokens[-1] + more * growth, cached)


class _Step(Training):
    """A training step that measures its passes."""

    def __init__(
        self,
        model: OmniAVSR,
        processor: OmniAVSRProcessor,
        settings: TrainSettings,
        phantoms: Phantoms,
    ):
        no_data: Any = SimpleNamespace(clips=[None])
        super().__init__(model, processor, settings, no_data)
        self.phantoms = phantoms
        self.encoders = Spent()
        self.passes: dict[Route, Spent] = {}
        self.learning = Spent()
        self.features = 0  # bytes

    def _features(self, batch: TrainingBatch) -> Features:
        if batch.features is not None:
            given = batch.features
            with self.phantoms.measured() as rest:
                features = super()._features(batch)
            self.features = sum(given.of(name)[0].nbytes for name in given.modalities)
            self.features += rest.after - rest.before
            return features
        with self.phantoms.measured() as self.encoders:
            features = super()._features(batch)
        self.features = self.encoders.after - self.encoders.before
        self.phantoms.restart()  # what follows is measured without them
        return features

    def _loss(self, features: Features, route: Route, texts: Sequence[str]) -> Tensor:
        with self.phantoms.measured() as self.passes[route]:
            return super()._loss(features, route, texts)

    def _show(self, *_: object) -> None:
        """Shows nothing, as there is no trainer."""


def built(
    settings: TrainSettings, dtype: torch.dtype, device: str = "meta"
) -> tuple[OmniAVSR, OmniAVSRProcessor]:
    """The model of a training with random weights, its finest rates first, and a processor.

    A word is a token to the processor. On the meta device the weights have no values.
    """
    tokenizer = _tokenizer()
    with torch.device(device):
        if settings.from_ is None:
            model = _new(settings, dtype, tokenizer)
        else:
            model = _saved(settings.from_, dtype, tokenizer)
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable()
    _finest_first(model.config)
    return model, OmniAVSRProcessor(tokenizer, model.config)


def _new(
    settings: TrainSettings, dtype: torch.dtype, tokenizer: PreTrainedTokenizerFast
) -> OmniAVSR:
    return OmniAVSR.from_towers(
        audio=tower_config("audio", settings.audio_encoder),
        video=tower_config("video", settings.video_encoder),
        llm=tower_config("llm", settings.llm),
        tokenizer=tokenizer,
        dtype=dtype,
        **settings.model_settings(),
    )


def _saved(checkpoint: str, dtype: torch.dtype, tokenizer: PreTrainedTokenizerFast) -> OmniAVSR:
    config = cost.saved_config(model_of(checkpoint))
    config.update(token_settings(tokenizer, config.llm_config, config.task_tokens))
    modules = {}
    for kind in towers.KINDS:
        own = getattr(config, f"{kind}_config")
        if own is not None:
            modules[kind] = towers.build(kind, own, dtype)
    return OmniAVSR(config, modules)


def tower_config(kind: str, name: str) -> PreTrainedConfig:
    """The config of a tower: from the table of sizes, a folder, a GGUF file or the hub."""
    known = config_of(kind, name)
    if known is not None:
        return known
    place = towers.locate(name)
    try:
        with readable(place):
            return AutoConfig.from_pretrained(**where(place))
    except OSError as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"no sizes of the {kind} tower {name!r}: it is none of "
            f"{', '.join(known_sizes(kind))}, no folder, and the hub says: {reason}"
        ) from None


def _tokenizer() -> PreTrainedTokenizerFast:
    known = {word: place for place, word in enumerate(WORDS)}
    words = Tokenizer(WordLevel(known, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def finest_route(config: OmniAVSRConfig) -> Route:
    """The last task, which has the most modalities, at the rates that make the most tokens."""
    return config.routes([min(config.audio_rates)], [min(config.video_rates)])[-1]


def _finest_first(config: OmniAVSRConfig) -> None:
    """Sorts the rates, as the first are those of a step whose rates are fixed."""
    config.audio_rates = sorted(config.audio_rates)
    config.video_rates = sorted(config.video_rates)


def _stored(features: Features) -> Features:
    """The features as a feature store gives them back."""
    audio, video = features.audio, features.video
    return Features(
        None if audio is None else audio.half().float(),
        features.audio_lengths,
        None if video is None else video.half().float(),
        features.video_lengths,
    )


def _quantise(decoder: nn.Module, bytes_of_weight: float) -> None:
    """Puts stand-ins for quantised weights in the place of the frozen linear layers."""
    for module in list(decoder.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Linear and not child.weight.requires_grad:
                setattr(module, name, _Quantised(child, bytes_of_weight))


class _Quantised(nn.Linear):
    """A linear layer whose weight takes fewer bytes, and is unpacked whenever it is used."""

    def __init__(self, layer: nn.Linear, bytes_of_weight: float):
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.bias = layer.bias
        packed = round(layer.weight.numel() * bytes_of_weight)
        empty = torch.empty(packed, dtype=torch.uint8, device="meta")
        self.weight = nn.Parameter(empty, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            x = x.to(torch.get_autocast_dtype("cpu"))
        product: Tensor = _Unpacked.apply(x, self.weight, self.out_features)
        return product if self.bias is None else product + self.bias


class _Unpacked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, width: int) -> Tensor:
        ctx.shape = (width, x.shape[-1])
        return F.linear(x, x.new_empty(ctx.shape))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grads
        return grad @ grad.new_empty(ctx.shape), None, None
