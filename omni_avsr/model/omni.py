"""OmniAVSR: routes sound and lips through shared encoders and compressors into one language model.

A forward is one task at one rate per modality. What the encoders give can be shared by all tasks and rates of a step:
call `encode` once and pass its result as `features`.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer, PreTrainedModel
from transformers.utils import ModelOutput

from omni_avsr import methods
from omni_avsr.model import adapters, checkpoint, towers
from omni_avsr.model.beams import beam_search
from omni_avsr.model.compress import Compressor, length_mask, similar
from omni_avsr.model.config import PLACEHOLDERS, TASK_TOKENS, OmniAVSRConfig
from omni_avsr.model.decorrelation import middle_layers, sink_losses
from omni_avsr.model.loss import label_loss
from omni_avsr.model.whisper import encode_audio
from omni_avsr.tasks import audio_frames

MEDIA = {"audio", "audio_lengths", "video", "video_lengths"}


@dataclass
class OmniAVSROutput(ModelOutput):
    """The loss and its part; without labels the logits of the last position."""

    loss: Tensor | None = None
    sink_loss: Tensor | None = None
    logits: Tensor | None = None  # (B, vocabulary)


class OmniAVSR(PreTrainedModel):
    """One model for ASR, VSR and AVSR."""

    config_class = OmniAVSRConfig
    base_model_prefix = ""
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    audio_encoder: Any  # a WhisperEncoder or None
    video_encoder: Any  # an AVHubertEncoder, under PEFT if it has a LoRA, or None
    llm: Any  # a causal language model, under PEFT if it has adapters
    rows_together = False  # as where sharded layers are gathered for each pass

    def __init__(
        self, config: OmniAVSRConfig, modules: dict[str, nn.Module] | None = None, load_from: Path | None = None
    ):
        """Random towers from the config unless modules are given; adapters are new unless there is a folder of them."""
        super().__init__(config)
        modules = modules or _random_towers(config)
        if not config.special_tokens:
            config.update(_tokens(None, modules["llm"].config, config.task_tokens))
        self.audio_encoder = modules.get("audio")
        self.video_encoder = modules.get("video")
        self.llm = modules["llm"]
        rows = 1 + max(checkpoint.embedded_ids(config))
        if rows > self.llm.get_input_embeddings().num_embeddings:
            self.llm.resize_token_embeddings(rows, mean_resizing=False)
            self.llm.requires_grad_(False)
        self._add_compressors()
        self._add_adapters(load_from)
        self.post_init()
        self.train(False)

    def _add_compressors(self):
        config = self.config
        width = self.llm.get_input_embeddings().embedding_dim
        for modality, norm in (("audio", config.audio_projector_norm), ("video", config.video_projector_norm)):
            encoder = self._encoder(modality)
            compressor = encoder and Compressor(
                (encoder.config.hidden_size, config.projector_width, width),
                list(config.rates(modality)),
                one=config.projectors == "one",
                stack=config.compression == "stack",
                norm=norm,
            )
            setattr(self, f"{modality}_compressor", compressor)

    def _add_adapters(self, load_from: Path | None):
        config, names = self.config, adapters.all_adapter_names(self.config)
        video_names = ["video"] if config.video_lora_rank and self.video_encoder else []
        if load_from is not None:
            self.llm = adapters.load_adapters(self.llm, load_from / "adapters", names)
            self.video_encoder = adapters.load_adapters(self.video_encoder, load_from / "video_adapter", video_names)
            return
        settings = {"targets": config.lora_targets, "dropout": config.lora_dropout}
        self.llm = adapters.add_adapters(self.llm, names, config.lora_rank, config.lora_alpha, **settings)
        video_lora = (config.video_lora_rank, config.video_lora_alpha)
        self.video_encoder = adapters.add_adapters(self.video_encoder, video_names, *video_lora)

    def init_weights(self):
        """Nothing: towers, projectors and adapters have initialised themselves, LoRA's second matrix to zero."""

    @classmethod
    def from_towers(
        cls,
        audio: towers.Source | None = None,
        video: towers.Source | None = None,
        llm: towers.Source | None = None,
        *,
        tokenizer=None,
        method: str = "omni-avsr-st",
        dtype: str | torch.dtype = torch.float32,
        **settings: Any,
    ) -> "OmniAVSR":
        """A new model on towers given as hub ids, local folders, or configs (random weights).

        The method sets tasks, rates, adapters and projectors; every field of OmniAVSRConfig overrides it.
        """
        sources = {k: s for k, s in {"audio": audio, "video": video, "llm": llm}.items() if s is not None}
        if "llm" not in sources:
            raise ValueError("from_towers needs llm=: a hub id, a folder or a config")
        unknown = settings.keys() - OmniAVSRConfig.__dataclass_fields__.keys()
        if unknown:
            raise ValueError(
                f"unknown settings {', '.join(sorted(unknown))}; see OmniAVSRConfig for those that there are"
            )
        modules = {kind: towers.build(kind, source, checkpoint.to_dtype(dtype)) for kind, source in sources.items()}
        if tokenizer is None and isinstance(llm, (str, Path)):
            tokenizer = AutoTokenizer.from_pretrained(towers.locate(llm))
        settings = {**methods.method(method).settings(), "method": method, **settings}
        config = OmniAVSRConfig(
            towers={kind: towers.record(source) for kind, source in sources.items()},
            **{f"{kind}_config": module.config.to_dict() for kind, module in modules.items()},
            **_tokens(tokenizer, modules["llm"].config, settings.get("task_tokens", TASK_TOKENS)),
            **settings,
        )
        return cls(config, modules)

    def _encoder(self, modality: str) -> PreTrainedModel | None:
        encoder = getattr(self, f"{modality}_encoder")
        return encoder and adapters.plain(encoder)

    def train(self, mode: bool = True) -> "OmniAVSR":
        """Trains what is trained; the encoders stay in eval mode, their BatchNorm statistics as they are."""
        super().train(mode)
        for encoder in (self.audio_encoder, self.video_encoder):
            if encoder is not None:
                encoder.eval()
        return self

    def encode(
        self,
        audio: Tensor | None = None,
        audio_lengths: Tensor | None = None,
        video: Tensor | None = None,
        video_lengths: Tensor | None = None,
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Each given modality's features (B, T, D) and lengths (B,) in frames, for any task and rate.

        Takes waveforms (B, S) and videos (B, T, 88, 88), padded with zeros, and their lengths; without, all are full.
        """
        features = {}
        for modality, given in (("audio", audio), ("video", video)):
            if given is not None and self._encoder(modality) is None:
                raise ValueError(f"this model has no {modality} tower: it does {', '.join(self.config.tasks)} alone")
        if audio is not None:
            samples = _lengths(audio, audio_lengths).tolist()
            frames = [audio_frames(n, self.config.exact_audio_length) for n in samples]
            features["audio"] = self._hear(audio, torch.tensor(frames, device=audio.device))
        if video is not None:
            features["video"] = self._see(video, _lengths(video, video_lengths))
        return features

    def _hear(self, audio: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        padded = self.config.audio_context == "padded"
        groups = similar(frames, at_once=padded)
        parts = [encode_audio(self.audio_encoder, audio[rows], frames[rows], padded) for rows, _ in groups]
        return _together(parts, groups), frames

    def _see(self, video: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        groups, parts = similar(frames), []
        for rows, width in groups:
            padding = ~length_mask(frames[rows], width)
            parts.append(self.video_encoder(video[rows, :width], padding if padding.any() else None))
        return _together(parts, groups), frames

    def embed(
        self,
        input_ids: Tensor,
        task: str,
        audio_rate: int | None = None,
        video_rate: int | None = None,
        features: dict[str, tuple[Tensor, Tensor]] | None = None,
        **media: Tensor,
    ) -> Tensor:
        """The LLM's inputs (B, L, D): text embedded, placeholders replaced by compressed media.

        Leaves the adapters of this task and these rates active.
        """
        rates = self.config.choose(task, audio_rate, video_rate)
        if media.keys() - MEDIA:
            raise TypeError(f"unknown arguments {', '.join(sorted(media.keys() - MEDIA))}")
        if features is None:
            features = self.encode(**{name: values for name, values in media.items() if name.split("_")[0] in rates})
        missing = [modality for modality in rates if modality not in features]
        if missing:
            raise ValueError(f"task {task!r} needs {' and '.join(missing)}, given: {', '.join(features) or 'nothing'}")
        adapters.activate(self.llm, adapters.adapter_names(self.config.adapters, task, rates))
        media_ids = [self.config.special_tokens[PLACEHOLDERS[m]] for m in rates]
        text_ids = input_ids.masked_fill(torch.isin(input_ids, input_ids.new_tensor(media_ids)), 0)
        embeds = adapters.plain(self.llm).get_input_embeddings()(text_ids)  # (B, L, D)
        for (modality, rate), placeholder in zip(rates.items(), media_ids, strict=True):
            compressor = getattr(self, f"{modality}_compressor")
            values, lengths = features[modality]
            if not self.training:
                _refuse_nan(modality, values, lengths)
            dtype = next(compressor.parameters()).dtype
            tokens = compressor(values.to(dtype), lengths, rate, self.config.keep_tail)  # (N, D)
            embeds = merge_media(embeds, input_ids == placeholder, tokens.to(embeds.dtype), modality)
        return embeds

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        task: str,
        labels: Tensor | None = None,
        **routing: Any,
    ) -> OmniAVSROutput:
        """The loss of one task at one rate per modality: cross-entropy over the labels, computed there alone.

        `routing` is what `embed` takes: audio_rate, video_rate, and media or features.
        """
        llm = adapters.plain(self.llm)
        embeds = self.embed(input_ids, task, **routing)
        if labels is None:
            decoded = llm.get_decoder()(inputs_embeds=embeds, attention_mask=attention_mask, use_cache=False)
            return OmniAVSROutput(logits=llm.get_output_embeddings()(decoded.last_hidden_state[:, -1]))
        layers = llm.get_decoder().layers if self.config.sink_loss_weight else nn.ModuleList()
        media = torch.isin(
            input_ids, input_ids.new_tensor([self.config.special_tokens[t] for t in PLACEHOLDERS.values()])
        )
        hidden, targets, sinks = [], [], []
        for rows, width in similar(1 + attention_mask.cumsum(1).argmax(1), self.rows_together):
            part = {"inputs_embeds": embeds[rows, :width], "attention_mask": attention_mask[rows, :width]}
            with middle_layers(layers) as outputs:
                decoded = llm.get_decoder()(**part, use_cache=False)
            labelled = labels[rows, 1:width] != -100
            hidden.append(decoded.last_hidden_state[:, :-1][labelled])  # (n, D)
            targets.append(labels[rows, 1:width][labelled])
            sinks.append(sink_losses(outputs, media[rows, :width]))
        loss = label_loss(llm.get_output_embeddings(), torch.cat(hidden), torch.cat(targets))
        if not self.config.sink_loss_weight:
            return OmniAVSROutput(loss=loss)
        squares = torch.cat(sinks)
        sink = squares.sum() / max(1, len(squares))
        return OmniAVSROutput(loss=loss + self.config.sink_loss_weight * sink, sink_loss=sink)

    def generate(self, *batch: Any, **options: Any) -> Tensor:
        """The transcripts' ids (B, new), ended by eos and padded; greedy with one beam, never sampled.

        Takes a batch without labels, num_beams and max_new_tokens, as generate_with_scores does.
        """
        return self.generate_with_scores(*batch, **options)[0]

    @torch.no_grad()
    def generate_with_scores(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        task: str,
        num_beams: int = 1,
        max_new_tokens: int = 32,
        **routing: Any,
    ) -> tuple[Tensor, Tensor]:
        """The transcripts' ids and their log-probabilities per token (B,)."""
        if num_beams < 1 or max_new_tokens < 1:
            raise ValueError(f"num_beams {num_beams} and max_new_tokens {max_new_tokens} must be 1 or more")
        if not attention_mask[:, -1].all():
            raise ValueError("decoding needs padding on the left: build the batch without text")
        was_training = self.training
        self.eval()
        embeds = self.embed(input_ids, task, **routing)
        eos, pad = self.config.eos_token_id, self.config.pad_token_id
        found = beam_search(adapters.plain(self.llm), embeds, attention_mask, num_beams, max_new_tokens, eos, pad)
        self.train(was_training)
        return found

    def activation_checkpointing_enable(self, activation_checkpointing_kwargs: dict | None = None, **options: Any):
        """Recomputes the LLM's layers in the backward pass, with the adapters that were active in the forward."""
        context = partial(adapters.recompute_context, self.llm)
        kwargs = {"use_reentrant": False, "context_fn": context, **(activation_checkpointing_kwargs or {})}
        super().activation_checkpointing_enable(kwargs, **options)

    def compile_layers(self, backend: str = "inductor") -> None:
        """Compiles the LLM's layers when they first run, for any length and once for each set of adapters."""
        for layer in adapters.plain(self.llm).get_decoder().layers:
            layer.compile(dynamic=True, backend=backend)

    def merge(self, task: str, audio_rate: int | None = None, video_rate: int | None = None) -> "OmniAVSR":
        """A model of this task alone, without adapters and with equal outputs; with scale adapters, of these rates."""
        rates = self.config.choose(task, audio_rate, video_rate)
        names = adapters.adapter_names(self.config.adapters, task, rates)
        modules = {"llm": adapters.merge(self.llm, names)}
        modules |= {m: adapters.merge(getattr(self, f"{m}_encoder"), ["video"]) for m in rates}
        config = OmniAVSRConfig.from_dict(self.config.to_dict())
        config.update({"tasks": [str(task)], "adapters": [], "video_lora_rank": 0, "towers": {}})
        for modality in ("audio", "video"):
            if modality not in rates:
                setattr(config, f"{modality}_config", None)
            elif "scale" in self.config.adapters:
                setattr(config, f"{modality}_rates", [rates[modality]])
        merged = type(self)(config, modules)
        for modality in rates:
            weights = getattr(self, f"{modality}_compressor").state_dict()
            compressor = getattr(merged, f"{modality}_compressor")
            compressor.load_state_dict({name: weights[name] for name in compressor.state_dict()})
        return merged.to(self.device)

    def save_pretrained(self, save_directory: str | Path, full: bool = False, **_: Any) -> None:
        """Writes what was trained and the towers' names; with full=True the towers too.

        Takes, and has no use for, the options that push_to_hub passes on.
        """
        checkpoint.save(self, Path(save_directory), full)

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> "OmniAVSR":
        """The model of a folder or hub id; towers={"llm": folder} says where a tower lies now."""
        return checkpoint.load(cls, name, **options)


def merge_media(embeds: Tensor, places: Tensor, tokens: Tensor, modality: str) -> Tensor:
    """The embeddings (B, L, D) with one media token (N, D) at each place (B, L)."""
    if places.sum() != len(tokens):
        raise ValueError(f"{places.sum()} placeholders for {len(tokens)} {modality} tokens: batch and rates disagree")
    return embeds.masked_scatter(places[..., None], tokens)


def _lengths(clips: Tensor, lengths: Tensor | None) -> Tensor:
    return torch.full((len(clips),), clips.shape[1], device=clips.device) if lengths is None else lengths


def _together(parts: list[Tensor], groups: list[tuple[Tensor, int]]) -> Tensor:
    """The rows (B, T, D) of groups, each where it was."""
    if len(parts) == 1:
        return parts[0]
    widest = max(part.shape[1] for part in parts)
    rows = torch.cat([F.pad(part, (0, 0, 0, widest - part.shape[1])) for part in parts])
    return rows[torch.cat([rows for rows, _ in groups]).argsort()]


def _refuse_nan(modality: str, values: Tensor, lengths: Tensor) -> None:
    bad = (~values.isfinite()).any(2) & length_mask(lengths, values.shape[1])  # (B, T)
    if bad.any():
        clips = bad.any(1).nonzero().flatten().tolist()
        raise ValueError(f"NaN or infinite {modality} features in clips {clips} of the batch, {int(bad.sum())} frames")


def _random_towers(config: OmniAVSRConfig) -> dict[str, nn.Module]:
    configs = {kind: getattr(config, f"{kind}_config") for kind in ("audio", "video", "llm")}
    return {kind: towers.build(kind, c, torch.float32) for kind, c in configs.items() if c is not None}


def _tokens(tokenizer, llm_config, task_tokens: dict[str, str]) -> dict[str, Any]:
    names = towers.special_token_names(task_tokens)
    known = llm_config if tokenizer is None else tokenizer
    pad = known.pad_token_id
    if known.eos_token_id is None:
        raise ValueError(f"this {llm_config.model_type} has no eos token, so no transcript would end")
    return {
        "special_tokens": towers.add_special_tokens(names, tokenizer, llm_config.vocab_size),
        "bos_token_id": known.bos_token_id,
        "eos_token_id": known.eos_token_id,
        "pad_token_id": known.eos_token_id if pad is None else pad,
    }


AutoModel.register(OmniAVSRConfig, OmniAVSR)
