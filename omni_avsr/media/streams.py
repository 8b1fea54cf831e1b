"""Reads and writes audio and video. The only file that uses the decoder library, PyAV.

`read_audio` and `read_video` read prepared clips as they are, and refuse damaged ones.
`audio_blocks` and `video_frames` stream files of any kind: they follow the file's clock from its
start, so that audio and video stay aligned. They skip what is damaged, and say so at the end.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.stream import Disposition
from av.video.reformatter import ColorRange

from omni_avsr.errors import InputError
from omni_avsr.tasks import SAMPLE_RATE, SAMPLES_PER_VIDEO_FRAME, VIDEO_FPS

INT16_RANGE = 32_768  # the int16 value that is 1.0 as a float
AUDIBLE = 1e-3  # amplitude; a track that never reaches it is silent
LONGEST_GAP = 60  # seconds that a frame may come after the one before, beyond the file's length
CLOCK_ERROR = 0.04  # seconds; a shorter gap between two audio frames is not filled with silence
FRAMES_MISSED = 2  # frames that a complete clip may have fewer than its header announces
LARGEST_FRAME = 8192 * 8192  # pixels; files that announce larger frames are refused
CUT_OFF = 1.0  # seconds that a complete file may be shorter than its header announces
LAST_FRAME = 0.2  # seconds; the longest that the last frame is shown
LONGEST_STILL = 1.0  # seconds that an image is shown on when no other follows
MOST_FAILURES = 100  # errors between packets, after which the rest of a file is given up
TELL_LENGTH = ("matroska,webm", "flv", "flac")  # formats whose header has the length of the file
LIMITED_RANGE = (ColorRange.UNSPECIFIED, ColorRange.MPEG)  # black is 16 and white 235
# Written files are the same bytes on every machine: one thread, and without macroblock trees,
# which x264 computes differently depending on memory alignment.
H264 = {"crf": "18", "preset": "veryfast", "threads": "1", "mbtree": "0"}

AnyStream = TypeVar("AnyStream", av.AudioStream, av.VideoStream)
AnyFrame = TypeVar("AnyFrame", av.AudioFrame, av.VideoFrame)


def read_audio(path: Path | str, track: int | None = None) -> np.ndarray:
    """Returns an audio track as mono float32 (S,) at 16 kHz, in -1..1.

    Tracks count from 1; the first that is not silent is taken if none is named.
    """
    resampler = _Resampler()
    blocks: list[np.ndarray] = []
    with _open(path) as container:
        for frame in container.decode(_audio_stream(container, track)):
            blocks.extend(resampler.resample(frame))
        blocks.extend(resampler.flush())
    if not blocks:
        raise InputError(f"{path} has an audio stream without samples")
    return np.concatenate(blocks)  # (S,)


def read_video(path: Path | str) -> np.ndarray:
    """Returns all frames of the first video stream as grey uint8 (T, H, W), at any frame rate."""
    frames: list[np.ndarray] = []
    hidden = 0
    with _open(path) as container:
        stream = _video_stream(container)
        stream.thread_type = "NONE"  # clips are short, and many are read at once
        for packet in container.demux(stream):
            if packet.is_discard:  # hidden by an edit list
                hidden += 1
            frames.extend(map(_grey, packet.decode()))
        announced = stream.frames - hidden
    if not frames:
        raise InputError(f"{path} has a video stream without frames")
    if len(frames) < announced - FRAMES_MISSED:
        raise InputError(f"{path} is damaged: {len(frames)} of {announced} frames can be read")
    return np.stack(frames)  # (T, H, W)


def write_audio(path: Path | str, audio: np.ndarray) -> None:
    """Writes int16 samples (S,) at 16 kHz as a wav file."""
    with av.open(str(path), "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        _encode_audio(container, stream, audio)


def write_video(path: Path | str, frames: np.ndarray, audio: np.ndarray | None = None) -> None:
    """Writes frames at 25 per second as H.264, and int16 samples (S,) at 16 kHz as AAC.

    Frames are uint8, grey (T, H, W) or RGB (T, H, W, 3).
    """
    colour = "gray" if frames.ndim == 3 else "rgb24"
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(VIDEO_FPS), options=H264)
        stream.height = frames.shape[1]
        stream.width = frames.shape[2]
        stream.pix_fmt = "yuv420p"
        sound = None
        if audio is not None:
            sound = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for image in frames:
            frame = av.VideoFrame.from_ndarray(image, format=colour)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None and audio is not None:
            _encode_audio(container, sound, audio)


def _encode_audio(container: OutputContainer, stream: av.AudioStream, audio: np.ndarray) -> None:
    frame = av.AudioFrame.from_ndarray(audio[None], format="s16", layout="mono")
    frame.sample_rate = SAMPLE_RATE
    # Without a time the file does not say that the encoder begins with silence of its own
    frame.pts, frame.time_base = 0, Fraction(1, SAMPLE_RATE)
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


@dataclass(frozen=True)
class Probe:
    """What the header of a file announces; the fields of a missing stream are None."""

    seconds: float
    fps: float | None
    size: tuple[int, int] | None  # height and width in pixels
    sample_rate: int | None  # Hz
    channels: int | None


def probe(path: Path | str) -> Probe:
    """Returns what the header announces, without decoding anything."""
    with _open(path) as container:
        video = _first_usable(container.streams.video)
        audio = _first_usable(container.streams.audio)
        return Probe(
            seconds=_seconds_of_file(container, [video, audio]),
            fps=float(video.average_rate or video.guessed_rate or 0) if video else None,
            size=(video.height, video.width) if video else None,
            sample_rate=audio.rate if audio else None,
            channels=audio.channels if audio else None,
        )


def count_frames(path: Path | str) -> int:
    """Returns about how many frames a file has at 25 per second; 0 if it cannot be read."""
    try:
        return round((probe(path).seconds or _seconds_of_packets(path)) * VIDEO_FPS)
    except InputError:
        return 0


def _seconds_of_packets(path: Path | str) -> float:
    """Returns when the last packet ends, for files whose header announces no length."""
    end = 0.0
    with _open(path) as container:
        start = _start(container)
        for packet in container.demux():
            if packet.pts is not None:
                ticks = packet.pts + (packet.duration or 0)
                end = max(end, _in_seconds(ticks, packet.time_base) - start)
    return end


def sound_of(video: Path) -> Path:
    """Returns the file with a video's audio: itself, or the .wav beside it if it has none."""
    beside = video.with_suffix(".wav")
    silent = probe(video).sample_rate is None
    return beside if silent and beside.is_file() else video


