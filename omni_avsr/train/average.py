"""The mean of a run's last checkpoints, in float32: often better than any of them."""

from pathlib import Path

import torch

from omni_avsr.errors import InputError
from omni_avsr.model import OmniAVSR, OmniAVSRProcessor
from omni_avsr.run import refuse_existing


def average(run: Path, last: int, out: Path) -> list[Path]:
    """Writes the model whose trained weights are the means over the last checkpoints.

    Returns these checkpoints.
    """
    if last < 2:
        raise InputError(f"the mean of {last} checkpoints: at least two are needed")
    found = list((run / "checkpoints").glob("step=*.ckpt"))
    found.sort(key=lambda path: int(path.stem.removeprefix("step=")))
    chosen = found[-last:]
    if len(chosen) < last:
        raise InputError(
            f"{run} has {len(found)} checkpoints, {last} are needed: "
            f"train with --keep {last} --valid-every N"
        )
    refuse_existing(out)
    model = OmniAVSR.from_pretrained(run / "model")
    states = []
    for path in chosen:
        states.append(torch.load(path, map_location="cpu", weights_only=True)["state_dict"])
    weights = model.state_dict()
    for name in states[0]:
        mean = torch.stack([state[name].float() for state in states]).mean(0)
        weight = weights[name.removeprefix("model.")]
        weight.copy_(mean.to(weight.dtype))
    model.save_pretrained(out)
    OmniAVSRProcessor.from_pretrained(run / "model").save_pretrained(out)
    return chosen
