"""What `omni-avsr data check` finds out about a label file and its clips."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from omni_avsr.data.clips import is_file
from omni_avsr.data.manifest import Clip, Manifest
from omni_avsr.errors import InputError
from omni_avsr.media import streams
from omni_avsr.run import Progress, with_progress
from omni_avsr.tasks import CROP_SIZE, MOUTH_SIZE, SAMPLE_RATE, VIDEO_FPS

LARGEST_DRIFT = 2  # frames that audio and video may differ in length


@dataclass
class Findings:
    """Facts about the clips that were read, and the problems of all clips."""

    manifest: Manifest
    read: int = 0  # clips that were read completely
    fps: Counter[float] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # height and width
    sample_rates: Counter[int] = field(default_factory=Counter)
    frames: list[int] = field(default_factory=list)  # of each clip that was read
    wrong_frames: int = 0  # clips with another number of frames than the label file says
    problems: list[str] = field(default_factory=list)

    @property
    def hours(self) -> float:
        """The hours of all clips, by the frames in the label file."""
        frames = sum(clip.frames for clip in self.manifest.clips)
        return frames / VIDEO_FPS / 3600

    @property
    def words(self) -> list[int]:
        """The number of words of each clip."""
        return [len(clip.text.split()) for clip in self.manifest.clips]


@dataclass(frozen=True)
class _Reading:
    """What the files of a clip hold, read from start to end."""

    fps: float
    size: tuple[int, int]  # height and width in pixels
    sample_rate: int
    frames: int  # at 25 per second
    samples: int  # at 16 kHz

    @property
    def drift(self) -> float:
        """Frames that the audio is longer than the video."""
        return self.samples / SAMPLE_RATE * VIDEO_FPS - self.frames


def check(manifest: Manifest, sample: int, raw: bool, progress: Progress) -> Findings:
    """Checks that every file exists, and reads a sample of the clips completely.

    The sample is spread over the whole label file; 0 reads all clips. Raw clips may have any frame
    rate and size.
    """
    findings = Findings(manifest)
    for number, problem in manifest.problems:
        findings.problems.append(f"{manifest.file}:{number}: {problem}")
    incomplete = 0
    for index, clip in enumerate(manifest.clips):
        missing = _missing_files(clip)
        incomplete += bool(missing)
        for path in missing:
            findings.problems.append(f"{_place(manifest, index)}: {path} is missing")
    if incomplete > 1 and incomplete == len(manifest.clips):
        findings.problems.append(
            f"{manifest.file}: no clip has its files: give --root, the folder that paths start in"
        )
    chosen = spread(len(manifest.clips), sample)
    for index in with_progress(chosen, "Reading clips", len(chosen), progress):
        clip = manifest.clips[index]
        if not _missing_files(clip):
            for problem in _check_clip(clip, findings, raw):
                findings.problems.append(f"{_place(manifest, index)}: {problem}")
    return findings


def spread(count: int, sample: int) -> list[int]:
    """Returns so many of the indices below count, evenly spaced; all of them if sample is 0."""
    if sample == 0 or sample >= count:
        return list(range(count))
    indices = np.linspace(0, count - 1, sample)
    return indices.round().astype(int).tolist()


def refuse_target(file: Path, source: Path) -> None:
    """Refuses to write clips to a folder, or to the label file that they are read from."""
    if file.is_dir():
        raise InputError(f"--write {file} is a folder: give a file, such as clips.jsonl")
    if file.exists() and source.exists() and file.samefile(source):
        raise InputError(f"--write would replace {source} that is checked: give another file")


def histogram(lengths: Sequence[int], bins: int = 8) -> list[tuple[int, int, int]]:
    """Returns the bins of a histogram, each as its shortest and longest length and its count."""
    shortest, longest = min(lengths), max(lengths)
    width = math.ceil((longest - shortest + 1) / bins)
    counts = Counter((length - shortest) // width for length in lengths)
    rows = []
    for start in range(shortest, longest + 1, width):
        end = min(start + width - 1, longest)
        rows.append((start, end, counts[(start - shortest) // width]))
    return rows


def _place(manifest: Manifest, index: int) -> str:
    """Returns where a clip stands: the line of a label file, or the clip of a folder."""
    line = manifest.lines[index]
    if line:
        return f"{manifest.file}:{line}"
    return f"{manifest.file}: {manifest.clips[index].id}"


def _missing_files(clip: Clip) -> list[str]:
    paths = [clip.video]
    if clip.sound != clip.video:
        paths.append(clip.sound)
    return [str(path) for path in paths if not is_file(path)]


def _check_clip(clip: Clip, findings: Findings, raw: bool) -> list[str]:
    """Reads a clip and adds it to the findings; returns its problems."""
    try:
        reading = _read(clip)
    except InputError as error:
        return [str(error)]
    findings.read += 1
    findings.fps[round(reading.fps, 2)] += 1
    findings.sizes[reading.size] += 1
    findings.sample_rates[reading.sample_rate] += 1
    findings.frames.append(reading.frames)
    if reading.frames != clip.frames:
        findings.wrong_frames += 1
    problems = _problems_of_length(clip, reading)
    if not raw:
        problems += _problems_of_format(clip, reading)
    return problems


def _read(clip: Clip) -> _Reading:
    """Reads the files of a clip from start to end."""
    video = streams.probe(clip.video)
    audio = streams.probe(clip.sound)
    if video.fps is None or video.size is None:
        raise InputError(f"{clip.video} has no video stream: this clip is for ASR only")
    if audio.sample_rate is None:
        beside = "" if clip.audio == clip.video else f", and there is no {clip.audio}"
        raise InputError(f"{clip.sound} has no audio stream{beside}: this clip is for VSR only")
    samples = sum(len(block) for block in streams.audio_blocks(clip.sound, clip.track))
    frames = sum(1 for _ in streams.video_frames(clip.video, "gray"))
    return _Reading(video.fps, video.size, audio.sample_rate, frames, samples)


def _problems_of_length(clip: Clip, reading: _Reading) -> list[str]:
    problems = []
    if reading.frames == 0:
        problems.append(f"{clip.video} has no frames")
    if reading.samples == 0:
        problems.append(f"{clip.sound} has no samples")
    if abs(reading.drift) > LARGEST_DRIFT:
        sound, picture = str(clip.sound), clip.video.name
        if clip.sound == clip.video:
            sound, picture = f"{clip.video}: the sound", "the picture"
        than = "longer" if reading.drift > 0 else "shorter"
        problems.append(f"{sound} is {abs(reading.drift):.1f} frames {than} than {picture}")
    return problems


def _problems_of_format(clip: Clip, reading: _Reading) -> list[str]:
    """Returns how a clip differs from a mouth clip."""
    problems = []
    if reading.fps != VIDEO_FPS:
        problems.append(
            f"{clip.video} has {reading.fps:g} frames per second, {VIDEO_FPS} expected; "
            "`omni-avsr prepare` converts them, --raw accepts them"
        )
    if reading.size not in ((MOUTH_SIZE, MOUTH_SIZE), (CROP_SIZE, CROP_SIZE)):
        height, width = reading.size
        problems.append(
            f"{clip.video} has {height} x {width} pixels, {MOUTH_SIZE} x {MOUTH_SIZE} expected; "
            "`omni-avsr prepare` makes mouth clips, --raw accepts raw videos"
        )
    return problems
