"""Checks the folders of the tiny towers, calibrates the models, and writes the card."""

import hashlib
import json
from pathlib import Path

from omni_avsr.errors import InputError
from omni_avsr.files import write_text
from omni_avsr.measure.calibrate import calibrate
from omni_avsr.model import OmniAVSR, OmniAVSRProcessor
from omni_avsr.settings import CalibrateSettings
from omni_avsr.toy import toy_corpus
from tools.adapters import METHOD, MODELS
from tools.card import card
from tools.corpus import Corpus
from tools.encoders import FOLDERS
from tools.language_models import SIZES
from tools.reading import show_word_errors, word_errors
from tools.terminal import console

LARGEST = 25_000_000  # bytes of the whole folder
RESULTS = "results.json"
CHECKSUMS = "SHA256SUMS"
WORLDS = {METHOD: ("mixed", "en"), f"{METHOD}-multi": ("open", "multi")}  # and their languages
CALIBRATION_CLIPS = 8000  # of which a tenth are for validation


def package(out: Path, smoke: Corpus) -> None:
    """Loads every folder, decodes some clips, calibrates, and writes README.md and SHA256SUMS."""
    for size in SIZES:
        OmniAVSR.from_towers(audio=out / FOLDERS["audio"], llm=out / size, tasks=["asr"])
    for name in MODELS:
        model = OmniAVSR.from_pretrained(out / name)
        model.to(smoke.device)  # type: ignore[arg-type]
        processor = OmniAVSRProcessor.from_pretrained(out / name)
        show_word_errors(word_errors(model, processor, {name: smoke}, [(4, 2)]))
        calibrate_in(out / name, *WORLDS[name])
    write_card(out)
    total = write_checksums(out)
    if total >= LARGEST:
        raise InputError(
            f"{out} holds {total:,} bytes, less than {LARGEST:,} expected: make the language "
            "models smaller, in SIZES of tools/language_models.py"
        )


def calibrate_in(folder: Path, world: str, language: str) -> None:
    """Makes a model's probabilities of words hold in a toy world."""
    settings = CalibrateSettings(
        checkpoint=str(folder),
        toy_world=world,
        toy_language=language,
        toy_clips=CALIBRATION_CLIPS,
    )
    for found in calibrate(settings, corpus=toy_corpus):
        console.print(f"{folder.name}: {found}")


def write_card(out: Path) -> None:
    """Writes README.md from the results."""
    results = json.loads((out / RESULTS).read_text())
    write_text(out / "README.md", card(results, out))


def write_checksums(out: Path) -> int:
    """Writes SHA256SUMS, makes all files readable, and returns how many bytes they have."""
    total = 0
    lines = []
    for path in sorted(out.rglob("*")):
        if path.is_file() and path.name != CHECKSUMS:
            path.chmod(0o644)  # safetensors writes files that only their owner can read
            content = path.read_bytes()
            total += len(content)
            digest = hashlib.sha256(content).hexdigest()
            lines.append(f"{digest}  {path.relative_to(out)}\n")
    sums = "".join(lines)
    write_text(out / CHECKSUMS, sums)
    total += len(sums)
    console.print(f"{out}: {len(lines) + 1} files, {total / 1e6:.2f} MB")
    return total
