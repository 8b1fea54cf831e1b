"""What `omni-avsr data check` finds out about a label file."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from omni_avsr.data.manifest import Clip, Manifest
from omni_avsr.media import streams as media
from omni_avsr.run import Report, counted
from omni_avsr.tasks import MOUTH_SIZE, SAMPLE_RATE, VIDEO_FPS

DRIFT = 2  # frames between sound and picture that are no drift yet


@dataclass
class Findings:
    """Facts of the clips that were read, and what is wrong with them."""

    manifest: Manifest
    read: int = 0
    fps: Counter = field(default_factory=Counter)
    sizes: Counter = field(default_factory=Counter)
    sample_rates: Counter = field(default_factory=Counter)
    frames: list[int] = field(default_factory=list)  # counted, of the clips that were read
    wrong_frames: int = 0  # clips whose file says another number
    problems: list[str] = field(default_factory=list)

    @property
    def hours(self) -> float:
        """Of all clips, as their label file has it."""
        return sum(clip.frames for clip in self.manifest.clips) / VIDEO_FPS / 3600

    @property
    def words(self) -> list[int]:
        """Of each clip."""
        return [len(clip.text.split()) for clip in self.manifest.clips]


def check(manifest: Manifest, sample: int, raw: bool, report: Report) -> Findings:
    """Looks for every file, and reads a sample, spread over the whole label file, from end to end."""
    findings = Findings(manifest)
    findings.problems += [f"{manifest.file}:{number}: {problem}" for number, problem in manifest.problems]
    for line, clip in zip(manifest.lines, manifest.clips, strict=True):
        missing = [path for path in {clip.video, clip.sound} if not path.is_file()]
        findings.problems += [f"{_place(manifest, line, clip)}: {path} is missing" for path in missing]
    chosen = spread(len(manifest.clips), sample)
    for index in counted(chosen, "Reading clips", len(chosen), report):
        clip = manifest.clips[index]
        if not clip.video.is_file() or not clip.sound.is_file():
            continue
        try:
            wrong = _look(clip, findings, raw)
        except ValueError as error:
            wrong = [str(error)]
        findings.problems += [f"{_place(manifest, manifest.lines[index], clip)}: {problem}" for problem in wrong]
    return findings


def spread(count: int, sample: int) -> list[int]:
    """So many of the indices, at even distances; all if there are fewer, or none is asked for."""
    if not sample or sample >= count:
        return list(range(count))
    return np.linspace(0, count - 1, sample).round().astype(int).tolist()


def histogram(lengths: Sequence[float], bins: int = 8) -> list[tuple[float, float, int]]:
    """From, to, and how many."""
    counts, edges = np.histogram(lengths, bins=bins)
    return [(float(a), float(b), int(n)) for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)]


def _place(manifest: Manifest, line: int, clip: Clip) -> str:
    return f"{manifest.file}:{line}" if line else f"{manifest.file}: {clip.id}"


def _look(clip: Clip, findings: Findings, raw: bool) -> list[str]:
    """Reads a clip from end to end; returns what is wrong with it."""
    seen, heard = media.probe(clip.video), media.probe(clip.sound)
    if seen.fps is None or heard.sample_rate is None:
        lacking = clip.video if seen.fps is None else clip.sound
        return [f"{lacking} has no {'video' if seen.fps is None else 'audio'} stream"]
    assert seen.size
    samples = sum(len(block) for block in media.audio_blocks(clip.sound))
    frames = sum(1 for _ in media.video_frames(clip.video, "gray"))
    findings.read += 1
    findings.fps[round(seen.fps, 2)] += 1
    findings.sizes[seen.size] += 1
    findings.sample_rates[heard.sample_rate] += 1
    findings.frames.append(frames)
    findings.wrong_frames += frames != clip.frames
    drift = samples / SAMPLE_RATE * VIDEO_FPS - frames
    conditions = {
        f"{clip.video} has no frames": not frames,
        f"{clip.sound} has no samples": not samples,
        f"{clip.sound} is {drift:+.1f} frames longer than {clip.video.name}": abs(drift) > DRIFT,
        f"{clip.video} has {seen.fps:g} frames a second, {VIDEO_FPS} expected": not raw and seen.fps != VIDEO_FPS,
        f"{clip.video} has {seen.size[0]} x {seen.size[1]} pixels, {MOUTH_SIZE} x {MOUTH_SIZE} expected; `omni-avsr "
        "prepare` makes mouth clips": not raw and seen.size != (MOUTH_SIZE, MOUTH_SIZE),
    }
    return [problem for problem, holds in conditions.items() if holds]
