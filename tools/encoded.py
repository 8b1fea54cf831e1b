"""Clips as the features of frozen encoders, which are computed once and kept in files."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omni_avsr.files import write_atomically
from omni_avsr.model import Features
from omni_avsr.train.features import padded_features
from tools.augment import Noise
from tools.corpus import FRAME_FACTORS, ClipBatch, Clips, Corpus
from tools.terminal import console

ENCODE_BATCH = 32  # clips

Encode = Callable[[ClipBatch], Features]


def encode_clips(file: Path, corpora: Iterable[Corpus], encode: Encode) -> None:
    """Writes the features of one noisy copy of the clips, if the file does not exist."""
    if file.is_file():
        return
    texts: list[str] = []
    lengths: list[int] = []
    labels: list[dict[str, Tensor]] = []
    features: list[dict[str, Tensor]] = []
    for corpus in corpora:
        texts += corpus.texts
        lengths += corpus.lengths
        labels.append({name: torch.cat(rows) for name, rows in corpus.labels.items()})
        features.append(_encoded(corpus, encode))
        console.print(f"{file.stem}: {len(texts)} clips are encoded")
    content = {
        "texts": texts,
        "lengths": lengths,
        "labels": _joined(labels),
        "features": _joined(features),
    }
    write_atomically(file, lambda part: torch.save(content, part))


class EncodedClips(Clips):
    """The clips of some files of features."""

    def __init__(self, files: Sequence[Path], device: torch.device):
        super().__init__(device)
        self.features: dict[str, list[Tensor]] = {}  # (T, D) of each clip, in half precision
        for file in files:
            content: dict[str, Any] = torch.load(file, weights_only=True, mmap=True)
            lengths = content["lengths"]
            self.texts += content["texts"]
            self.lengths += lengths
            for modality, values in content["features"].items():
                clips = _split(values, modality, lengths)
                self.features.setdefault(modality, []).extend(clips)
            for modality, classes in content["labels"].items():
                self.labels[modality] += _split(classes, modality, lengths)

    def batch(self, clips: list[int], seed: int, noise: Noise | None) -> ClipBatch:
        """Returns the features of these clips; the noise is already in them."""
        lengths = [self.lengths[clip] for clip in clips]
        rows = [{name: of[clip] for name, of in self.features.items()} for clip in clips]
        return ClipBatch(clips, lengths, features=padded_features(rows).to(self.device))


def _split(values: Tensor, modality: str, lengths: Sequence[int]) -> list[Tensor]:
    return list(values.split([FRAME_FACTORS[modality] * length for length in lengths]))


def _joined(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


@torch.no_grad()
def _encoded(corpus: Corpus, encode: Encode) -> dict[str, Tensor]:
    """Returns the features of all clips, one after another."""
    rows: list[dict[str, Tensor]] = [{} for _ in corpus.texts]
    for number, clips in enumerate(corpus.batches(ENCODE_BATCH, 0)):
        features = encode(corpus.batch(clips, number, Noise()))
        for modality in features.modalities:
            values, lengths = features.of(modality)
            for clip, row, length in zip(clips, values, lengths.tolist(), strict=True):
                rows[clip][modality] = row[:length].half()
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
