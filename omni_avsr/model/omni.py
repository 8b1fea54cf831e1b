"""OmniAVSR: feeds sound and lips through shared encoders and compressors into one language model.

A forward pass is one route: a task at one rate per modality. The features of the encoders can be
shared by all routes of a step: call `encode` once and make each batch from its result.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoModel,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder
from transformers.utils import ModelOutput

from omni_avsr import methods
from omni_avsr.errors import InputError
from omni_avsr.model import adapters, checkpoint, sums, towers
from omni_avsr.model.aligner import Aligner
from omni_avsr.model.avhubert import AVHubertEncoder
from omni_avsr.model.batch import Batch, Features, Media
from omni_avsr.model.beams import Generated, Search
from omni_avsr.model.compress import (
    Compressor,
    group_by_length,
    length_mask,
    picked,
    sent,
    ungroup,
)
from omni_avsr.model.config import IGNORED, PLACEHOLDERS, TASK_TOKENS, OmniAVSRConfig
from omni_avsr.model.decorrelation import middle_layers, sink_losses
from omni_avsr.model.loss import label_loss
from omni_avsr.model.precision import Dtypes, of_tower
from omni_avsr.model.vocabulary import embedded_ids, token_settings
from omni_avsr.model.whisper import encode_audio
from omni_avsr.tasks import FRAME_RATES, MODALITIES, Route, audio_frames, longest_transcript

COMPILED_GRAPHS = 8  # of a layer with one set of adapters, at most; torch's own limit


@dataclass
class OmniAVSROutput(ModelOutput):
    """With labels, the loss and its decorrelation part; without, the last position's logits."""

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
    config: OmniAVSRConfig
    audio_encoder: nn.Module | None  # a WhisperEncoder
    video_encoder: nn.Module | None  # an AVHubertEncoder, wrapped by PEFT if it has a LoRA
    aligner: Aligner | None
    llm: nn.Module  # a causal language model, wrapped by PEFT if it has adapters
    # True if the LLM is sharded: every pass gathers its layers, so all rows run in one
    rows_together = False

    def __init__(
        self,
        config: OmniAVSRConfig,
        modules: dict[str, PreTrainedModel] | None = None,
        load_from: Path | None = None,
    ):
        """Builds the model around the towers in `modules`, or random ones made from the config.

        Adapters are new, or loaded from the folder `load_from`.
        """
        super().__init__(config)
        modules = modules or _random_towers(config)
        if not config.special_tokens:
            config.update(token_settings(None, modules["llm"].config, config.task_tokens))
        self.audio_encoder = modules.get("audio")
        self.video_encoder = modules.get("video")
        self.llm = modules["llm"]
        self._resize_vocabulary()
        self._add_compressors()
        self.add_aligner(config.characters)
        self._add_adapters(load_from)
        self.post_init()
        self.train(False)

    def _resize_vocabulary(self) -> None:
        rows = 1 + max(embedded_ids(self.config))
        if rows > self._embeddings().num_embeddings:
            adapters.plain(self.llm).resize_token_embeddings(rows, mean_resizing=False)
            self.llm.requires_grad_(False)  # the new matrix is trainable

    def _add_compressors(self) -> None:
        config = self.config
        llm_width = self._embeddings().embedding_dim
        norms = {"audio": config.audio_projector_norm, "video": config.video_projector_norm}
        for modality in MODALITIES:
            encoder = self._encoder(modality)
            compressor = None
            if encoder is not None:
                compressor = Compressor(
                    (encoder.config.hidden_size, config.projector_width, llm_width),
                    list(config.rates(modality)),
                    one=config.projectors == "one",
                    stack=config.compression == "stack",
                    norm=norms[modality],
                )
            setattr(self, f"{modality}_compressor", compressor)

    def add_aligner(self, characters: str) -> None:
        """Adds an aligner that tells these characters apart; without any there is none.

        What an earlier one knows of the encoders and of these characters is kept.
        """
        earlier = getattr(self, "aligner", None)
        self.config.characters = characters
        self.aligner = None
        if characters:
            encoders = {modality: self._encoder(modality) for modality in MODALITIES}
            widths = {name: own.config.hidden_size for name, own in encoders.items() if own}
            self.aligner = Aligner(widths, characters).to(self.device)
            if earlier is not None:
                self.aligner.learn_from(earlier)

    def _add_adapters(self, load_from: Path | None) -> None:
        config = self.config
        has_layers = config.llm_config.num_hidden_layers > 0  # or an engine runs them elsewhere
        names = sums.all_adapter_names(config) if has_layers else []
        video_names = ["video"] if config.video_lora_rank else []
        if load_from is not None:
            self.llm = adapters.load_adapters(self.llm, load_from / "adapters", names)
            if self.video_encoder is not None:
                self.video_encoder = adapters.load_adapters(
                    self.video_encoder, load_from / "video_adapter", video_names
                )
            return
        self.llm = adapters.add_adapters(
            self.llm,
            names,
            config.lora_rank,
            config.lora_alpha,
            config.lora_targets,
            config.lora_dropout,
        )
        if self.video_encoder is not None:
            self.video_encoder = adapters.add_adapters(
                self.video_encoder, video_names, config.video_lora_rank, config.video_lora_alpha
            )

    def init_weights(self) -> None:
        """Does nothing: towers, projectors and adapters have initialised themselves."""

    @classmethod
    def from_towers(
        cls,
        audio: towers.Source | None = None,
        video: towers.Source | None = None,
        llm: towers.Source | None = None,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        method: str = "omni-avsr-st",
        dtype: Dtypes = torch.float32,
        quantize: str | None = None,
        **settings: Any,
    ) -> "OmniAVSR":
        """A new model on towers given as hub ids, local folders, or configs (random weights).

        The method sets tasks, rates, adapters and projectors; any field of OmniAVSRConfig can be
        given to override it. The towers are kept in dtype, or the LLM's layers in 8bit or 4bit if
        quantize says so.
        """
        if llm is None:
            raise InputError("from_towers needs llm=: a hub id, a folder or a config")
        unknown = settings.keys() - OmniAVSRConfig.__dataclass_fields__.keys()
        if unknown:
            names = ", ".join(sorted(unknown))
            raise InputError(f"unknown settings {names}; OmniAVSRConfig lists the known ones")
        sources = {"audio": audio, "video": video, "llm": llm}
        origins: dict[str, towers.Origin | None] = {}
        modules: dict[str, PreTrainedModel] = {}
        configs: dict[str, PreTrainedConfig] = {}
        for kind, source in sources.items():
            if source is not None:
                tower = towers.build(kind, source, of_tower(dtype, kind), quantize=quantize)
                modules[kind] = tower
                configs[kind] = tower.config
                origins[kind] = towers.record(source)
        if tokenizer is None and isinstance(llm, str | Path):
            tokenizer = towers.read_tokenizer(towers.locate(llm))
        settings = {**methods.method(method).settings(), "method": method, **settings}
        task_tokens = settings.get("task_tokens", TASK_TOKENS)
        tokens = token_settings(tokenizer, configs["llm"], task_tokens)
        fields: methods.ConfigFields = {}
        for kind, config in configs.items():
            fields[f"{kind}_config"] = config.to_dict()
            fields[f"{kind}_config"].pop("quantization_config", None)  # chosen anew at each load
        return cls(OmniAVSRConfig(towers=origins, **fields, **tokens, **settings), modules)

    def _encoder(self, modality: str) -> PreTrainedModel | None:
        encoder = getattr(self, f"{modality}_encoder")
        return None if encoder is None else adapters.plain(encoder)

    @property
    def _video_encoder(self) -> AVHubertEncoder:
        encoder = self._encoder("video")
        assert isinstance(encoder, AVHubertEncoder)
        return encoder

    def _embeddings(self) -> nn.Embedding:
        embeddings = adapters.plain(self.llm).get_input_embeddings()
        assert isinstance(embeddings, nn.Embedding)
        return embeddings

    def _compressor(self, modality: str) -> Compressor:
        return getattr(self, f"{modality}_compressor")

    def train(self, mode: bool = True) -> "OmniAVSR":
        """Sets the training mode; the encoders stay in eval mode, so BatchNorm does not drift."""
        super().train(mode)
        for encoder in (self.audio_encoder, self.video_encoder):
            if encoder is not None:
                encoder.eval()
        return self

    # Media to features

    def encode(self, media: Media) -> Features:
        """Encodes whichever of audio and video are given; the features serve any task and rate."""
        for modality in MODALITIES:
            given = getattr(media, modality) is not None
            if given and self._encoder(modality) is None:
                tasks = ", ".join(self.config.tasks)
                raise InputError(f"this model has no {modality} tower: it only does {tasks}")
        audio = video = audio_lengths = video_lengths = None
        if media.audio is not None:
            audio, audio_lengths = self._encode_audio(media.audio, media.audio_lengths)
        if media.video is not None:
            video, video_lengths = self._encode_video(media.video, media.video_lengths)
        return Features(audio, audio_lengths, video, video_lengths)

    def encode_frozen(self, media: Media) -> Features:
        """What the encoders' layers before the first trained one make of media.

        It can be computed once and kept. With a LoRA in the video encoder the video is the vectors
        of its front end; without, these are the features.
        """
        if media.video is None or not self.config.video_lora_rank:
            return self.encode(media)
        lengths = _or_full(media.video_lengths, media.video)
        valid = length_mask(lengths, media.video.shape[1])
        vectors = self._video_encoder.vectors(media.video, valid)
        heard = self.encode(replace(media, video=None))
        return replace(heard, video=vectors, video_lengths=lengths)

    def encode_rest(self, frozen: Features) -> Features:
        """The features, from what `encode_frozen` has made of media."""
        if frozen.video is None or not self.config.video_lora_rank:
            return frozen
        encoder = self._video_encoder
        vectors, lengths = frozen.of("video")
        vectors = vectors.to(encoder.dtype)
        return replace(frozen, video=_in_groups(encoder.in_context, vectors, lengths))

    def _encode_audio(self, audio: Tensor, samples: Tensor | None) -> tuple[Tensor, Tensor]:
        padded = self.config.audio_context == "padded"
        exact = self.config.exact_audio_length
        counts = [audio_frames(n, exact) for n in _or_full(samples, audio).tolist()]
        frames = torch.tensor(counts)  # (B,)
        # Padded, all are 30 s long
        groups = group_by_length(frames, audio.device, all_together=padded)
        encoder = self._encoder("audio")
        assert isinstance(encoder, WhisperEncoder)
        parts = []
        for rows, _ in groups:
            parts.append(encode_audio(encoder, audio[rows], frames[rows], padded))
        return ungroup(parts, groups), frames

    def _encode_video(self, video: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        frames = _or_full(lengths, video)  # (B,)
        assert self.video_encoder is not None
        return _in_groups(self.video_encoder, video, frames), frames

    # Features to the LLM's inputs

    def embed(self, batch: Batch) -> Tensor:
        """The LLM's inputs (B, L, D): text is embedded, placeholders are replaced by media tokens.

        The adapters of the batch's route stay active.
        """
        features = self._features(batch)
        self.activate_adapters(batch.route)
        embeds = self._embed_text(batch.input_ids)
        for modality in batch.route.modalities:
            tokens = self._media_tokens(features, modality, batch.route.rate(modality))
            places = batch.input_ids == self._placeholder(modality)
            embeds = merge_media(embeds, places, tokens.to(embeds.dtype), modality)
        return embeds

    def _features(self, batch: Batch) -> Features:
        """The batch's features; if it holds media, encodes the modalities that its route needs."""
        route = batch.route
        self.config.choose(route.task, route.audio_rate, route.video_rate)  # refuses untrained ones
        features = batch.features
        if features is None:
            given = batch.media or Media()
            needed = Media(
                audio=given.audio if route.task.hears else None,
                audio_lengths=given.audio_lengths,
                video=given.video if route.task.sees else None,
                video_lengths=given.video_lengths,
            )
            features = self.encode(needed)
        missing = [name for name in route.modalities if name not in features.modalities]
        if missing:
            raise InputError(
                f"task '{route.task}' needs {' and '.join(missing)}, "
                f"given: {', '.join(features.modalities) or 'nothing'}"
            )
        return features

    def activate_adapters(self, route: Route) -> None:
        """Makes the LLM's next passes those of a route."""
        adapters.activate(self.llm, sums.adapter_names(self.config.adapters, route))

    def _placeholder(self, modality: str) -> int:
        return self.config.special_tokens[PLACEHOLDERS[modality]]

    def _is_media(self, input_ids: Tensor) -> Tensor:
        """True at the placeholders of media tokens."""
        placeholders = [self._placeholder(modality) for modality in MODALITIES]
        return torch.isin(input_ids, input_ids.new_tensor(placeholders))

    def _embed_text(self, input_ids: Tensor) -> Tensor:
        # Placeholders have no embedding: token 0 stands in until merge_media replaces it
        text_ids = input_ids.masked_fill(self._is_media(input_ids), 0)
        embeddings = self._embeddings()
        return embeddings(sent(text_ids, embeddings.weight.device))  # (B, L) -> (B, L, D)

    def _media_tokens(self, features: Features, modality: str, rate: int) -> Tensor:
        """The tokens (N, D) of all clips at a rate."""
        values, lengths = features.of(modality)
        if not self.training:
            _refuse_nan(modality, values, lengths)
        return self._compressor(modality)(values, lengths, rate, self.config.keep_tail)

    # Loss and decoding

    def forward(self, batch: Batch) -> OmniAVSROutput:
        """With labels, the loss; without, the logits of the last position."""
        embeds = self.embed(batch)
        if batch.labels is None:
            return OmniAVSROutput(logits=self._last_logits(embeds, batch.attention_mask))
        hidden, targets, sinks = self._run_llm(embeds, batch, batch.labels)
        head = adapters.plain(self.llm).get_output_embeddings()
        loss = label_loss(head, hidden, targets)
        if not self.config.sink_loss_weight:
            return OmniAVSROutput(loss=loss)
        sink = sinks.sum() / max(1, len(sinks))  # the mean, or 0 without media
        return OmniAVSROutput(loss=loss + self.config.sink_loss_weight * sink, sink_loss=sink)

    def _last_logits(self, embeds: Tensor, attention_mask: Tensor) -> Tensor:
        llm = adapters.plain(self.llm)
        decoder = llm.get_decoder()
        mask = sent(attention_mask, embeds.device)
        decoded = decoder(inputs_embeds=embeds, attention_mask=mask, use_cache=False)
        return llm.get_output_embeddings()(decoded.last_hidden_state[:, -1])

    def _run_llm(
        self, embeds: Tensor, batch: Batch, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The hidden vectors (N, D) that predict the labels, the labels (N,), and the sink losses.

        Rows of similar length run together, so that short rows are not padded to the longest. No
        mask is needed, as padding at the end is in no token's past: attention runs its fastest
        kernel.
        """
        decoder = adapters.plain(self.llm).get_decoder()
        layers = decoder.layers if self.config.sink_loss_weight else nn.ModuleList()
        media = self._is_media(batch.input_ids)
        hidden, targets, sinks = [], [], []
        lengths = batch.attention_mask.sum(1)
        for rows, longest in group_by_length(lengths, embeds.device, self.rows_together):
            with middle_layers(layers) as outputs:
                decoded = decoder(inputs_embeds=embeds[rows, :longest], use_cache=False)
            next_labels = F.pad(labels[rows, 1:longest], (0, 1), value=IGNORED)  # (b, l)
            is_label = next_labels != IGNORED
            hidden.append(picked(decoded.last_hidden_state, is_label))
            targets.append(next_labels[is_label])
            sinks.append(sink_losses(outputs, media[rows, :longest]))
        return torch.cat(hidden), sent(torch.cat(targets), embeds.device), torch.cat(sinks)

    def generate(
        self, batch: Batch, num_beams: int = 1, max_new_tokens: int | Sequence[int] | None = None
    ) -> Tensor:
        """The ids (B, new) of the transcripts, ended by eos and padded.

        One beam is greedy decoding; nothing is sampled. Takes a batch without labels. The limit is
        for all clips or for each; by default it grows with the length of the clip.
        """
        return self.generate_with_scores(batch, num_beams, max_new_tokens).ids

    def generate_with_scores(
        self, batch: Batch, num_beams: int = 1, max_new_tokens: int | Sequence[int] | None = None
    ) -> Generated:
        """The ids of the transcripts, their log-probabilities per token, and which were cut."""
        was_training = self.training
        self.eval()
        found = self.search(batch, num_beams, max_new_tokens).finish()
        self.train(was_training)
        return found

    @torch.no_grad()
    def search(
        self,
        batch: Batch,
        num_beams: int = 1,
        max_new_tokens: int | Sequence[int] | None = None,
        first: int = 0,
    ) -> Search:
        """A search for the transcripts that others can join; it needs the route's adapters active.

        The clips are numbered from `first`.
        """
        embeds, limits = self.prefixes(batch, max_new_tokens)
        if num_beams < 1 or min(limits) < 1:
            raise InputError(
                f"num_beams {num_beams} and max_new_tokens {max_new_tokens} must be 1 or more"
            )
        most_beams = self.config.llm_config.vocab_size // 2
        if num_beams > most_beams:
            raise InputError(
                f"num_beams {num_beams} is more than {most_beams}, half of the LLM's vocabulary"
            )
        return Search(
            adapters.plain(self.llm),
            embeds,
            batch.attention_mask,
            num_beams,
            limits,
            self.config.eos_token_id,
            self.config.pad_token_id,
            first,
        )

    @torch.no_grad()
    def prefixes(
        self, batch: Batch, max_new_tokens: int | Sequence[int] | None = None
    ) -> tuple[Tensor, list[int]]:
        """The embedded prefixes (B, L, D), padded on the left, and the most tokens after each.

        The adapters of the batch's route stay active.
        """
        if not batch.attention_mask[:, -1].all():
            raise InputError("decoding needs padding on the left: build the batch without text")
        features = self._features(batch)
        limits = _limits(max_new_tokens, features, batch.route)
        return self.embed(replace(batch, features=features)), limits

    # Memory, speed, merging, files

    def activation_checkpointing_enable(  # type: ignore[override]
        self, activation_checkpointing_kwargs: dict | None = None, **options: Any
    ) -> None:
        """Recomputes the LLM's layers during backward, with the adapters of the forward pass."""
        kwargs = {
            "use_reentrant": False,
            "context_fn": partial(adapters.recompute_context, self.llm),
            **(activation_checkpointing_kwargs or {}),
        }
        super().activation_checkpointing_enable(kwargs, **options)
        # This way needs no gradients of inputs, for which Whisper would keep all that it computes
        self.disable_input_require_grads()

    def compile_layers(self, backend: str = "inductor") -> None:
        """Compiles the LLM's layers when they first run, once for each set of adapters.

        Past torch's limit, which is for a function and not for each set, they would run uncompiled.
        """
        names = [sums.adapter_names(self.config.adapters, r) for r in self.config.routes()]
        sets = len(set(map(tuple, names)))
        limits = torch._dynamo.config
        limits.recompile_limit = max(limits.recompile_limit, COMPILED_GRAPHS * sets)
        limits.accumulated_recompile_limit = max(
            limits.accumulated_recompile_limit, COMPILED_GRAPHS * sets
        )
        for layer in adapters.plain(self.llm).get_decoder().layers:
            layer.compile(dynamic=True, backend=backend)

    def merge(self, route: Route) -> "OmniAVSR":
        """A model of the route's task without adapters, with the same outputs.

        With scale adapters it keeps only the route's rates.
        """
        names = sums.adapter_names(self.config.adapters, route)
        modules = {"llm": adapters.plain(adapters.merge(self.llm, names))}
        for modality in route.modalities:
            encoder = getattr(self, f"{modality}_encoder")
            # Only the video encoder can have a LoRA; the audio encoder is just copied
            modules[modality] = adapters.plain(adapters.merge(encoder, ["video"]))
        merged = type(self)(self._merged_config(route), modules)
        for modality in route.modalities:
            weights = self._compressor(modality).state_dict()
            compressor = merged._compressor(modality)
            kept = {name: weights[name] for name in compressor.state_dict()}
            compressor.load_state_dict(kept)
        if self.aligner is not None and merged.aligner is not None:
            weights = self.aligner.state_dict()
            kept = {name: weights[name] for name in merged.aligner.state_dict()}
            merged.aligner.load_state_dict(kept)
        merged.to(self.device)  # type: ignore[arg-type]  # transformers' wrapper has no types
        return merged

    def _merged_config(self, route: Route) -> OmniAVSRConfig:
        config = OmniAVSRConfig.from_dict(self.config.to_dict())
        config.update({"tasks": (route.task,), "adapters": [], "video_lora_rank": 0, "towers": {}})
        for modality in MODALITIES:
            if modality not in route.modalities:
                setattr(config, f"{modality}_config", None)
            elif "scale" in self.config.adapters:
                setattr(config, f"{modality}_rates", [route.rate(modality)])
        return config

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | Path, full: bool = False, **_: object
    ) -> None:
        """Writes what was trained and the names of the towers; with full=True the towers too.

        Ignores the other options that push_to_hub passes on.
        """
        try:
            checkpoint.save(self, Path(save_directory), full)
        except SafetensorError as error:
            raise InputError(f"{save_directory} cannot be written: {error}") from None

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, name: str | Path, **options: Any
    ) -> "OmniAVSR":
        """The model of a folder or hub id; towers={"llm": folder} says where a tower is now."""
        return checkpoint.load(cls, name, **options)


