"""Tensors without values: what a computation allocates and computes, known without doing it.

Within `Phantoms` every floating-point tensor has a shape and a type but no memory, so that a
training step of a model of any size runs on any machine, through the very code that trains. Tensors
of integers and booleans, which decide where the code goes, are real; if they are computed from a
phantom, all their values are 1.

Counted are the bytes of all tensors that are alive at a time, as torch's allocators count them, and
FLOPs as torch's FlopCounterMode does.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten
CPU = torch.device("cpu")
# Whose indices may be masks, and thereby the shape of the result
INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)


@dataclass
class Spent:
    """What was spent while something ran."""

    before: int = 0  # bytes that were alive at its start
    after: int = 0  # and at its end
    peak: int = 0  # the most at a time
    flops: int = 0


class Phantoms(TorchDispatchMode):
    """Runs everything inside on phantoms, and counts bytes and FLOPs."""

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.storages: dict[int, weakref.ref] = {}
        self.alive = 0  # bytes
        self.peak = 0
        self.flops = 0

    def restart(self) -> None:
        """Forgets the peak and the FLOPs so far of what is measured."""
        self.peak = self.alive
        self.flops = 0

    @contextmanager
    def measured(self) -> Iterator[Spent]:
        """Measures what is done inside."""
        spent = Spent(before=self.alive)
        outer_peak, self.peak = self.peak, self.alive
        outer_flops, self.flops = self.flops, 0
        yield spent
        spent.after = self.alive
        spent.peak = self.peak
        spent.flops = self.flops
        self.peak = max(outer_peak, self.peak)
        self.flops += outer_flops

    def adopt(self, model: nn.Module) -> None:
        """Turns the weights of a model that was built on the meta device into phantoms."""
        made: dict[int, Tensor] = {}  # by the weight's id, as some weights are shared
        for module in model.modules():
            for name, weight in module._parameters.items():
                if weight is not None and id(weight) not in made:
                    made[id(weight)] = nn.Parameter(self._phantom(weight), weight.requires_grad)
                if weight is not None:
                    module._parameters[name] = made[id(weight)]  # type: ignore[assignment]
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = self._phantom(buffer)
            self._adopt_attributes(module)

    def _adopt_attributes(self, module: nn.Module) -> None:
        # Such as the second rotary table, which is no buffer
        for name, value in list(vars(module).items()):
            if isinstance(value, Tensor):
                setattr(module, name, self._phantom(value))

    def _phantom(self, tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            tensor = FakeTensor(self.fake, tensor.detach(), CPU)
        else:
            tensor = torch.zeros(tensor.shape, dtype=tensor.dtype, device=CPU)
        self._count(tensor)
        return tensor

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        # Phantoms are asked for their device more often than for all else
        if func is torch.ops.prim.device.default:
            return CPU
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if any(isinstance(tensor, FakeTensor) for tensor in tensors):
            out = self._on_phantoms(func, args, kwargs, tensors)
        else:
            out = self._on_real(func, args, kwargs, makes=not tensors)
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return out

    def _on_real(self, func: Any, args: tuple, kwargs: dict, makes: bool) -> Any:
        """The result for real arguments; a new floating-point tensor is a phantom."""
        if makes:
            with self.fake:
                out = func(*args, **kwargs)
            if isinstance(out, Tensor) and out.is_floating_point():
                return out
        return func(*args, **kwargs)

    def _on_phantoms(self, func: Any, args: tuple, kwargs: dict, tensors: list[Tensor]) -> Any:
        if func is aten._local_scalar_dense.default:
            return 1.0
        if func in INDEXED:
            args = (args[0], _without_masks(args[1]), *args[2:])
        with self.fake:
            out = func(*args, **kwargs)
        self._count_flops(func, args, kwargs, out)
        if isinstance(out, Tensor) and out.is_floating_point():  # as nearly always
            return out
        given = set(map(id, tensors))
        return tree_map(lambda leaf: _decided(leaf, given), out)

    def _count_flops(self, func: Any, args: tuple, kwargs: dict, out: Any) -> None:
        formula = FLOPS.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=out)

    def _count(self, tensor: Tensor) -> None:
        """Counts the bytes of a tensor that is new, until it is gone."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.storages:
            return
        size = storage.nbytes()

        def gone(_: object) -> None:
            del self.storages[key]
            self.alive -= size

        self.storages[key] = weakref.ref(storage, gone)
        self.alive += size
        self.peak = max(self.peak, self.alive)


def _without_masks(indices: list[Tensor | None]) -> list[Tensor | None]:
    """The indices with the places of each mask instead of the mask, as it has no shape yet."""
    found: list[Tensor | None] = []
    for index in indices:
        if index is not None and index.dtype is torch.bool:
            found += index.nonzero(as_tuple=True)
        else:
            found.append(index)
    return found


def _decided(leaf: Any, given: set[int]) -> Any:
    """A result as it is; one of integers or booleans is real, and all ones."""
    if not isinstance(leaf, FakeTensor) or id(leaf) in given:
        return leaf
    if leaf.is_floating_point() or leaf.is_complex():
        return leaf
    return torch.ones(leaf.shape, dtype=leaf.dtype)


def _attention_flops(query: Tensor, key: Tensor, *_: Any, **__: Any) -> int:
    batch, heads, queries, width = query.shape
    return 2 * 2 * batch * heads * queries * key.shape[2] * width


def _attention_backward_flops(_: Tensor, query: Tensor, key: Tensor, *__: Any, **___: Any) -> int:
    return _attention_flops(query, key) * 5 // 2  # five products instead of two


FLOPS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}
