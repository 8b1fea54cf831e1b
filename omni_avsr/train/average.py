"""The mean of a run's last checkpoints, in float32: often better than any of them."""

from pathlib import Path

import torch

from omni_avsr.model import OmniAVSR, OmniAVSRProcessor
from omni_avsr.run import refuse_taken


def average(run: Path, last: int, out: Path) -> list[Path]:
    """Writes the model whose trained weights are the means over the last checkpoints, which are returned."""
    found = sorted((run / "checkpoints").glob("step=*.ckpt"), key=lambda path: int(path.stem.removeprefix("step=")))
    if last < 2:
        raise ValueError(f"the mean of {last} checkpoints: two or more make one")
    chosen = found[-last:]
    if len(chosen) < last:
        raise ValueError(
            f"{run} keeps {len(found)} checkpoints, {last} are needed: train with --keep {last} --valid-every N"
        )
    refuse_taken(out)
    model = OmniAVSR.from_pretrained(run / "model")
    states = [torch.load(path, map_location="cpu", weights_only=True)["state_dict"] for path in chosen]
    weights = model.state_dict()
    for name in states[0]:
        mean = torch.stack([state[name].float() for state in states]).mean(0)
        own = weights[name.removeprefix("model.")]
        own.copy_(mean.to(own.dtype))
    model.save_pretrained(out)
    OmniAVSRProcessor.from_pretrained(run / "model").save_pretrained(out)
    return chosen
