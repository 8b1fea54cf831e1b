"""Reading and writing of sound and video. The only file that knows the decoder library (PyAV).

`read_audio` and `read_video` take prepared clips as they are. `audio_blocks` and `video_frames` take anything: they
stream, and follow the file's clock, from its start, so that sound and picture belong together.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange

from omni_avsr.tasks import SAMPLE_RATE, SAMPLES_PER_VIDEO_FRAME, VIDEO_FPS

LONGEST_GAP = 60  # seconds without a picture or a sound that are believed
CLOCK_ERROR = 0.04  # seconds between two sounds that are no gap
FRAMES_MISSED = 2  # of a clip that is whole
LARGEST_FRAME = 8192 * 8192  # pixels; a frame that says more of itself is not read
CUT_OFF = 1.0  # seconds that a file may be shorter than it says
TELEVISION = (ColorRange.UNSPECIFIED, ColorRange.MPEG)  # black is 16 and white 235, as in nearly all files
LAST_FRAME = 0.2  # seconds that a last frame is shown at most
# the same bytes everywhere: one thread, and without what x264 computes differently by where it lies in memory
H264 = {"crf": "18", "preset": "veryfast", "threads": "1", "mbtree": "0"}


def read_audio(path: Path | str) -> np.ndarray:
    """The first audio stream as mono float32 (S,) at 16 kHz, in -1..1."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
    pieces = []
    with _open(path, "audio") as container:
        for frame in container.decode(audio=0):
            pieces += [piece.to_ndarray() for piece in resampler.resample(frame)]
        pieces += [piece.to_ndarray() for piece in resampler.resample(None)]
    if not pieces:
        raise ValueError(f"{path} has an audio stream without samples")
    return np.concatenate(pieces, 1)[0].astype(np.float32) / 32768  # (S,)


def read_video(path: Path | str) -> np.ndarray:
    """The first video stream's frames as grey uint8 (T, H, W), as they are, whatever their rate."""
    with _open(path, "video") as container:
        container.streams.video[0].thread_type = "NONE"  # clips are short, and many are read at once
        frames: list[np.ndarray] = []
        hidden = 0
        for packet in container.demux(video=0):
            hidden += packet.is_discard  # by an edit
            frames += map(_grey, packet.decode())
        announced = container.streams.video[0].frames - hidden
    if not frames:
        raise ValueError(f"{path} has a video stream without frames")
    if len(frames) < announced - FRAMES_MISSED:
        raise ValueError(f"{path} is damaged: {len(frames)} of {announced} frames can be read")
    return np.stack(frames)


def write_audio(path: Path | str, audio: np.ndarray) -> None:
    """Writes int16 samples (S,) at 16 kHz as a wav file."""
    with av.open(str(path), "w", format="wav") as container:
        _mux_audio(container, container.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono"), audio)


def _mux_audio(container: av.container.OutputContainer, stream: av.AudioStream, audio: np.ndarray) -> None:
    frame = av.AudioFrame.from_ndarray(audio[None], format="s16", layout="mono")
    frame.sample_rate = SAMPLE_RATE
    container.mux([*stream.encode(frame), *stream.encode(None)])


def write_video(path: Path | str, frames: np.ndarray, audio: np.ndarray | None = None) -> None:
    """Writes uint8 frames (T, H, W) or (T, H, W, 3) at 25 fps as H.264, with int16 samples (S,) at 16 kHz as AAC."""
    colour = "gray" if frames.ndim == 3 else "rgb24"
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(VIDEO_FPS), options=H264)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        sound = None if audio is None else container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format=colour)))
        container.mux(stream.encode(None))
        if sound is not None and audio is not None:
            _mux_audio(container, sound, audio)


@dataclass(frozen=True)
class Probe:
    """What a file says of itself; a stream that it does not have is None."""

    seconds: float
    fps: float | None
    size: tuple[int, int] | None  # height and width in pixels
    sample_rate: int | None
    channels: int | None


def probe(path: Path | str) -> Probe:
    """The file's streams, from its header."""
    with _open(path) as container:
        video, audio = _stream(container, "video"), _stream(container, "audio")
        lengths = [float(s.duration * s.time_base) for s in (video, audio) if s and s.duration and s.time_base]
        seconds = (container.duration or 0) / av.time_base if container.duration else max(lengths, default=0.0)
        return Probe(
            max(seconds, 0.0),
            float(video.average_rate or video.guessed_rate or 0) if video else None,
            (video.height, video.width) if video else None,
            audio.rate if audio else None,
            audio.channels if audio else None,
        )


def count_frames(path: Path | str) -> int:
    """About how many frames of ours a file has, from its header; 0 if it cannot be read."""
    try:
        return round(probe(path).seconds * VIDEO_FPS)
    except ValueError:
        return 0


def sound_of(video: Path) -> Path:
    """The file to hear with a video: itself, or where it is silent the .wav beside it."""
    beside = video.with_suffix(".wav")
    return beside if probe(video).sample_rate is None and beside.is_file() else video


def audio_blocks(path: Path | str) -> Iterator[np.ndarray]:
    """The first audio stream as mono float32 pieces at 16 kHz, with silence where the file's clock has no sound."""
    with _open(path, "audio") as container:
        resampler, count = _Resampler(), 0
        for frame in container.decode(audio=0):
            count += 1
            if frame.time is not None:
                missing = frame.time - _start(container) - resampler.given / SAMPLE_RATE
                yield resampler.silence(missing if missing > CLOCK_ERROR or not resampler.given else 0.0)
            yield from resampler(frame)
        yield from resampler(None)
        _refuse_cut_off(path, _stream(container, "audio"), resampler.given / SAMPLE_RATE, count)


