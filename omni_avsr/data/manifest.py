"""Label files to clips."""

from dataclasses import dataclass
from pathlib import Path

FIELDS = 5  # dataset, path, frames, ignored, text


@dataclass(frozen=True)
class Clip:
    """One utterance: where its sound and its mouth lie, and what is said."""

    id: str
    audio: Path
    video: Path
    frames: int  # of the file, a hint for batching; never taken for the truth
    text: str


def read(file: Path | str, root: Path | str | None = None) -> list[Clip]:
    """The clips of a five-field label file, as Llama-AVSR and Omni-AVSR have them; text may hold commas.

    A clip's video is at root / dataset / path, its sound beside it as .wav. Refuses the file with all its problems.
    """
    file = Path(file)
    if not file.is_file():
        raise ValueError(f"label file {file} does not exist")
    base = Path(root) if root else file.resolve().parent.parent
    rows = [(number, line.split(",", FIELDS - 1)) for number, line in enumerate(_lines(file), 1) if line.strip()]
    problems = [f"line {n}: {len(row)} fields, {FIELDS} expected" for n, row in rows if len(row) < FIELDS]
    problems += [
        f"line {n}: {row[2]!r} is no number of frames" for n, row in rows if len(row) > 2 and not row[2].isdigit()
    ]
    if problems:
        raise ValueError(f"{file}: {'; '.join(problems[:5])}{f' and {len(problems) - 5} more' if problems[5:] else ''}")
    if not rows:
        raise ValueError(f"{file} holds no clips")
    return [_clip(base, *row) for _, row in rows]


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8-sig").splitlines()


def _clip(base: Path, dataset: str, path: str, frames: str, _: str, text: str) -> Clip:
    video = base / dataset / path
    return Clip(str(Path(path).with_suffix("")), video.with_suffix(".wav"), video, int(frames), text.strip())
