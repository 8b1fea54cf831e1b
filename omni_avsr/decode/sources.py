"""Waveforms, bytes and open files as files for the time of a transcription."""

import shutil
import tempfile
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import torch

from omni_avsr.errors import InputError

Source: TypeAlias = str | Path | bytes | BinaryIO | np.ndarray | torch.Tensor
Sources: TypeAlias = list[Any] | tuple[Any, ...]  # of each kind of source

FULL_SCALE = 32_767  # the int16 value of the largest sample
HIGHEST_RATE = 1_000_000  # Hz
WRONG_VALUES = "a waveform has floats between -1 and 1, or int16 values, not {}"
LOUDEST = 2.0  # a waveform beyond is no longer one of samples between -1 and 1


@contextmanager
def as_file(source: Source, sampling_rate: int | None) -> Iterator[Path]:
    """A source as a file; one that is not a path already is written to a temporary folder."""
    if isinstance(source, str | Path):
        yield Path(source)
        return
    with tempfile.TemporaryDirectory(prefix="omni-avsr-") as folder:
        yield _written(source, sampling_rate, Path(folder))


def _written(source: Source, sampling_rate: int | None, folder: Path) -> Path:
    if isinstance(source, np.ndarray):
        source = _as_tensor(source)
    if isinstance(source, torch.Tensor):
        file = folder / "waveform"
        _write_wave(file, source.detach().cpu(), sampling_rate)
        return file
    if isinstance(source, bytes | bytearray | memoryview):
        file = folder / "bytes"
        file.write_bytes(source)
        return file
    if isinstance(source, str | Path) or not callable(getattr(source, "read", None)):
        raise InputError(
            f"a {type(source).__name__} cannot be transcribed: give a path, a waveform with its "
            "sampling_rate, bytes, or a file that is open in binary mode"
        )
    return _copied(source, folder)


def _copied(source: BinaryIO, folder: Path) -> Path:
    """The rest of an open file, under the same name if it has one."""
    name = getattr(source, "name", None)
    file = folder / (Path(name).name if isinstance(name, str) and Path(name).name else "file")
    with file.open("wb") as copy:
        try:
            shutil.copyfileobj(source, copy)
        except TypeError:
            raise InputError(f"{file.name} is open as text: open it with 'rb'") from None
    return file


def _write_wave(file: Path, samples: torch.Tensor, sampling_rate: int | None) -> None:
    """Writes a waveform (S,) of floats in -1..1 or int16 values as a mono wav file."""
    if sampling_rate is None or not 1 <= sampling_rate <= HIGHEST_RATE:
        raise InputError(
            f"a waveform needs sampling_rate, its samples per second, not {sampling_rate}"
        )
    if samples.ndim != 1 or not len(samples):
        raise InputError(
            f"a waveform has the shape (samples,), not {tuple(samples.shape)}: "
            "give one at a time, and the mean of its channels"
        )
    if samples.dtype != torch.int16:
        samples = _as_int16(samples)
    with wave.open(str(file), "wb") as opened:
        opened.setnchannels(1)
        opened.setsampwidth(2)  # bytes
        opened.setframerate(sampling_rate)
        opened.writeframes(samples.contiguous().numpy().tobytes())


def _as_tensor(samples: np.ndarray) -> torch.Tensor:
    native = samples.dtype.newbyteorder("=")
    try:
        return torch.from_numpy(np.ascontiguousarray(samples, native))
    except TypeError:
        raise InputError(WRONG_VALUES.format(samples.dtype)) from None


def _as_int16(samples: torch.Tensor) -> torch.Tensor:
    largest = samples.abs().max() if samples.is_floating_point() else None
    if largest is None or not largest <= LOUDEST:  # NaN is not
        what = samples.dtype if largest is None else f"values up to {largest:g}"
        raise InputError(WRONG_VALUES.format(what))
    return (samples.double().clamp(-1, 1) * FULL_SCALE).round().to(torch.int16)