class _Resampler:
    """Frames of any kind, which may change on the way, to mono pieces at 16 kHz."""

    def __init__(self) -> None:
        self.given = 0  # samples so far
        self.kind: tuple | None = None
        self.inner: av.AudioResampler | None = None

    def __call__(self, frame: av.AudioFrame | None) -> Iterator[np.ndarray]:
        kind = (frame.format.name, frame.layout.name, frame.sample_rate) if frame else None
        if self.inner and kind != self.kind:
            yield from self._counted(self.inner.resample(None))
            self.inner = None
        if frame:
            self.inner = self.inner or av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
            self.kind = kind
            yield from self._counted(self.inner.resample(frame))

    def _counted(self, frames: Iterable[av.AudioFrame]) -> Iterator[np.ndarray]:
        for frame in frames:
            self.given += frame.samples
            yield frame.to_ndarray()[0].astype(np.float32) / 32768

    def silence(self, seconds: float) -> np.ndarray:
        """So much, up to a limit."""
        samples = round(min(max(seconds, 0.0), LONGEST_GAP) * SAMPLE_RATE)
        self.given += samples
        return np.zeros(samples, np.float32)


def _refuse_cut_off(path: Path | str, stream, seconds: float, frames: int) -> None:
    """Refuses a file with less than its header says, in time and in frames, once what it has was given."""
    announced = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
    if seconds < announced - CUT_OFF and frames < stream.frames - CUT_OFF / announced * stream.frames:
        raise ValueError(f"{path} is cut off: it ends after {seconds:.1f} of {announced:.1f} seconds")


def video_frames(path: Path | str, colour: str = "bgr24") -> Iterator[np.ndarray]:
    """The first video stream upright and at 25 fps, whatever its rate: uint8 (H, W, 3), or (H, W) if colour is gray.

    A frame of ours is what the file shows in the middle of it.
    """
    with _open(path, "video") as container:
        stream = _stream(container, "video")
        stream.thread_type = "AUTO"
        last, due, begin, count = None, 0, 0.0, 0
        step = float(1 / (stream.average_rate or VIDEO_FPS))  # how long the last frame is shown
        for frame in container.decode(stream):
            count += 1
            before, begin = begin, frame.time - _start(container) if frame.time is not None else begin + step
            step = min(begin - before, LAST_FRAME) if begin > before else step
            image = _grey(frame) if colour == "gray" else frame.to_ndarray(format=colour)
            image = np.rot90(image, round(frame.rotation / 90))
            if begin - due / VIDEO_FPS > LONGEST_GAP:
                raise ValueError(f"{path} shows nothing for {begin - due / VIDEO_FPS:.0f} seconds, its clock is broken")
            shown = image if last is None else last
            while (due + 0.5) / VIDEO_FPS < begin:
                yield shown
                due += 1
            last = image
        while last is not None and (due + 0.5) / VIDEO_FPS < begin + step:
            yield last
            due += 1
        _refuse_cut_off(path, stream, begin + step, count)


def frames_of_sound(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The samples (640,) of each video frame, the last filled up with silence."""
    rest = np.zeros(0, np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block])
        whole = len(rest) // SAMPLES_PER_VIDEO_FRAME * SAMPLES_PER_VIDEO_FRAME
        yield from rest[:whole].reshape(-1, SAMPLES_PER_VIDEO_FRAME)
        rest = rest[whole:]
    if len(rest):
        yield np.pad(rest, (0, SAMPLES_PER_VIDEO_FRAME - len(rest)))


def loudness(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """The root mean square of each video frame's samples (T,)."""
    levels = (np.sqrt(np.square(samples).mean()) for samples in frames_of_sound(blocks))
    return np.fromiter(levels, np.float32)


def _grey(frame: av.VideoFrame) -> np.ndarray:
    """What frame.to_ndarray(format="gray") gives, in a third of the time for what mouth clips are."""
    if frame.format.name != "yuv420p" or frame.color_range not in TELEVISION:
        return frame.to_ndarray(format="gray")
    return _greys()[_rows(frame)[:, : frame.width]]


@cache
def _greys() -> np.ndarray:
    """FFmpeg's grey of each luma (256,)."""
    frame = av.VideoFrame(16, 256, "yuv420p")
    for plane in frame.planes:
        plane.update(bytes([128]) * plane.buffer_size)
    lumas = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None], _rows(frame).shape)
    frame.planes[0].update(lumas.tobytes())
    return frame.to_ndarray(format="gray")[:, 0].copy()


def _rows(frame: av.VideoFrame) -> np.ndarray:
    """The luma of a frame, with what pads its rows."""
    plane: Any = frame.planes[0]
    return np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)


def _start(container: av.container.InputContainer) -> float:
    return (container.start_time or 0) / av.time_base


def _stream(container: av.container.InputContainer, kind: str):
    """The first stream of this kind whose codec is known and that is no cover picture."""
    streams = [s for s in getattr(container.streams, kind) if s.codec_context]
    return next((s for s in streams if not s.disposition & av.stream.Disposition.attached_pic), None)


@contextmanager
def _open(path: Path | str, kind: str | None = None) -> Iterator[av.container.InputContainer]:
    """The opened file, which has a stream of this kind; whatever is wrong with it is a ValueError that names it."""
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            if kind and not _stream(container, kind):
                raise ValueError(f"{path} has no {kind} stream")
            if any(s.width * s.height > LARGEST_FRAME for s in container.streams.video if s.codec_context):
                raise ValueError(f"{path} says that its frames are larger than any video's")
            yield container
    except (av.error.FFmpegError, OSError) as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
