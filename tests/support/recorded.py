"""Tensors recorded from the published implementation with small random weights.

`tests/parity/data` holds a selection that is small enough to commit: AV-HuBERT with a narrow ResNet
as a fairseq checkpoint, and Omni-AVSR-ST from the encoders' features on. The whole set is read from
$OMNI_AVSR_REFERENCE, by default `shared/reference` next to the clone; tests that need it are
skipped where it is missing.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

DATA = Path(__file__).parents[1] / "parity" / "data"
DEFAULT = Path(__file__).parents[3] / "shared" / "reference"
WHOLE = Path(os.environ.get("OMNI_AVSR_REFERENCE", DEFAULT))
needs_whole_set = pytest.mark.skipif(
    not WHOLE.is_dir(), reason=f"the recorded tensors are not at {WHOLE}"
)
TASKS = {"audio": "asr", "video": "vsr", "audiovisual": "avsr"}


def read_json(file: Path) -> dict:
    return json.loads(file.read_text())


def config_folder(folder: Path, config: dict) -> str:
    """A folder with only a config.json, which is all that a conversion needs of a tower."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def whole_state_dict(name: str) -> dict[str, Tensor]:
    """A published-style state dict, with the parts that the variants share."""
    weights = load_file(WHOLE / f"omni/{name}.safetensors")
    if "audio_encoder.conv1.weight" in weights:
        return weights
    weights |= load_file(WHOLE / "omni/shared_audio_encoder.safetensors")
    video = load_file(WHOLE / "avhubert/avhubert_full_fp16exact.safetensors")
    for key, weight in video.items():
        is_float = weight.is_floating_point()
        weights[f"video_encoder.{key}"] = weight.float() if is_float else weight
    return weights


def relative_error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def save(weights: dict[str, Tensor], file: Path) -> Path:
    torch.save(weights, file)
    return file
