"""Reading and writing of sound and video. The only file that knows the decoder library (PyAV)."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from omni_avsr.tasks import SAMPLE_RATE, VIDEO_FPS

H264 = {"crf": "18", "preset": "veryfast", "threads": "1"}  # one thread: the same bytes everywhere


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
        frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    if not frames:
        raise ValueError(f"{path} has a video stream without frames")
    return np.stack(frames)


def write_audio(path: Path | str, audio: np.ndarray) -> None:
    """Writes int16 samples (S,) at 16 kHz as a wav file."""
    with av.open(str(path), "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(audio[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        container.mux([*stream.encode(frame), *stream.encode(None)])


def write_video(path: Path | str, frames: np.ndarray) -> None:
    """Writes uint8 frames (T, H, W) or (T, H, W, 3) at 25 fps as H.264."""
    colour = "gray" if frames.ndim == 3 else "rgb24"
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(VIDEO_FPS), options=H264)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format=colour)))
        container.mux(stream.encode(None))


def _open(path: Path | str, kind: str) -> av.container.InputContainer:
    """The opened file, which has a stream of this kind."""
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
    if not getattr(container.streams, kind):
        container.close()
        raise ValueError(f"{path} has no {kind} stream")
    return container
