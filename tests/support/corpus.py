"""A label file of small real media: each sentence has its own hum and its own moving pattern."""

from pathlib import Path

import numpy as np

from omni_avsr.media.streams import write_audio, write_video
from omni_avsr.tasks import MOUTH_SIZE, SAMPLE_RATE, SAMPLES_PER_VIDEO_FRAME

SENTENCES = ("set white", "bin blue", "the fox went home", "we talk", "lay green", "place red")
SQUARES = 6  # of a pattern, along each side
SQUARE = MOUTH_SIZE // SQUARES  # pixels


def write_clip(
    folder: Path, name: str, sentence: str, frames: int, rng: np.random.Generator
) -> str:
    """Writes mp4 and wav, and returns the clip's line of the label file."""
    of_sentence = np.random.default_rng(len(sentence))
    hum = _hum(frames * SAMPLES_PER_VIDEO_FRAME, of_sentence, rng)
    write_audio(folder / f"{name}.wav", hum)
    pattern = _pattern(frames, of_sentence, rng)
    write_video(folder / f"{name}.mp4", pattern)
    return f"corpus,{folder.name}/{name}.mp4,{frames},0,{sentence}"


def _hum(samples: int, of_sentence: np.random.Generator, rng: np.random.Generator) -> np.ndarray:
    """Three tones of the sentence, and some noise."""
    seconds = np.arange(samples) / SAMPLE_RATE
    tones = [np.sin(2 * np.pi * of_sentence.uniform(100, 3000) * seconds) for _ in range(3)]
    noise = 0.1 * rng.standard_normal(samples)
    return (3000 * (sum(tones) + noise)).astype(np.int16)


def _pattern(frames: int, of_sentence: np.random.Generator, rng: np.random.Generator) -> np.ndarray:
    """The squares of the sentence, growing brighter and darker, and some noise."""
    greys = of_sentence.integers(40, 200, (SQUARES, SQUARES))
    squares = np.kron(greys, np.ones((SQUARE, SQUARE)))
    brightness = 30 * np.sin(np.arange(frames))[:, None, None]
    noise = rng.normal(0, 4, (frames, MOUTH_SIZE, MOUTH_SIZE))
    return (squares + brightness + noise).clip(0, 255).astype(np.uint8)


def write_split(root: Path, split: str, clips: int, seed: int) -> Path:
    """Writes a label file of so many clips below the root, in the layout of Llama-AVSR."""
    rng = np.random.default_rng(seed)
    folder = root / "corpus" / split
    folder.mkdir(parents=True)
    (root / "labels").mkdir(exist_ok=True)
    lengths = rng.integers(8, 20, clips).tolist()
    lines = []
    for i, frames in enumerate(lengths):
        sentence = SENTENCES[i % len(SENTENCES)]
        lines.append(write_clip(folder, f"{i:03}", sentence, frames, rng))
    file = root / "labels" / f"{split}.csv"
    file.write_text("\n".join(lines) + "\n")
    return file