def audio_blocks(
    path: Path | str, track: int | None = None, device: str | None = None
) -> Iterator[np.ndarray]:
    """Yields an audio track as mono float32 blocks (S,) at 16 kHz; see read_audio for the track.

    The path may be a device's name, if there is the format that FFmpeg has for devices of its kind.

    Where the file's clock has a gap, or the sound cannot be decoded, the blocks have silence.
    """
    with _open(path, device) as container:
        stream = _audio_stream(container, track)
        reader: _Reader[av.AudioFrame] = _Reader(path, container, stream)
        resampler = _Resampler()
        for frame in reader.frames():
            if frame.time is not None:
                gap = frame.time - reader.start - resampler.seconds
                if gap > CLOCK_ERROR or not resampler.samples:
                    yield from resampler.silence(gap)
            yield from resampler.resample(frame)
        yield from resampler.flush()
        reader.finish(resampler.seconds)


class _Reader(Generic[AnyFrame]):
    """Decodes one stream; skips what cannot be decoded, and says at the end how much that was."""

    def __init__(
        self,
        path: Path | str,
        container: InputContainer,
        stream: av.AudioStream | av.VideoStream,
    ):
        self.path = path
        self.container = container
        self.stream = stream
        self.kind = "sound" if isinstance(stream, av.AudioStream) else "picture"
        self.has_both = bool(container.streams.audio and container.streams.video)
        self.start = _start(container)
        self.length = _seconds_of_file(container, [stream])
        self.count = 0  # frames decoded
        self.latest = 0.0  # when the latest of them begins, in seconds from the start
        self.reached = 0.0  # where the latest packet of any stream ends
        self.undecodable = _Loss()
        self.missing = _Loss()  # what has neither sound nor picture

    def frames(self) -> Iterator[AnyFrame]:
        """Yields what can be decoded."""
        for packet in self._packets():
            self._follow(packet)
            if packet.stream_index != self.stream.index:
                continue
            frames: list[Any] = []
            try:
                # Not by packet.stream, which damage can make one of another kind
                frames = self.stream.decode(packet)
            except av.error.FFmpegError:
                self._skip(packet)
            for frame in frames:
                if frame.is_corrupt or self._is_far_off(frame):
                    self._skip(frame)
                else:
                    self.count += 1
                    self.latest = self._begin(frame) or self.latest
                    yield frame

    def _packets(self) -> Iterator[av.Packet]:
        """Yields the packets of all streams; after a damaged place it goes on behind it."""
        for _ in range(MOST_FAILURES):
            with suppress(av.error.FFmpegError):
                yield from self.container.demux()
                return

    def _follow(self, packet: av.Packet) -> None:
        """Notes how far the file is read, and where it has nothing at all."""
        begin = self._begin(packet)
        if begin is None:
            return
        decoded = self._seconds(packet.dts, packet)  # frames may be shown in another order
        is_gap = decoded is not None and decoded - self.reached > CUT_OFF
        if self.has_both and is_gap and begin < self.length:
            self.missing.add(self.reached, begin - self.reached)
        self.reached = max(self.reached, begin + self._duration(packet))

    def _skip(self, piece: av.Packet | AnyFrame) -> None:
        """Notes what cannot be decoded; a recording may begin in the middle of something."""
        begin = self._begin(piece)
        if self.count or (begin or 0.0) > CUT_OFF:
            self.undecodable.add(begin or self.latest, self._duration(piece))

    def _is_far_off(self, frame: AnyFrame) -> bool:
        """Whether the time of a frame is a fault of the file's clock."""
        begin = self._begin(frame) or 0.0
        return begin > self.latest + LONGEST_GAP and begin > self.length + CUT_OFF

    def _begin(self, piece: av.Packet | AnyFrame) -> float | None:
        """Returns when a packet or frame begins, in seconds from the start."""
        return self._seconds(piece.pts, piece)

    def _seconds(self, ticks: int | None, piece: av.Packet | AnyFrame) -> float | None:
        """Returns a time of a packet or frame in seconds from the start."""
        if ticks is None or piece.time_base is None:
            return None
        return _in_seconds(ticks, piece.time_base) - self.start

    def _duration(self, piece: av.Packet | AnyFrame) -> float:
        return _in_seconds(piece.duration or 0, piece.time_base or Fraction(0))

    def finish(self, seconds: float) -> None:
        """Refuses a file of which something was lost; the stream has so many seconds."""
        if not self.count and self.reached:
            raise InputError(f"{self.path} cannot be read: its {self.kind} is damaged")
        problems = []
        announced = self._announced(seconds)
        if announced is not None:
            problems.append(f"is cut off: it ends after {seconds:.1f} of {announced:.1f} seconds")
        if self.undecodable.seconds:
            problems.append(f"is damaged: of its {self.kind} {self.undecodable}")
        if self.missing.seconds:
            problems.append(f"has a gap: of sound and picture {self.missing}")
        if problems:
            raise InputError(f"{self.path} {', and '.join(problems)}")

    def _announced(self, seconds: float) -> float | None:
        """Returns the seconds that the header announces if the stream or file has fewer."""
        of_stream = _seconds_of_stream(self.stream)
        if seconds < of_stream - CUT_OFF:
            tolerated = CUT_OFF / of_stream * self.stream.frames
            if self.count < self.stream.frames - tolerated:
                return of_stream
        is_told = self.container.format.name in TELL_LENGTH
        if is_told and self.start + self.reached < self.length - CUT_OFF:
            return self.length
        return None


