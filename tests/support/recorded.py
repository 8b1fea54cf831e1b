"""Tensors recorded from the published implementation with small random weights.

`data/` holds a selection small enough to commit: AV-HuBERT with a narrow ResNet as a fairseq checkpoint, and
Omni-AVSR-ST from the encoders' features on. The whole set is read from $OMNI_AVSR_REFERENCE, by default
`shared/reference` beside the clone; tests that need it are skipped where it is not.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

DATA = Path(__file__).parents[1] / "parity" / "data"
WHOLE = Path(os.environ.get("OMNI_AVSR_REFERENCE", Path(__file__).parents[3] / "shared" / "reference"))
needs_whole_set = pytest.mark.skipif(not WHOLE.is_dir(), reason=f"the recorded tensors are not at {WHOLE}")
TASKS = {"audio": "asr", "video": "vsr", "audiovisual": "avsr"}


def config_folder(folder: Path, config: dict) -> str:
    """A folder with nothing but a config.json, as is all that a conversion needs."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def whole_state_dict(name: str) -> dict[str, Tensor]:
    """A published-style state dict, with the parts that the variants share."""
    weights = load_file(WHOLE / f"omni/{name}.safetensors")
    if "audio_encoder.conv1.weight" in weights:
        return weights
    video = load_file(WHOLE / "avhubert/avhubert_full_fp16exact.safetensors")
    video = {f"video_encoder.{key}": w.float() if w.is_floating_point() else w for key, w in video.items()}
    return {**weights, **load_file(WHOLE / "omni/shared_audio_encoder.safetensors"), **video}


def relative_error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def save(weights: dict[str, Tensor], file: Path) -> Path:
    torch.save(weights, file)
    return file
