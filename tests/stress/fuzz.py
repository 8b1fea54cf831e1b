"""A hundred thousand label files and a thousand damaged media files: none may crash, hang or be read at a wrong length.

python -m tests.stress.fuzz
"""

import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from hypothesis import HealthCheck, Phase, given, settings

from tests.support.corpus import write_split
from tests.support.fuzzing import MANIFEST, damaged, try_labels, try_media

LONGEST = 20  # seconds that a damaged file may take


def main(
    manifests: Annotated[int, typer.Option(help="Label files.")] = 100_000,
    media: Annotated[int, typer.Option(help="Damaged files, mp4 and wav by turns.")] = 1000,
    seed: int = 0,
) -> None:
    """Tries them all; the first that fails is kept and named."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        labels = Path(folder) / "labels.csv"
        options = settings(
            max_examples=manifests, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        options(given(MANIFEST)(lambda pair: try_labels(labels, *pair)))()
        print(f"{manifests} label files in {time.perf_counter() - started:.0f} s")
        _media(Path(folder), media, random.Random(seed))
    print(f"{media} damaged files; {time.perf_counter() - started:.0f} s in all")


def _media(folder: Path, count: int, chance: random.Random) -> None:
    write_split(folder, "train", 4, 0)
    clips = [path.read_bytes() for path in sorted((folder / "corpus" / "train").glob("*.*"))]
    suffixes = [path.suffix for path in sorted((folder / "corpus" / "train").glob("*.*"))]
    for i in range(count):
        file = folder / f"damaged{suffixes[i % len(clips)]}"
        file.write_bytes(damaged(clips[i % len(clips)], chance))
        signal.alarm(LONGEST)  # whose default action ends the process
        try:
            try_media(file)
        except BaseException:
            kept = Path(f"failed{file.suffix}")
            kept.write_bytes(file.read_bytes())
            print(f"file {i} failed and is kept as {kept}")
            raise
        signal.alarm(0)


if __name__ == "__main__":
    typer.run(main)
