"""Checks the folders of the tiny towers, and writes their card and checksums."""

import hashlib
import json
from pathlib import Path

from omni_avsr.errors import InputError
from omni_avsr.files import write_text
from omni_avsr.model import OmniAVSR, OmniAVSRProcessor
from tools.adapters import MODELS
from tools.card import card
from tools.corpus import Corpus
from tools.encoders import FOLDERS
from tools.language_models import SIZES
from tools.reading import show_word_errors, word_errors
from tools.terminal import console

LARGEST = 25_000_000  # bytes of the whole folder
RESULTS = "results.json"
CHECKSUMS = "SHA256SUMS"


def package(out: Path, smoke: Corpus) -> None:
    """Loads every folder, decodes some clips, and writes README.md and SHA256SUMS."""
    for size in SIZES:
        OmniAVSR.from_towers(audio=out / FOLDERS["audio"], llm=out / size, tasks=["asr"])
    for name in MODELS:
        model = OmniAVSR.from_pretrained(out / name)
        model.to(smoke.device)  # type: ignore[arg-type]
        processor = OmniAVSRProcessor.from_pretrained(out / name)
        show_word_errors(word_errors(model, processor, {name: smoke}, [(4, 2)]))
    write_card(out)
    total = write_checksums(out)
    if total >= LARGEST:
        raise InputError(
            f"{out} holds {total:,} bytes, less than {LARGEST:,} expected: make the language "
            "models smaller, in SIZES of tools/language_models.py"
        )


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
