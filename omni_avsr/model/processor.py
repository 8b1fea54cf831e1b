"""Clips to batches: media are padded, and each compressed token gets a placeholder.

The sequence is [bos] <audio>A..A</audio> <video>V..V</video> [task token] prompt transcript eos.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from omni_avsr.errors import InputError
from omni_avsr.model.batch import Batch, Features, Media
from omni_avsr.model.config import IGNORED, PLACEHOLDERS, OmniAVSRConfig
from omni_avsr.model.towers import find, locate, locate_model, read_tokenizer
from omni_avsr.model.vocabulary import add_special_tokens
from omni_avsr.tasks import (
    CROP_SIZE,
    MOUTH_SIZE,
    PIXEL_MEAN,
    PIXEL_STD,
    SAMPLE_RATE,
    Route,
    Task,
    audio_frames,
    token_count,
)

Array = Tensor | np.ndarray
HUB_OPTIONS = {"revision", "token", "cache_dir"}


class OmniAVSRProcessor(ProcessorMixin):
    """Makes what OmniAVSR takes.

    All its settings are the model's, so that a folder holds them once, in config.json.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: OmniAVSRConfig):
        self.config = config
        expected = config.special_tokens
        names = sorted(expected, key=lambda name: expected[name])
        found = add_special_tokens(names, tokenizer, config.llm_config.vocab_size)
        if found != expected:
            raise InputError(
                f"this tokenizer numbers the special tokens {found}, the model {expected}"
            )
        super().__init__(tokenizer)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, name: str | Path, *, towers: dict | None = None, **hub: Any
    ) -> "OmniAVSRProcessor":
        """The processor of a model's folder or hub id.

        Its tokenizer is the LLM's if the folder has none; towers={"llm": folder} says where a
        moved LLM is now.
        """
        name = locate_model(name)
        options = {key: value for key, value in hub.items() if key in HUB_OPTIONS}
        config = OmniAVSRConfig.from_pretrained(name, **options)
        if Path(name).is_dir() and not _has_tokenizer(Path(name)):
            return cls._with_tokenizer_of_llm(config, Path(name), (towers or {}).get("llm"))
        return cls(read_tokenizer(name, **options), config)

    @classmethod
    def of(cls, model: PreTrainedModel) -> "OmniAVSRProcessor":
        """The processor of a new model, with the tokenizer of its LLM."""
        assert isinstance(model.config, OmniAVSRConfig)
        return cls._with_tokenizer_of_llm(model.config, Path(), None)

    @classmethod
    def _with_tokenizer_of_llm(
        cls, config: OmniAVSRConfig, folder: Path, moved: str | None
    ) -> "OmniAVSRProcessor":
        found = find("llm", config.towers.get("llm"), folder, moved)
        source = locate(found["name"])
        if Path(source).is_dir() and not _has_tokenizer(Path(source)):
            raise InputError(
                f"no tokenizer in {folder} nor in {source}: "
                "write it with processor.save_pretrained(folder)"
            )
        return cls(read_tokenizer(source, revision=found["revision"]), config)

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | Path, **options: Any
    ) -> None:
        """Writes the tokenizer; the settings are in the model's config.json."""
        self.tokenizer.save_pretrained(save_directory, **options)

    def __call__(
        self,
        audio: Sequence[Array] | None = None,
        video: Sequence[Array] | None = None,
        text: Sequence[str] | None = None,
        *,
        task: str,
        audio_rate: int | None = None,
        video_rate: int | None = None,
        sampling_rate: int = SAMPLE_RATE,
    ) -> Batch:
        """A batch for `model(batch)` if text is given, and for `model.generate(batch)` if not.

        Audio: one waveform (S,) per clip. Video: one mouth clip per clip, either (T, 96, 96) grey
        uint8 pixels, of which the middle 88 x 88 are taken, or (T, 88, 88); floats are taken as
        normalised.
        """
        route = self.config.choose(task, audio_rate, video_rate)
        media = self.media(audio, video, sampling_rate, training=text is not None)
        return self.batch(media, route, text)

    def media(
        self,
        audio: Sequence[Array] | None,
        video: Sequence[Array] | None,
        sampling_rate: int = SAMPLE_RATE,
        training: bool = False,
    ) -> Media:
        """Waveforms and videos padded with zeros, and their lengths in samples and frames."""
        if audio is not None and sampling_rate != SAMPLE_RATE:
            raise InputError(
                f"audio at {sampling_rate} Hz, {SAMPLE_RATE} Hz expected: resample it first"
            )
        counts = [len(clips) for clips in (audio, video) if clips is not None]
        if len(set(counts)) > 1 or 0 in counts:
            given = " sounds and ".join(map(str, counts))
            raise InputError(f"{given} videos: the same number of both, and at least one, expected")
        media = Media()
        if audio is not None:
            padded, lengths = _pad([_waveform(clip) for clip in audio])
            media = replace(media, audio=padded, audio_lengths=lengths)
        if video is not None:
            padded, lengths = _pad([_mouths(clip) for clip in video])
            media = replace(media, video=padded, video_lengths=lengths)
        if training and not self.config.mask_padding:
            return _padding_as_content(media)
        return media

    def batch(
        self,
        given: Media | Features,
        route: Route,
        text: Sequence[str] | None = None,
        begun: Sequence[str] | None = None,
    ) -> Batch:
        """The token sequences of a route for these media, or for their features.

        With text they have labels and are padded on the right, without on the left. `begun` is how
        the transcripts begin: decoding goes on from there.
        """
        prefixes = self._prefixes(given, route)
        if begun is not None:
            pairs = zip(prefixes, map(self._ids, begun), strict=True)
            prefixes = [torch.cat(pair) for pair in pairs]
        pad = self.config.pad_token_id
        media = given if isinstance(given, Media) else None
        features = given if isinstance(given, Features) else None
        if text is None:
            masks = [torch.ones_like(prefix) for prefix in prefixes]
            ids, mask = _pad_left(prefixes, pad), _pad_left(masks, 0)
            return Batch(route, ids, mask, None, media, features)
        if len(text) != len(prefixes):
            raise InputError(f"{len(text)} texts for {len(prefixes)} clips")
        rows, labels = [], []
        for prefix, answer in zip(prefixes, self.answers(text), strict=True):
            rows.append(torch.cat([prefix, answer]))
            labels.append(torch.cat([torch.full_like(prefix, IGNORED), answer]))
        masks = [torch.ones_like(row) for row in rows]
        return Batch(
            route,
            pad_sequence(rows, batch_first=True, padding_value=pad),
            pad_sequence(masks, batch_first=True),
            pad_sequence(labels, batch_first=True, padding_value=IGNORED),
            media,
            features,
        )

    def answers(self, text: Sequence[str]) -> list[Tensor]:
        """What the model learns to answer: the ids of each transcript, and eos."""
        eos = torch.tensor([self.config.eos_token_id])
        return [torch.cat([self._ids(transcript), eos]) for transcript in text]

    def _prefixes(self, given: Media | Features, route: Route) -> list[Tensor]:
        """Everything before the transcript, for each clip."""
        frames = {name: self._frames(given, name) for name in ("audio", "video")}
        missing = [name for name in route.modalities if frames[name] is None]
        if missing:
            known = [name for name, lengths in frames.items() if lengths is not None]
            raise InputError(
                f"task '{route.task}' needs {' and '.join(missing)}, "
                f"given: {', '.join(known) or 'nothing'}"
            )
        bos = [] if self.config.bos_token_id is None else [self.config.bos_token_id]
        parts = []
        for modality in route.modalities:
            lengths = frames[modality]
            assert lengths is not None
            parts.append(self._blocks(modality, lengths, route.rate(modality)))
        prompt = self._prompt(route.task)
        return [
            torch.cat([torch.tensor(bos), *blocks, prompt]).long()
            for blocks in zip(*parts, strict=True)
        ]

    def _frames(self, given: Media | Features, modality: str) -> list[int] | None:
        """The true length of each clip in encoder frames; None if the modality is not given."""
        clips: Tensor | None = getattr(given, modality)
        if clips is None:
            return None
        lengths = [clips.shape[1]] * len(clips)
        given_lengths: Tensor | None = getattr(given, f"{modality}_lengths")
        if given_lengths is not None:
            lengths = given_lengths.tolist()
        if modality == "audio" and isinstance(given, Media):
            exact = self.config.exact_audio_length
            return [audio_frames(samples, exact) for samples in lengths]
        return lengths

    def _blocks(self, modality: str, frames: list[int], rate: int) -> list[Tensor]:
        """Placeholders between their markers, for each clip."""
        ids = self.config.special_tokens
        begin, end = ids[f"<{modality}>"], ids[f"</{modality}>"]
        placeholder = ids[PLACEHOLDERS[modality]]
        blocks = []
        for length in frames:
            count = token_count(length, rate, self.config.keep_tail)
            blocks.append(torch.tensor([begin, *[placeholder] * count, end]))
        return blocks

    def _prompt(self, task: Task) -> Tensor:
        token = self.config.task_tokens.get(task)
        marker = [self.config.special_tokens[token]] if token else []
        return torch.cat([torch.tensor(marker), self._ids(self.config.prompts[task])])

    def _ids(self, text: str) -> Tensor:
        encoded = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return torch.tensor(encoded["input_ids"], dtype=torch.long)  # also of no text

    def batch_decode(self, ids: Tensor) -> list[str]:
        """The transcripts of what `generate` returns."""
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def said(self, ids: Sequence[int]) -> tuple[int, ...]:
        """The tokens of a transcript without its end and padding."""
        ends = {self.config.eos_token_id, self.config.pad_token_id}
        return tuple(takewhile(lambda one: one not in ends, ids))

    def word_probabilities(self, ids: Sequence[int], sums: Sequence[float]) -> list[float]:
        """The probability of each word of a transcript: the product of its tokens'.

        It is given as its padded tokens, and the log-probability as far as each of them.
        """
        (whole,) = self.batch_decode(torch.tensor([ids]))
        totals = [0.0] * len(whole.split())
        before = ""
        counted = 0.0  # log-probability of the words before, and of tokens like a space after them
        for number, total in enumerate(sums):
            if before == whole:  # what follows is its end and padding
                break
            (said,) = self.batch_decode(torch.tensor([ids[: number + 1]]))
            if said != before:
                totals[len(said.split()) - 1] += total - counted
                before, counted = said, total
        return [math.exp(total) for total in totals]


