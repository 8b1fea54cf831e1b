"""A label file of small real media: each sentence has its own hum and its own moving pattern."""

from pathlib import Path

import numpy as np

from omni_avsr.media.streams import write_audio, write_video

SENTENCES = ("set white", "bin blue", "the fox went home", "we talk", "lay green", "place red")


def write_clip(folder: Path, name: str, sentence: str, frames: int, rng: np.random.Generator) -> str:
    """Writes mp4 and wav, and returns the clip's line of the label file."""
    own = np.random.default_rng(len(sentence))
    time = np.arange(frames * 640) / 16_000
    hum = sum(np.sin(2 * np.pi * own.uniform(100, 3000) * time) for _ in range(3))
    write_audio(folder / f"{name}.wav", (3000 * (hum + 0.1 * rng.standard_normal(len(time)))).astype(np.int16))
    pattern = np.kron(own.integers(40, 200, (6, 6)), np.ones((16, 16)))
    video = pattern + 30 * np.sin(np.arange(frames))[:, None, None] + rng.normal(0, 4, (frames, 96, 96))
    write_video(folder / f"{name}.mp4", video.clip(0, 255).astype(np.uint8))
    return f"corpus,{folder.name}/{name}.mp4,{frames},0,{sentence}"


def write_split(root: Path, split: str, clips: int, seed: int) -> Path:
    """A label file of so many clips below the root, in the layout of Llama-AVSR."""
    rng = np.random.default_rng(seed)
    folder = root / "corpus" / split
    folder.mkdir(parents=True)
    (root / "labels").mkdir(exist_ok=True)
    lengths = rng.integers(8, 20, clips).tolist()
    lines = [write_clip(folder, f"{i:03}", SENTENCES[i % len(SENTENCES)], n, rng) for i, n in enumerate(lengths)]
    file = root / "labels" / f"{split}.csv"
    file.write_text("\n".join(lines) + "\n")
    return file