def _in_seconds(ticks: int, base: Fraction) -> float:
    """Ticks of a clock in seconds; the product of fractions would take long to be shortened."""
    return ticks * base.numerator / base.denominator


@dataclass
class _Loss:
    """How much of a file is lost, and where that begins."""

    seconds: float = 0.0
    begin: float = 0.0

    def add(self, begin: float, seconds: float) -> None:
        if not self.seconds:
            self.begin = begin
        self.seconds += seconds

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s are lost, the first at {self.begin:.1f} s"


class _Resampler:
    """Converts audio frames, whose format may change, to mono blocks at 16 kHz."""

    def __init__(self) -> None:
        self.samples = 0  # returned so far
        self.inner: av.AudioResampler | None = None  # takes frames of a single format
        self.format: tuple[str, str, int] | None = None

    @property
    def seconds(self) -> float:
        return self.samples / SAMPLE_RATE

    def resample(self, frame: av.AudioFrame) -> Iterator[np.ndarray]:
        format = (frame.format.name, frame.layout.name, frame.sample_rate)
        if format != self.format:
            yield from self.flush()
        if self.inner is None:
            self.inner = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
            self.format = format
        yield from self._blocks(self.inner.resample(frame))

    def flush(self) -> Iterator[np.ndarray]:
        """Yields the samples that are still buffered."""
        if self.inner is not None:
            yield from self._blocks(self.inner.resample(None))
            self.inner = None

    def silence(self, seconds: float) -> Iterator[np.ndarray]:
        """Yields silence of this length, in blocks of a second."""
        left = round(max(seconds, 0.0) * SAMPLE_RATE)
        self.samples += left
        while left > 0:
            yield np.zeros(min(left, SAMPLE_RATE), np.float32)
            left -= SAMPLE_RATE

    def _blocks(self, frames: Iterable[av.AudioFrame]) -> Iterator[np.ndarray]:
        for frame in frames:
            self.samples += frame.samples
            samples = frame.to_ndarray()[0]  # (1, S) -> (S,)
            yield samples.astype(np.float32) / INT16_RANGE


