"""What this machine has of what omni-avsr needs: each line is good, or says its remedy."""

import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement

from omni_avsr.run import cache_root
from omni_avsr.tasks import VERSION

GIGABYTE = 1_000_000_000
ENOUGH_DISK = 5 * GIGABYTE  # a toy corpus with its features, and some runs
CODECS = {"h264", "libx264", "aac", "pcm_s16le"}


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, what was found, and what to do about it."""

    name: str
    found: str
    remedy: str = ""
    fails: bool = False  # nothing works without it


def examine() -> Iterator[Finding]:
    """Every finding, as it is made."""
    for look in (packages, accelerator, ffmpeg, detector, toy, disk, self_test):
        try:
            yield look()
        except Exception as error:  # whatever it is, it is what a doctor is asked about
            remedy = "pip install --force-reinstall omni-avsr; if that does not help, report this"
            yield Finding(look.__name__.replace("_", " "), f"{type(error).__name__}: {error}", remedy, fails=True)


def packages() -> Finding:
    """Whether what is installed is what omni-avsr asks for."""
    wanted = [Requirement(line) for line in requires("omni-avsr") or []]
    own = [need for need in wanted if not need.marker or need.marker.evaluate({"extra": ""})]
    have = {need.name: _version(need.name) for need in own}
    wrong = [need for need in own if not have[need.name] or not need.specifier.contains(have[need.name], True)]
    found = ", ".join(f"{name} {number or 'missing'}" for name, number in have.items())
    remedy = "pip install " + " ".join(f"'{need.name}{need.specifier}'" for need in wrong) if wrong else ""
    return Finding("packages", f"Python {platform.python_version()}, omni-avsr {VERSION}, {found}", remedy, bool(wrong))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def accelerator() -> Finding:
    """What computes."""
    import torch

    if not torch.cuda.is_available():
        return Finding("GPU", f"none; {torch.get_num_threads()} threads of the CPU are enough for the toy world")
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return Finding("GPU", f"{names}, bf16")
    return Finding("GPU", f"{names}, without bf16", "train with --precision 32-true")


def ffmpeg() -> Finding:
    """Whether PyAV can read and write what is needed."""
    import av

    missing = sorted(CODECS - av.codecs_available)
    number = ".".join(map(str, av.library_versions["libavcodec"]))
    remedy = f"it lacks {', '.join(missing)}: pip install --force-reinstall av" if missing else ""
    return Finding("FFmpeg", f"PyAV {av.__version__}, libavcodec {number}", remedy, fails=bool(missing))


def detector() -> Finding:
    """Whether raw video can be prepared."""
    from omni_avsr.media.mouth import find_model, yunet

    try:
        file = find_model(download=False)
    except ValueError as error:
        return Finding("face detector", "not here, and needed for raw video alone", str(error))
    yunet(file)
    return Finding("face detector", str(file))


def toy() -> Finding:
    """Whether the toy corpus can be made."""
    if find_spec("espeakng_loader") is None:
        return Finding("toy corpus", "its voices are missing", "pip install 'omni-avsr[toy]'")
    from omni_avsr.toy import generate_shards

    clip = next(iter(generate_shards("grid", "test", 1, 0)))
    return Finding("toy corpus", f"spoke {clip.text!r}")


def disk() -> Finding:
    """Whether there is room for corpora and runs."""
    places = {"cache": cache_root(), "here": Path.cwd()}
    free = {name: shutil.disk_usage(_existing(path)).free for name, path in places.items()}
    found = ", ".join(f"{free[name] / GIGABYTE:.0f} GB at {path} ({name})" for name, path in places.items())
    short = min(free.values()) < ENOUGH_DISK
    return Finding("disk", found, "free some, or set OMNI_AVSR_CACHE to another disk" if short else "")


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def self_test() -> Finding:
    """Whether the shipped model transcribes noise without a fault."""
    import torch

    from omni_avsr.decode.decode import load
    from omni_avsr.tasks import MOUTH_SIZE, SAMPLE_RATE, VIDEO_FPS

    started = time.perf_counter()
    model, processor, _ = load("tiny")
    torch.manual_seed(0)
    sound, mouth = torch.randn(2 * SAMPLE_RATE), torch.randint(0, 256, (2 * VIDEO_FPS, MOUTH_SIZE, MOUTH_SIZE))
    batch = processor([sound], [mouth.to(torch.uint8)], task="avsr").to(model.device)
    ids = model.generate(**batch, max_new_tokens=8)
    return Finding("self-test", f"{ids.shape[1]} tokens of two seconds in {time.perf_counter() - started:.1f} s")