def _limits(given: int | Sequence[int] | None, features: Features, route: Route) -> list[int]:
    """The most tokens of each transcript, which do not depend on what a clip is batched with."""
    seconds = []
    for modality in route.modalities:
        values, lengths = features.of(modality)
        seconds.append(_or_full(lengths, values) / FRAME_RATES[modality])
    default = [longest_transcript(longest) for longest in torch.stack(seconds).amax(0).tolist()]
    if given is None:
        return default
    limits = [given] * len(default) if isinstance(given, int) else list(given)
    if len(limits) != len(default):
        raise InputError(f"{len(limits)} limits in max_new_tokens for {len(default)} clips")
    return limits


def merge_media(embeds: Tensor, places: Tensor, tokens: Tensor, modality: str) -> Tensor:
    """The embeddings (B, L, D) with one media token of (N, D) at each of the places (B, L)."""
    if places.sum() != len(tokens):
        raise InputError(
            f"{places.sum()} placeholders for {len(tokens)} {modality} tokens: "
            "batch and rates do not match"
        )
    return embeds.masked_scatter(sent(places, embeds.device)[..., None], tokens)


def _in_groups(
    encode: Callable[[Tensor, Tensor | None], Tensor], values: Tensor, lengths: Tensor
) -> Tensor:
    """The features (B, T, D) of values (B, T, ...); rows of similar length are encoded together."""
    groups = group_by_length(lengths, values.device)
    parts = []
    for rows, longest in groups:
        padding = ~length_mask(lengths[rows], longest)
        parts.append(encode(values[rows, :longest], padding if padding.any() else None))
    return ungroup(parts, groups)


def _or_full(lengths: Tensor | None, clips: Tensor) -> Tensor:
    """The lengths, or the full width of every clip where none are given."""
    if lengths is not None:
        return lengths
    return torch.full((len(clips),), clips.shape[1])


def _refuse_nan(modality: str, values: Tensor, lengths: Tensor) -> None:
    inside = sent(length_mask(lengths, values.shape[1]), values.device)
    bad = (~values.isfinite()).any(2) & inside  # (B, T)
    if bad.any():
        clips = bad.any(1).nonzero().flatten().tolist()
        raise InputError(
            f"NaN or infinite {modality} features in clips {clips} of the batch, "
            f"{int(bad.sum())} frames"
        )


def _random_towers(config: OmniAVSRConfig) -> dict[str, PreTrainedModel]:
    modules: dict[str, PreTrainedModel] = {}
    for kind in towers.KINDS:
        tower_config = getattr(config, f"{kind}_config")
        if tower_config is not None:
            modules[kind] = towers.build(kind, tower_config, torch.float32)
    return modules


AutoModel.register(OmniAVSRConfig, OmniAVSR)