def video_frames(
    path: Path | str, colour: str = "bgr24", device: str | None = None
) -> Iterator[np.ndarray]:
    """Yields the first video stream upright and at 25 frames per second, whatever its rate.

    Frames are uint8 (H, W, 3), or (H, W) if colour is "gray". Each is what the file shows in the
    middle of the 40 ms that the frame stands for; it is black where the file has shown nothing new
    for more than a second.
    """
    with _open(path, device) as container:
        stream = _video_stream(container)
        stream.thread_type = "AUTO"
        reader: _Reader[av.VideoFrame] = _Reader(path, container, stream)
        clock = _VideoClock(stream, reader.start)
        shown: np.ndarray | None = None
        due = 0  # index of the next frame to yield
        for frame in reader.frames():
            still_until = clock.end + LONGEST_STILL
            clock.advance(frame)
            image = _upright(frame, colour)
            if shown is None:
                shown = image  # the first image is also shown until its time has come
                still_until = clock.begin
            while _middle(due) < clock.begin:
                yield shown if _middle(due) < still_until else np.zeros_like(shown)
                due += 1
            shown = image
        while shown is not None and _middle(due) < clock.end:
            yield shown
            due += 1
        reader.finish(clock.end)


class _VideoClock:
    """When the latest frame of a video stream begins and ends, in seconds from the start."""

    def __init__(self, stream: av.VideoStream, start: float):
        self.start = start
        self.begin = 0.0
        self.duration = float(1 / (stream.average_rate or VIDEO_FPS))

    @property
    def end(self) -> float:
        return self.begin + self.duration

    def advance(self, frame: av.VideoFrame) -> None:
        """Moves to the next frame, which is assumed to last as long as the one before."""
        before = self.begin
        self.begin = self.end if frame.time is None else frame.time - self.start
        if self.begin > before:
            self.duration = min(self.begin - before, LAST_FRAME)


def _middle(index: int) -> float:
    """Returns the seconds from the start to the middle of a frame at 25 per second."""
    return (index + 0.5) / VIDEO_FPS


