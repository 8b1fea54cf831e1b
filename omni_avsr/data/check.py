"""What `omni-avsr data check` finds out about a label file and its clips."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from omni_avsr.data.manifest import Clip, Manifest
from omni_avsr.errors import InputError
from omni_avsr.media import streams
from omni_avsr.run import Progress, with_progress
from omni_avsr.tasks import MOUTH_SIZE, SAMPLE_RATE, VIDEO_FPS

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
    for index, clip in enumerate(manifest.clips):
        for path in _missing_files(clip):
            findings.problems.append(f"{_place(manifest, index)}: {path} is missing")
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


def histogram(lengths: Sequence[float], bins: int = 8) -> list[tuple[float, float, int]]:
    """Returns the bins of a histogram, each as its start, its end and its count."""
    counts, edges = np.histogram(lengths, bins)
    starts = edges[:-1].tolist()
    ends = edges[1:].tolist()
    return list(zip(starts, ends, counts.tolist(), strict=True))


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
    return [str(path) for path in paths if not path.is_file()]


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
        raise InputError(f"{clip.video} has no video stream")
    if audio.sample_rate is None:
        raise InputError(f"{clip.sound} has no audio stream")
    samples = sum(len(block) for block in streams.audio_blocks(clip.sound))
    frames = sum(1 for _ in streams.video_frames(clip.video, "gray"))
    return _Reading(video.fps, video.size, audio.sample_rate, frames, samples)


def _problems_of_length(clip: Clip, reading: _Reading) -> list[str]:
    problems = []
    if reading.frames == 0:
        problems.append(f"{clip.video} has no frames")
    if reading.samples == 0:
        problems.append(f"{clip.sound} has no samples")
    if abs(reading.drift) > LARGEST_DRIFT:
        problems.append(
            f"{clip.sound} is {reading.drift:+.1f} frames longer than {clip.video.name}"
        )
    return problems


def _problems_of_format(clip: Clip, reading: _Reading) -> list[str]:
    """Returns how a clip differs from a mouth clip."""
    problems = []
    if reading.fps != VIDEO_FPS:
        problems.append(f"{clip.video} has {reading.fps:g} frames per second, {VIDEO_FPS} expected")
    if reading.size != (MOUTH_SIZE, MOUTH_SIZE):
        height, width = reading.size
        problems.append(
            f"{clip.video} has {height} x {width} pixels, {MOUTH_SIZE} x {MOUTH_SIZE} expected; "
            "`omni-avsr prepare` makes mouth clips"
        )
    return problems