def _has_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer_config.json").is_file()


def _padding_as_content(media: Media) -> Media:
    """The media with all rows as long as the longest, as the published code trains."""
    changes = {}
    for modality in ("audio", "video"):
        clips: Tensor | None = getattr(media, modality)
        if clips is not None:
            changes[f"{modality}_lengths"] = torch.full((len(clips),), clips.shape[1])
    return replace(media, **changes)


def _waveform(audio: Array) -> Tensor:
    wave = torch.as_tensor(audio).float()
    if wave.dim() == 2 and wave.shape[1] == 1:  # (S, 1) -> (S,)
        wave = wave[:, 0]
    if wave.dim() != 1 or not len(wave):
        shape = tuple(wave.shape)
        raise InputError(f"audio of shape {shape}, one non-empty channel (samples,) expected")
    return F.layer_norm(wave, wave.shape, eps=1e-8)  # over the utterance, as published


def _mouths(video: Array) -> Tensor:
    frames = torch.as_tensor(video)
    if frames.dim() != 3 or not len(frames):
        shape = tuple(frames.shape)
        raise InputError(f"video of shape {shape}, grey frames (frames, height, width) expected")
    is_pixels = frames.dtype == torch.uint8
    if not is_pixels and not frames.is_floating_point():
        raise InputError(f"video of {frames.dtype}, uint8 pixels or normalised floats expected")
    if is_pixels:
        if frames.shape[1:] == (MOUTH_SIZE, MOUTH_SIZE):
            margin = (MOUTH_SIZE - CROP_SIZE) // 2
            frames = frames[:, margin:-margin, margin:-margin]
        frames = (frames / 255 - PIXEL_MEAN) / PIXEL_STD
    if frames.shape[1:] != (CROP_SIZE, CROP_SIZE):
        size = " x ".join(map(str, frames.shape[1:]))
        raise InputError(
            f"video frames of {size} pixels, {MOUTH_SIZE} x {MOUTH_SIZE} "
            f"or {CROP_SIZE} x {CROP_SIZE} expected"
        )
    return frames.float()


def _pad(clips: list[Tensor]) -> tuple[Tensor, Tensor]:
    return pad_sequence(clips, batch_first=True), torch.tensor([len(clip) for clip in clips])


def _pad_left(rows: list[Tensor], value: int) -> Tensor:
    return pad_sequence(rows, batch_first=True, padding_value=value, padding_side="left")


AutoProcessor.register(OmniAVSRConfig, OmniAVSRProcessor)
