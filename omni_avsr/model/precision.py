"""The number types that a model is kept and computed in.

The frozen towers have one type. What is trained is always float32, and so is what half precision
would spoil: log-mel, rotary angles, the statistics of norms, losses, and the scores of beams.
"""

from collections.abc import Mapping
from typing import TypeAlias

import torch

from omni_avsr.errors import InputError

# One type for all towers, or one for each kind, where None is that of the tower's file
Dtypes: TypeAlias = str | torch.dtype | Mapping[str, str | torch.dtype | None]

# What mixed precisions compute in
AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
# The precisions that towers of a type can be trained in; for half precision, the default is first
PRECISIONS = {
    torch.float32: ("32-true", "bf16-mixed", "16-mixed"),
    torch.bfloat16: ("bf16-mixed", "32-true"),
    torch.float16: ("16-mixed",),
}


def chosen_dtype(name: str, device: str) -> torch.dtype:
    """The type of the frozen towers on a device; auto is bfloat16 on a GPU that has it."""
    if name == "auto":
        name = "bfloat16" if has_bfloat16(device) else "float32"
    return to_dtype(name)


def chosen_precision(name: str | None, dtype: torch.dtype, device: str) -> str:
    """The precision of training, by default the best that the device has for such towers."""
    if name is None:
        name = _default_precision(dtype, device)
    if name not in PRECISIONS[dtype]:
        fitting = " or ".join(PRECISIONS[dtype])
        raise InputError(
            f"towers in {dtype_name(dtype)} need --precision {fitting}, not {name}: "
            "change it, or --dtype"
        )
    if name == "16-mixed" and device == "cpu":
        raise InputError(
            "float16 trains on a GPU only: on a CPU choose bfloat16, "
            "with --dtype bfloat16 or --precision bf16-mixed"
        )
    return name


def _default_precision(dtype: torch.dtype, device: str) -> str:
    if dtype is not torch.float32:
        return PRECISIONS[dtype][0]
    if not device.startswith("cuda"):
        return "32-true"
    return "bf16-mixed" if has_bfloat16(device) else "16-mixed"


def has_bfloat16(device: str) -> bool:
    """Whether the device is a GPU that computes in bfloat16 itself: Ampere or newer."""
    return device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)


def allow_tf32() -> None:
    """Lets a GPU round the inputs of float32 matrix products and convolutions to ten bits (TF32).

    It is 8 times as fast on Ampere, and still finer than bfloat16's seven bits.
    """
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True


def of_tower(dtype: Dtypes, kind: str) -> torch.dtype | None:
    """The type of a tower of this kind; None is that of its file."""
    if not isinstance(dtype, Mapping):
        return to_dtype(dtype)
    own = dtype[kind]
    return None if own is None else to_dtype(own)


def to_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """The dtype, given as such or by its name."""
    available = {dtype_name(known): known for known in PRECISIONS}
    found = available.get(dtype) if isinstance(dtype, str) else dtype
    if found not in PRECISIONS:
        raise InputError(f"unknown dtype {dtype}; available: {', '.join(available)}")
    return found


def dtype_name(dtype: torch.dtype) -> str:
    """Its name without torch's."""
    return str(dtype).removeprefix("torch.")
