"""What happens to a training clip: babble, time masks, and a random crop."""

from dataclasses import dataclass

import numpy as np

from omni_avsr.data.noise import mix_at_snr
from omni_avsr.tasks import CROP_SIZE, SAMPLE_RATE, VIDEO_FPS


@dataclass(frozen=True)
class Augmentation:
    """The augmentation of a training run; everything random is drawn from the generator."""

    noise: np.ndarray  # (S,) a track of babble
    probability: float  # of noise
    snrs: tuple[float, ...]  # dB
    audio_mask: float  # seconds per second
    video_mask: float

    def __call__(
        self, audio: np.ndarray | None, video: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """The clip with noise, masks and a random crop."""
        if audio is not None:
            if rng.random() < self.probability:
                audio = mix_at_snr(audio, self.noise, float(rng.choice(self.snrs)), rng)
            audio = time_mask(audio, SAMPLE_RATE, self.audio_mask, rng)
        if video is not None:
            video = time_mask(random_crop(video, rng), VIDEO_FPS, self.video_mask, rng)
        return audio, video


def time_mask(
    frames: np.ndarray, rate: int, longest: float, rng: np.random.Generator
) -> np.ndarray:
    """The sequence with one stretch per second, of up to `longest` seconds, set to its mean."""
    masked = frames.copy()
    if not longest:
        return masked
    fill = frames.mean(axis=0).astype(frames.dtype)
    for _ in range(round(len(frames) / rate)):
        width = int(rng.integers(int(longest * rate) + 1))
        start = int(rng.integers(max(1, len(frames) - width)))
        masked[start : start + width] = fill
    return masked


def random_crop(video: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A window of 88 x 88 pixels (T, H, W) -> (T, 88, 88), the same in every frame."""
    height, width = video.shape[1:]
    top = rng.integers(max(1, height - CROP_SIZE + 1))
    left = rng.integers(max(1, width - CROP_SIZE + 1))
    return video[:, top : top + CROP_SIZE, left : left + CROP_SIZE]
