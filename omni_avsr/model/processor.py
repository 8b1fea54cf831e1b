"""Clips to batches: waveforms and mouth videos padded, and the token sequence with one placeholder per media token."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoProcessor, AutoTokenizer, BatchFeature, ProcessorMixin

from omni_avsr.model.config import PLACEHOLDERS, OmniAVSRConfig
from omni_avsr.model.towers import add_special_tokens, find, locate
from omni_avsr.tasks import CROP_SIZE, MOUTH_SIZE, PIXEL_MEAN, PIXEL_STD, SAMPLE_RATE, audio_frames, token_count

Array = Tensor | np.ndarray


class OmniAVSRProcessor(ProcessorMixin):
    """Makes what OmniAVSR takes. All its settings are the model's, so a folder holds them once, in config.json.

    Sequence: [bos] <audio>A..A</audio> <video>V..V</video> [task token] prompt transcript eos.
    """

    def __init__(self, tokenizer, config: OmniAVSRConfig):
        self.config = config
        names = sorted(config.special_tokens, key=config.special_tokens.__getitem__)
        found = add_special_tokens(names, tokenizer, config.llm_config.vocab_size)
        if found != config.special_tokens:
            raise ValueError(f"this tokenizer numbers the special tokens {found}, the model {config.special_tokens}")
        super().__init__(tokenizer)

    @classmethod
    def from_pretrained(cls, name: str | Path, *, towers: dict | None = None, **hub: Any) -> "OmniAVSRProcessor":
        """The processor of a model's folder or hub id; its tokenizer is the LLM's if the folder has none."""
        name = locate(name)
        hub = {key: hub[key] for key in hub.keys() & {"revision", "token", "cache_dir"}}
        config = OmniAVSRConfig.from_pretrained(name, **hub)
        if Path(name).is_dir() and not (Path(name) / "tokenizer_config.json").is_file():
            return cls._with_the_llms_tokenizer(config, Path(name), (towers or {}).get("llm"))
        return cls(AutoTokenizer.from_pretrained(name, **hub), config)

    @classmethod
    def of(cls, model) -> "OmniAVSRProcessor":
        """The processor of a new model, with the tokenizer of its LLM."""
        return cls._with_the_llms_tokenizer(model.config, Path(), None)

    @classmethod
    def _with_the_llms_tokenizer(cls, config: OmniAVSRConfig, folder: Path, moved: str | None) -> "OmniAVSRProcessor":
        found = find("llm", config.towers.get("llm"), folder, moved)
        source = locate(found["name"])
        if Path(source).is_dir() and not (Path(source) / "tokenizer_config.json").is_file():
            raise ValueError(
                f"no tokenizer in {folder} nor in {source}: write it with processor.save_pretrained(folder)"
            )
        return cls(AutoTokenizer.from_pretrained(source, revision=found["revision"]), config)

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
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
    ) -> BatchFeature:
        """A batch for `model(**batch)` if text is given, padded right, and for `model.generate(**batch)` if not.

        Audio: one waveform (S,) a clip. Video: one mouth clip (T, 96, 96) of grey uint8 pixels, cropped to the middle
        88 x 88, or (T, 88, 88), cropped before; floats are taken as normalised.
        """
        rates = self.config.choose(task, audio_rate, video_rate)
        media = self.media(audio, video, sampling_rate, training=text is not None)
        tokens = self.tokens(media, task, rates, text)
        return BatchFeature({**media, **tokens, "task": str(task), **{f"{m}_rate": rate for m, rate in rates.items()}})

    def media(
        self,
        audio: Sequence[Array] | None,
        video: Sequence[Array] | None,
        sampling_rate: int = SAMPLE_RATE,
        training: bool = True,
    ) -> dict[str, Tensor]:
        """Waveforms and videos padded with zeros, and their lengths in samples and frames."""
        if audio is not None and sampling_rate != SAMPLE_RATE:
            raise ValueError(f"audio at {sampling_rate} Hz, {SAMPLE_RATE} Hz expected: resample it first")
        counts = [len(clips) for clips in (audio, video) if clips is not None]
        if len(set(counts)) > 1 or 0 in counts:
            raise ValueError(
                f"{' sounds and '.join(map(str, counts))} videos: as many of both, and at least one, expected"
            )
        media = {}
        if audio is not None:
            media["audio"], media["audio_lengths"] = _pad([_waveform(a) for a in audio])
        if video is not None:
            media["video"], media["video_lengths"] = _pad([_frames(v) for v in video])
        if training and not self.config.mask_padding:
            for modality in list(media)[::2]:
                media[f"{modality}_lengths"].fill_(media[modality].shape[1])
        return media

    def tokens(self, media: dict, task: str, rates: dict[str, int], text: Sequence[str] | None) -> dict[str, Tensor]:
        """input_ids, attention_mask and, with text, labels of a task at its rates; of media only lengths are used."""
        prefixes = self._prefixes(media, task, rates)
        pad = self.config.pad_token_id
        if text is None:
            masks = [torch.ones(len(p), dtype=torch.long) for p in prefixes]
            return {"input_ids": _pad_left(prefixes, pad), "attention_mask": _pad_left(masks, 0)}
        if len(text) != len(prefixes):
            raise ValueError(f"{len(text)} texts for {len(prefixes)} clips")
        pairs = list(zip(prefixes, self.answers(text), strict=True))
        rows = [torch.cat(pair) for pair in pairs]
        labels = [torch.cat([torch.full_like(prefix, -100), answer]) for prefix, answer in pairs]
        return {
            "input_ids": pad_sequence(rows, batch_first=True, padding_value=pad),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
            "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
        }

    def answers(self, text: Sequence[str]) -> list[Tensor]:
        """What the model is to say: each transcript's ids and eos."""
        return [self._ids(said, [self.config.eos_token_id]) for said in text]

    def _prefixes(self, media: dict, task: str, rates: dict[str, int]) -> list[Tensor]:
        given = [name.removesuffix("_lengths") for name in media if name.endswith("_lengths")]
        missing = [modality for modality in rates if modality not in given]
        if missing:
            raise ValueError(f"task {task!r} needs {' and '.join(missing)}, given: {', '.join(given) or 'nothing'}")
        bos = [] if self.config.bos_token_id is None else [self.config.bos_token_id]
        prompt = self._prompt(str(task))
        clips = range(len(media[f"{next(iter(rates))}_lengths"]))
        blocks = {m: self._blocks(m, media[f"{m}_lengths"].tolist(), rate) for m, rate in rates.items()}
        return [torch.cat([torch.tensor(bos), *(blocks[m][i] for m in rates), prompt]).long() for i in clips]

    def _blocks(self, modality: str, lengths: list[int], rate: int) -> list[Tensor]:
        ids = self.config.special_tokens
        exact = self.config.exact_audio_length
        frames = [audio_frames(n, exact) for n in lengths] if modality == "audio" else lengths
        counts = [token_count(n, rate, self.config.keep_tail) for n in frames]
        begin, place, end = ids[f"<{modality}>"], ids[PLACEHOLDERS[modality]], ids[f"</{modality}>"]
        return [torch.tensor([begin, *[place] * count, end]) for count in counts]

    def _prompt(self, task: str) -> Tensor:
        token = self.config.task_tokens.get(task)
        marker = [self.config.special_tokens[token]] if token else []
        return torch.cat([torch.tensor(marker), self._ids(self.config.prompts[task])])

    def _ids(self, text: str, end: Sequence[int] = ()) -> Tensor:
        return torch.tensor(
            [*self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"], *end]
        )

    def batch_decode(self, ids: Tensor) -> list[str]:
        """The transcripts of what `generate` returns."""
        return [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]


def _waveform(audio: Array) -> Tensor:
    wave = torch.as_tensor(audio).float().squeeze(-1)
    if wave.dim() != 1 or not len(wave):
        raise ValueError(f"audio of shape {tuple(wave.shape)}, one non-empty channel (samples,) expected")
    return F.layer_norm(wave, wave.shape, eps=1e-8)  # over the utterance, as the published models were trained


def _frames(video: Array) -> Tensor:
    frames = torch.as_tensor(video)
    if frames.dim() != 3 or not len(frames):
        raise ValueError(f"video of shape {tuple(frames.shape)}, grey frames (frames, height, width) expected")
    if frames.dtype != torch.uint8 and not frames.is_floating_point():
        raise ValueError(f"video of {frames.dtype}, uint8 pixels or normalised floats expected")
    if frames.dtype == torch.uint8:
        if frames.shape[1:] == (MOUTH_SIZE, MOUTH_SIZE):
            margin = (MOUTH_SIZE - CROP_SIZE) // 2
            frames = frames[:, margin:-margin, margin:-margin]
        frames = (frames / 255 - PIXEL_MEAN) / PIXEL_STD
    if frames.shape[1:] != (CROP_SIZE, CROP_SIZE):
        shape = " x ".join(map(str, frames.shape[1:]))
        raise ValueError(
            f"video frames of {shape} pixels, {MOUTH_SIZE} x {MOUTH_SIZE} or {CROP_SIZE} x {CROP_SIZE} expected"
        )
    return frames.float()


def _pad(clips: list[Tensor]) -> tuple[Tensor, Tensor]:
    return pad_sequence(clips, batch_first=True), torch.tensor([len(clip) for clip in clips])


def _pad_left(rows: list[Tensor], value: int) -> Tensor:
    return pad_sequence(rows, batch_first=True, padding_value=value, padding_side="left")


AutoProcessor.register(OmniAVSRConfig, OmniAVSRProcessor)
