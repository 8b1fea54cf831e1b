"""A GPU that is only pretended: real values on the CPU that say they are on cuda:0.

Inside of `pretended_gpu()`, `.to("cuda:0")` and `device="cuda:0"` give tensors that keep a GPU's
rules: an operation that mixes them with tensors of the CPU raises what CUDA raises, autocast casts
what CUDA's autocast casts, and each time that the CPU would wait for the GPU is counted.

Name the GPU with its number: torch asks a real one what "cuda" stands for.
"""

import ctypes
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._C import DispatchKey, DispatchKeySet
from torch.utils._python_dispatch import TorchDispatchMode

import omni_avsr

GPU = torch.device("cuda:0")
# What torch's C++ takes it for: CUDA's autocast casts XLA's tensors as well, and the backward pass
# does not look for streams. A build for CPUs has no streams.
INSIDE = torch.device("xla:0")
PACKAGE = Path(omni_avsr.__file__).parent
GUARDS = "_ZN3c104impl26device_guard_impl_registryE"  # of each type of device, in libc10
CPU, CUDA, XLA, DEVICE_TYPES = 0, 1, 9, 20
aten = torch.ops.aten

COPIES = {aten._to_copy.default, aten.copy_.default, aten._foreach_copy_.default}
INDEXING = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
# Take single numbers on the CPU, as pointwise operations do
TAKE_NUMBERS = {
    aten.masked_fill.Tensor,
    aten.masked_fill_.Tensor,
    aten.fill_.Tensor,
    aten._foreach_mul.Tensor,
    aten._foreach_mul_.Tensor,
}
# The size of the result, or the result itself, is known only when the GPU has computed it
WAIT = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.equal.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
    aten.bincount.default,
}


class OnGPU(Tensor):
    """A tensor that says that it is on the GPU; its values are in `held`, on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnGPU":
        tensor = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=INSIDE,
            _extra_dispatch_keys=DispatchKeySet(DispatchKey.AutocastCUDA),
        )
        tensor.held = held
        return tensor

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnGPU({self.held})"

    def __reduce_ex__(self, protocol: Any) -> Any:  # saved like a tensor of the CPU
        return self.held.__reduce_ex__(protocol)

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return GPU

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    def storage(self) -> Any:  # whose address tells whether tensors share it
        return self.held.storage()

    def untyped_storage(self) -> Any:
        return self.held.untyped_storage()

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def tolist(self) -> Any:
        _count("tolist")
        return self.held.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy: use .cpu() first")


class Waits(Counter[str]):
    """How often the CPU waited for the GPU, by operation and function of omni_avsr."""


class _Mode(TorchDispatchMode):
    """Moves tensors to the GPU and makes them there."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})


_counters: list[Waits] = []


@contextmanager
def waits() -> Iterator[Waits]:
    """Counts each time that the CPU waits for the GPU."""
    counter = Waits()
    _counters.append(counter)
    try:
        yield counter
    finally:
        _counters.remove(counter)


def _count(what: str) -> None:
    if _counters:
        place = _place()
        for counter in _counters:
            counter[f"{place}: {what}"] += 1


def _place() -> str:
    """The innermost function of omni_avsr that is running."""
    frame = sys._getframe(1)
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(PACKAGE):
            return f"{file.relative_to(PACKAGE)} {frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere"


def _run(func: Any, args: tuple, kwargs: dict) -> Any:
    """Runs an operation on the real values, by the rules of a GPU."""
    tensors: list[Tensor] = []
    held_args = _held(args, tensors)
    held_kwargs = {name: _held(value, tensors) for name, value in kwargs.items()}
    takes_gpu = any(isinstance(tensor, OnGPU) for tensor in tensors)
    if takes_gpu:
        _refuse_mixed(func, args, tensors)
    device = kwargs.get("device")
    makes_gpu = takes_gpu if device is None else _is_on_gpu(device)
    if takes_gpu or makes_gpu:
        _note_waiting(func, args, kwargs, makes_gpu)
    if makes_gpu and device is not None:
        held_kwargs["device"] = torch.device("cpu")
        held_kwargs.pop("pin_memory", None)
    found = func(*held_args, **held_kwargs)
    if not makes_gpu or found is None:
        return found
    written = _written(func, args)
    return _put_on_gpu(found) if written is None else written


