"""Checks that this machine has what omni-avsr needs. A finding is good, or says what to do."""

import platform
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement

from omni_avsr.files import cache_root
from omni_avsr.settings import CheckpointOptions
from omni_avsr.tasks import MOUTH_SIZE, SAMPLE_RATE, VERSION, VIDEO_FPS, Task

GIGABYTE = 1_000_000_000  # bytes
ENOUGH_DISK = 5 * GIGABYTE  # for a toy corpus with its features, and some runs
CODECS = {"h264", "libx264", "aac", "pcm_s16le"}
REINSTALL = "pip install --force-reinstall omni-avsr; if that does not help, report this"
SELF_TEST_SECONDS = 2  # of noise that the shipped model transcribes


@dataclass(frozen=True)
class Finding:
    """One line: what was checked, what was found, and what to do about it."""

    name: str
    found: str
    remedy: str = ""  # empty if all is well
    fails: bool = False  # whether omni-avsr cannot work at all


def examine(fetch: bool = False) -> Iterator[Finding]:
    """Yields the finding of every check as soon as it is made; `fetch` downloads the detector."""
    checks: dict[str, Callable[[], Finding]] = {
        "packages": packages,
        "GPU": accelerator,
        "FFmpeg": ffmpeg,
        "face detector": partial(detector, fetch),
        "toy corpus": toy,
        "quantised LLMs": quantisation,
        "disk": disk,
        "self-test": self_test,
    }
    for name, check in checks.items():
        try:
            yield check()
        except Exception as error:  # any fault of the machine is what the doctor is asked about
            yield Finding(name, f"{type(error).__name__}: {error}", REINSTALL, fails=True)


def packages() -> Finding:
    """Whether the required packages are installed in the required versions."""
    found = [f"Python {platform.python_version()}", f"omni-avsr {VERSION}"]
    wrong = []
    for line in requires("omni-avsr") or []:
        needed = Requirement(line)
        if needed.marker and not needed.marker.evaluate({"extra": ""}):
            continue  # needed by an extra only
        installed = _installed_version(needed.name)
        found.append(f"{needed.name} {installed or 'missing'}")
        if not installed or not needed.specifier.contains(installed, prereleases=True):
            wrong.append(f"'{needed.name}{needed.specifier}'")
    remedy = f"pip install {' '.join(wrong)}" if wrong else ""
    return Finding("packages", ", ".join(found), remedy, fails=bool(wrong))


def _installed_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def accelerator() -> Finding:
    """Which GPUs there are, and whether they compute in bf16."""
    import torch

    if not torch.cuda.is_available():
        threads = torch.get_num_threads()
        return Finding("GPU", f"none; {threads} threads of the CPU are enough for the toy world")
    count = torch.cuda.device_count()
    names = ", ".join(torch.cuda.get_device_name(index) for index in range(count))
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return Finding("GPU", f"{names}, bf16")
    return Finding("GPU", f"{names}, without bf16", "train with --precision 32-true")


def ffmpeg() -> Finding:
    """Whether PyAV reads and writes the formats that are needed."""
    import av

    number = ".".join(map(str, av.library_versions["libavcodec"]))
    found = f"PyAV {av.__version__}, libavcodec {number}"
    missing = sorted(CODECS - av.codecs_available)
    if not missing:
        return Finding("FFmpeg", found)
    remedy = f"it lacks {', '.join(missing)}: pip install --force-reinstall av"
    return Finding("FFmpeg", found, remedy, fails=True)


def detector(fetch: bool = False) -> Finding:
    """Whether the face detector, which raw video needs, is installed; `fetch` downloads it."""
    from omni_avsr.media.faces import NoDetector, find_model, yunet

    try:
        file = find_model(download=fetch)
    except NoDetector as error:
        found = "not installed; only raw video needs it"
        return Finding("face detector", found, str(error), fails=fetch)
    yunet(file)
    return Finding("face detector", str(file))


def toy() -> Finding:
    """Whether the toy corpus can be made."""
    if find_spec("espeakng_loader") is None:
        remedy = "pip install 'omni-avsr[toy]'"
        return Finding("toy corpus", "its voices are not installed", remedy)
    from omni_avsr.toy import generate_shards

    clip = next(iter(generate_shards("grid", "test", 1, 0)))
    return Finding("toy corpus", f"spoke {clip.text!r}")


def quantisation() -> Finding:
    """Whether language models can be kept in 8 or 4 bits."""
    installed = _installed_version("bitsandbytes")
    if installed:
        return Finding("quantised LLMs", f"bitsandbytes {installed}")
    remedy = "pip install 'omni-avsr[quantize]'"
    return Finding("quantised LLMs", "not installed; only --quantize needs it", remedy)


def disk() -> Finding:
    """Whether there is enough space for corpora and runs."""
    found = []
    is_short = False
    for name, path in (("cache", cache_root()), ("here", Path.cwd())):
        free = shutil.disk_usage(_existing(path)).free  # bytes
        found.append(f"{free / GIGABYTE:.0f} GB at {path} ({name})")
        is_short = is_short or free < ENOUGH_DISK
    remedy = "free some space, or set OMNI_AVSR_CACHE to a folder on another disk"
    return Finding("disk", ", ".join(found), remedy if is_short else "")


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return path if path.exists() else _existing(path.parent)


def self_test() -> Finding:
    """Whether the shipped model transcribes noise without an error."""
    import torch

    from omni_avsr.decode.decode import load_decoder

    started = time.perf_counter()
    decoder = load_decoder(CheckpointOptions(checkpoint="tiny"))
    torch.manual_seed(0)
    sound = torch.randn(SELF_TEST_SECONDS * SAMPLE_RATE)
    frames = (SELF_TEST_SECONDS * VIDEO_FPS, MOUTH_SIZE, MOUTH_SIZE)
    mouth = torch.randint(0, 256, frames, dtype=torch.uint8)
    batch = decoder.processor([sound], [mouth], task=Task.AVSR).to(decoder.device)
    tokens = decoder.model.generate(batch, max_new_tokens=8)
    seconds = time.perf_counter() - started
    return Finding("self-test", f"{tokens.shape[1]} tokens of two seconds in {seconds:.1f} s")
