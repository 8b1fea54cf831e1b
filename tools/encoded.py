"""The corpus as the features of frozen encoders, for machines that cannot encode every step."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from omni_avsr.files import write_atomically
from omni_avsr.model import Features
from omni_avsr.train.features import padded_features
from tools.augment import Noise
from tools.corpus import ClipBatch, Clips, Corpus
from tools.terminal import console

ENCODE_BATCH = 32  # clips
SHOW_EVERY = 20  # batches

Encode = Callable[[ClipBatch], Features]
ClipFeatures = dict[str, Tensor]  # (T, D) of each modality, in half precision


class EncodedCorpus(Clips):
    """The features of one noisy copy of a corpus."""

    def __init__(self, corpus: Corpus, encode: Encode, file: Path):
        super().__init__(corpus.texts, corpus.lengths, corpus.device)
        if not file.is_file():
            rows = _encoded(corpus, encode)
            write_atomically(file, lambda part: torch.save(rows, part))
        self.rows: list[ClipFeatures] = torch.load(file, weights_only=True)

    def batch(self, clips: list[int], seed: int, noise: Noise | None) -> ClipBatch:
        """Returns the features of these clips; the noise is already in them."""
        lengths = [self.lengths[clip] for clip in clips]
        features = padded_features([self.rows[clip] for clip in clips])
        return ClipBatch(clips, lengths, features=features.to(self.device))


def _encoded(corpus: Corpus, encode: Encode) -> list[ClipFeatures]:
    rows: list[ClipFeatures] = [{} for _ in corpus.texts]
    batches = corpus.batches(ENCODE_BATCH, 0)
    for number, clips in enumerate(batches):
        features = encode(corpus.batch(clips, number, Noise()))
        for modality in features.modalities:
            values, lengths = features.of(modality)
            for clip, row, length in zip(clips, values, lengths.tolist(), strict=True):
                rows[clip][modality] = row[:length].half().clone()
        if number % SHOW_EVERY == 0:
            console.print(f"encoded: {number}/{len(batches)} batches")
    return rows