def _held(value: Any, tensors: list[Tensor]) -> Any:
    """What an argument holds on the CPU; adds its tensors to the list."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return value.held if isinstance(value, OnGPU) else value
    if isinstance(value, list | tuple):
        return type(value)(_held(item, tensors) for item in value)
    return value


def _put_on_gpu(found: Any) -> Any:
    if isinstance(found, Tensor):
        return OnGPU(found)
    if isinstance(found, list | tuple):
        return type(found)(_put_on_gpu(item) for item in found)
    return found


def _is_on_gpu(device: Any) -> bool:
    return torch.device(device).type in (GPU.type, INSIDE.type)


def _written(func: Any, args: tuple) -> Any:
    """The argument that an operation in place writes to, and returns."""
    arguments = func._schema.arguments
    returns = func._schema.returns
    if not arguments or len(returns) > 1:
        return None
    alias = arguments[0].alias_info
    return args[0] if alias is not None and alias.is_write else None


def _refuse_mixed(func: Any, args: tuple, tensors: list[Tensor]) -> None:
    """Raises what CUDA raises if tensors of the CPU take part that may not."""
    on_cpu = [tensor for tensor in tensors if not isinstance(tensor, OnGPU)]
    if not on_cpu or func in COPIES:
        return
    if func in INDEXING and _may_index(args):
        return
    if _takes_numbers(func, args) and all(tensor.dim() == 0 for tensor in on_cpu):
        return
    raise RuntimeError(
        f"Expected all tensors to be on the same device, but {func} got some on cuda:0 and "
        f"{len(on_cpu)} on cpu, of shape {[tuple(tensor.shape) for tensor in on_cpu]}"
    )


def _may_index(args: tuple) -> bool:
    """Whether what is indexed is on the GPU, as are values that are more than a number.

    The indices may be on the CPU.
    """
    values = args[2] if len(args) > 2 else args[0]
    return isinstance(args[0], OnGPU) and (isinstance(values, OnGPU) or values.dim() == 0)


def _takes_numbers(func: Any, args: tuple) -> bool:
    """Whether single numbers may be on the CPU, unless they are written to."""
    if torch.Tag.pointwise not in func.tags and func not in TAKE_NUMBERS:
        return False
    return _written(func, args) is None or isinstance(args[0], OnGPU | list | tuple)


def _note_waiting(func: Any, args: tuple, kwargs: dict, makes_gpu: bool) -> None:
    """Counts an operation during which the CPU waits for the GPU."""
    if func in WAIT or (func is aten.repeat_interleave.Tensor and not kwargs.get("output_size")):
        _count(func._schema.name.removeprefix("aten::"))
    elif func is aten._to_copy.default:
        if isinstance(args[0], OnGPU) != makes_gpu and not kwargs.get("non_blocking"):
            _count("copied to the GPU" if makes_gpu else "copied to the CPU")
    elif func is aten.copy_.default:
        target, source = args[:2]
        blocks = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        if blocks and isinstance(target, OnGPU) != isinstance(source, OnGPU):
            _count("copied to the GPU" if isinstance(target, OnGPU) else "copied to the CPU")
    elif func in INDEXING:
        _note_indexing(args)


def _note_indexing(args: tuple) -> None:
    """A mask has to be counted first, and indices on the CPU are copied to the GPU.

    Where a mask is True one number is written without counting.
    """
    is_number = len(args) > 2 and args[2].dim() == 0
    for index in args[1]:
        if index is None:
            continue
        if not isinstance(index, OnGPU):
            _count("index on the CPU")
        elif index.dtype in (torch.bool, torch.uint8) and not is_number:
            _count("mask as index")


@contextmanager
def pretended_gpu() -> Iterator[None]:
    """A process that has a GPU, as far as the computing of a model goes."""
    with (
        _device_guards(),
        patch.object(torch.cuda, "_lazy_init"),
        patch.object(torch.cuda, "is_bf16_supported", return_value=True),
        patch.object(torch.cuda, "synchronize"),
        patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False),
        torch.autograd.set_multithreading_enabled(False),  # there is no thread of this GPU
        _settings(),
        _Mode(),
    ):
        yield


@contextmanager
def _settings() -> Iterator[None]:
    """Modules keep their parameters when moved; torch.tensor(device=) copies as .to does."""
    future = torch.__future__
    swaps = future.get_swap_module_params_on_conversion()
    only_cpu = torch._C._only_lift_cpu_tensors()
    future.set_swap_module_params_on_conversion(True)  # so that tied ones stay tied
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        yield
    finally:
        future.set_swap_module_params_on_conversion(swaps)
        torch._C._set_only_lift_cpu_tensors(only_cpu)


@contextmanager
def _device_guards() -> Iterator[None]:
    """Lets the guard of the CPU, which does nothing, guard the GPU too: such a build has none."""
    file = next((Path(torch.__file__).parent / "lib").glob("libc10.*"))
    library = ctypes.CDLL(str(file))
    guards = (ctypes.c_void_p * DEVICE_TYPES).in_dll(library, GUARDS)
    before = list(guards)
    for kind in (CUDA, XLA):
        guards[kind] = before[kind] or before[CPU]
    try:
        yield
    finally:
        guards[:] = before
