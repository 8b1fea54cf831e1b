"""100,000 label files and 1,000 damaged media files: none crashes, hangs or gets a wrong length.

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
    media: Annotated[int, typer.Option(help="Damaged files, of mp4 and wav in turn.")] = 1000,
    seed: int = 0,
) -> None:
    """Tries all of them. The first file that fails is kept, and its name printed."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        _try_label_files(Path(folder), manifests)
        print(f"{manifests} label files in {time.perf_counter() - started:.0f} s")
        _try_damaged_files(Path(folder), media, random.Random(seed))
    print(f"{media} damaged files; {time.perf_counter() - started:.0f} s in all")


def _try_label_files(folder: Path, count: int) -> None:
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(MANIFEST)
    def try_one(labels: tuple[bytes, str | None]) -> None:
        content, format = labels
        try_labels(folder / "labels.csv", content, format)

    try_one()


def _try_damaged_files(folder: Path, count: int, chance: random.Random) -> None:
    write_split(folder, "train", 4, 0)
    originals = sorted((folder / "corpus" / "train").glob("*.*"))
    for number in range(count):
        original = originals[number % len(originals)]
        file = folder / f"damaged{original.suffix}"
        file.write_bytes(damaged(original.read_bytes(), chance))
        signal.alarm(LONGEST)  # ends the process unless it is reset in time
        try:
            try_media(file)
        except BaseException:
            kept = Path(f"failed{file.suffix}")
            kept.write_bytes(file.read_bytes())
            print(f"file {number} failed and is kept as {kept}")
            raise
        signal.alarm(0)


if __name__ == "__main__":
    typer.run(main)