def frames_of_sound(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields the samples (640,) of each video frame; the last is padded with silence."""
    rest = np.zeros(0, np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block])
        complete = len(rest) // SAMPLES_PER_VIDEO_FRAME
        end = complete * SAMPLES_PER_VIDEO_FRAME
        yield from rest[:end].reshape(complete, SAMPLES_PER_VIDEO_FRAME)
        rest = rest[end:]
    if len(rest):
        yield np.pad(rest, (0, SAMPLES_PER_VIDEO_FRAME - len(rest)))


def loudness(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """Returns the root mean square of the samples of each video frame (T,)."""
    levels = []
    for samples in frames_of_sound(blocks):
        power = np.square(samples).mean()
        levels.append(np.sqrt(power))
    return np.array(levels, np.float32)


def _upright(frame: av.VideoFrame, colour: str) -> np.ndarray:
    image = _grey(frame) if colour == "gray" else frame.to_ndarray(format=colour)
    quarter_turns = round(frame.rotation / 90)
    return np.rot90(image, quarter_turns)


def _grey(frame: av.VideoFrame) -> np.ndarray:
    """Returns frame.to_ndarray(format="gray"), in a third of the time for H.264 mouth clips."""
    if frame.format.name != "yuv420p" or frame.color_range not in LIMITED_RANGE:
        return frame.to_ndarray(format="gray")
    luma = _luma_plane(frame)[:, : frame.width]
    return _grey_of_luma()[luma]


@cache
def _grey_of_luma() -> np.ndarray:
    """Returns the grey value that FFmpeg gives each luma value (256,)."""
    frame = av.VideoFrame(16, 256, "yuv420p")
    for plane in frame.planes:
        plane.update(bytes([128]) * plane.buffer_size)
    values = np.arange(256, dtype=np.uint8)
    rows = np.broadcast_to(values[:, None], _luma_plane(frame).shape)
    frame.planes[0].update(rows.tobytes())
    grey = frame.to_ndarray(format="gray")  # (256, 16)
    return grey[:, 0].copy()


def _luma_plane(frame: av.VideoFrame) -> np.ndarray:
    """Returns the luma of a frame with the padding of its rows, as a view."""
    plane: Any = frame.planes[0]
    values = np.frombuffer(plane, np.uint8)
    return values.reshape(plane.height, plane.line_size)


def _start(container: InputContainer) -> float:
    """Returns when the file's clock starts, in seconds."""
    return (container.start_time or 0) / av.time_base


def _seconds_of_file(
    container: InputContainer, streams: Sequence[av.AudioStream | av.VideoStream | None]
) -> float:
    """Returns the file's announced length, or that of its longest stream if it has none."""
    if container.duration:
        return max(container.duration / av.time_base, 0.0)
    lengths = [_seconds_of_stream(stream) for stream in streams if stream]
    return max(lengths, default=0.0)


def _seconds_of_stream(stream: av.AudioStream | av.VideoStream) -> float:
    """Returns the stream's announced length; 0 if the header has none."""
    if not stream.duration or not stream.time_base:
        return 0.0
    return float(stream.duration * stream.time_base)


def _video_stream(container: InputContainer) -> av.VideoStream:
    stream = _first_usable(container.streams.video)
    if stream is None:
        raise InputError(f"{container.name} has no video stream")
    return stream


def _audio_stream(container: InputContainer, track: int | None) -> av.AudioStream:
    tracks = _usable(container.streams.audio)
    if not tracks:
        raise InputError(f"{container.name} has no audio stream")
    if track is None:
        track = _first_audible(container.name, len(tracks))
    if track > len(tracks):
        raise InputError(
            f"{container.name} has {len(tracks)} audio tracks, there is no track {track}"
        )
    return tracks[track - 1]


def _first_audible(path: str, tracks: int) -> int:
    """Returns which audio track is the first that is not silent; 1 if all are."""
    for track in range(1, tracks + 1):
        with suppress(InputError):
            if tracks == 1 or any(abs(b).max() > AUDIBLE for b in audio_blocks(path, track)):
                return track
    return 1


def _first_usable(streams: Sequence[AnyStream]) -> AnyStream | None:
    return next(iter(_usable(streams)), None)


def _usable(streams: Sequence[AnyStream]) -> list[AnyStream]:
    """Returns the streams whose codec is known and that are not cover pictures."""
    usable = []
    for stream in streams:
        if stream.codec_context and not stream.disposition & Disposition.attached_pic:
            usable.append(stream)
    return usable


@contextmanager
def _open(path: Path | str, device: str | None = None) -> Iterator[InputContainer]:
    """Opens a file for reading; whatever is wrong with it becomes an InputError that names it."""
    name = str(path)
    if ":" in name and not device:  # a:b.mp4 is no protocol
        name = os.path.abspath(name)
    try:
        with av.open(name, format=device, metadata_errors="replace") as container:
            _refuse_huge_frames(container)
            yield container
    except InputError:
        raise
    except (av.error.FFmpegError, OSError, ValueError) as error:  # PyAV raises all of them
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read: {reason}") from error


def _refuse_huge_frames(container: InputContainer) -> None:
    """Refuses a damaged header before memory is allocated for its frames."""
    for stream in container.streams.video:
        if stream.codec_context and stream.width * stream.height > LARGEST_FRAME:
            raise InputError(f"{container.name} says that its frames are larger than any video's")
