"""The options of `omni-avsr plan`."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from omni_avsr.settings.base import COUNT, POSITIVE, Bounds, Settings, option
from omni_avsr.settings.train import TrainSettings
from omni_avsr.tasks import VIDEO_FPS


@dataclass(frozen=True)
class PlanOptions(Settings):
    """The GPUs and the data."""

    gpus: int = option(1, "GPUs, with a batch each.", bounds=COUNT)
    gpu_memory: tuple[float, ...] = option(
        (24.0, 40.0, 80.0),
        "Memory of GPUs in GiB, for which the largest --max-frames is found, up to 512 clips.",
        bounds=POSITIVE,
    )
    tflops: float = option(
        312.0,
        "Peak speed of a GPU in TFLOP/s; an A100 has 312 in bfloat16.",
        bounds=POSITIVE,
    )
    utilisation: float = option(
        0.4, "Share of the peak speed that is reached.", bounds=Bounds(0, 1, above=True)
    )
    hours: float = option(433.0, "Hours of speech in the data; LRS3 has 433.", bounds=POSITIVE)
    epochs: float | None = option(
        None, "Passes over the data.  [default: as many as --max-steps steps make]", bounds=POSITIVE
    )
    seconds: float = option(6.0, "Length of a clip.", bounds=Bounds(0.1))
    tokens_per_second: float = option(
        4.0, "Tokens of the transcript per second of speech.", bounds=POSITIVE
    )
    beams: int = option(1, "Width of the beam search when decoding.", bounds=COUNT)


@dataclass(frozen=True)
class PlanSettings(PlanOptions, TrainSettings):
    """The options of `omni-avsr plan`: those of the training, and what it will run on."""

    video_encoder: str = option(
        "tiny-video", "An AV-HuBERT: folder, tiny-video, or the sizes base or large."
    )

    @property
    def frames(self) -> int:
        """Video frames of a clip."""
        return round(self.seconds * VIDEO_FPS)

    def missing_files(self) -> Iterator[str]:
        """None, as a plan reads no clips."""
        yield from ()

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if math.isfinite(self.seconds) and self.frames > self.max_frames:
            yield (
                f"a clip of seconds {self.seconds:g} has {self.frames} video frames, more than "
                f"max_frames {self.max_frames}"
            )
