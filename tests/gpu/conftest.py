"""What a training step takes, on a GPU that is only pretended."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from omni_avsr import OmniAVSR, OmniAVSRProcessor
from omni_avsr.model import Features, Media
from omni_avsr.settings import TrainSettings
from omni_avsr.train.batches import TrainingBatch
from omni_avsr.train.step import Training
from tests.support.corpus import write_split
from tests.support.pretend import GPU, pretended_gpu
from tests.support.small_llm import write_small_llm
from tests.support.towers import TEXTS, clips

FRAMES = (30, 12, 20)  # of each clip, so that there is padding


@pytest.fixture(scope="session")
def small_llm(tmp_path_factory, tokenizer_file):
    return str(write_small_llm(tmp_path_factory.mktemp("llm"), tokenizer_file))


@pytest.fixture(scope="session")
def small_settings(small_settings, small_llm, tmp_path_factory):
    """Settings with four training clips and a language model of two layers."""
    clips_of_run = write_split(tmp_path_factory.mktemp("clips"), "train", 4, seed=7)
    return replace(small_settings, data=clips_of_run, llm=small_llm)


@pytest.fixture
def gpu():
    with pretended_gpu():
        yield


@dataclass(frozen=True)
class Setup:
    """A training of a small model, and a batch of it."""

    training: Training
    model: OmniAVSR
    processor: OmniAVSRProcessor
    media: Media  # on the CPU

    def batch(self, features: Features | None = None) -> TrainingBatch:
        """Media, or features that were encoded before."""
        count = len(FRAMES)
        return TrainingBatch(
            ids=[f"clip{index}" for index in range(count)],
            texts=TEXTS[:count],
            seconds=[1.0] * count,
            media=self.media if features is None else None,
            features=features,
        ).to(self.training.device)

    def step(
        self, batch: TrainingBatch, autocast: torch.dtype | None = None, number: int = 0
    ) -> Tensor:
        """A step as Lightning makes it: its loss; the weights have changed."""
        optimizer = self.training.configure_optimizers()["optimizer"]
        with torch.autocast("cuda", autocast, enabled=autocast is not None):
            loss = self.training.training_step(batch, number)
        loss.backward()
        self.training.configure_gradient_clipping(optimizer)
        optimizer.step()
        return loss.detach()

    def features(self) -> Features:
        """The features of the batch's clips, on the CPU, as training reads them."""
        with torch.no_grad():
            return self.model.encode_frozen(self.media)


@pytest.fixture
def setup(make, small_llm):
    """Makes a training of a method, with few rates, on the CPU."""

    def make_setup(method: str = "omni-avsr-st", **changes: object) -> Setup:
        rates = {"audio_rates": (4, 16), "video_rates": (2,)}
        model, processor = make(method=method, **{"llm": small_llm, **rates, **changes})
        settings = TrainSettings(method=method, max_new_tokens=2)
        training = Training(model, processor, settings, SimpleNamespace(clips=FRAMES))
        training.trainer = SimpleNamespace(precision="32-true", global_step=0)
        training.log_dict = lambda *_, **__: None
        model.train()
        media = processor.media(**clips(*FRAMES), training=True)
        return Setup(training, model, processor, media)

    return make_setup


@pytest.fixture
def on_gpu(setup, gpu):
    """Makes a training of a method on the pretended GPU."""

    def make_on_gpu(method: str = "omni-avsr-st", **changes: object) -> Setup:
        made = setup(method, **changes)
        made.training.to(GPU)
        return made

    return make_on_gpu
