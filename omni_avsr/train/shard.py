"""An LLM that is too large for one device: its frozen layers are sharded over a run's processes.

What is trained is small: it stays whole in every process, DDP averages its gradients, and
checkpoints are the same as without sharding. All processes gather a layer together, so all of them
have to run it equally often.

No process holds a whole LLM. The weights of an LLM that was built in the type of its file are parts
of the file that nobody has read yet (safetensors), and a process reads its own rows of each.
"""

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from omni_avsr.model import OmniAVSR
from omni_avsr.model.adapters import plain


def shard_llm(module: nn.Module, model: OmniAVSR, device: torch.device, dtype: torch.dtype) -> None:
    """Leaves this process its shard of each layer of the model's LLM, which gets this dtype.

    DDP of the module, which holds the model, ignores the shards.
    """
    llm = plain(model.llm)
    decoder = llm.get_decoder()
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    unread = _emptied(decoder.layers, dtype)
    ignored = {weight for weight in decoder.parameters() if not weight.is_meta}
    for layer in decoder.layers:
        fully_shard(layer, mesh=mesh, ignored_params=ignored)
    # The decoder too, so that a layer is gathered while the one before it runs
    fully_shard(decoder, mesh=mesh, ignored_params=ignored)
    _read_shards(decoder.layers, unread, device)
    for weight in llm.parameters():
        if not weight.requires_grad:
            weight.data = weight.data.to(dtype)
    shards = [name for name, weight in module.named_parameters() if isinstance(weight, DTensor)]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, shards)
    model.rows_together = True


def _emptied(layers: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """Takes the frozen weights out of the layers, and returns them by their names."""
    taken: dict[str, Tensor] = {}
    for name, weight in list(_frozen(layers)):
        taken[name] = weight.data
        path, _, own_name = name.rpartition(".")
        empty = torch.empty_like(weight, dtype=dtype, device="meta")
        setattr(layers.get_submodule(path), own_name, nn.Parameter(empty, requires_grad=False))
    return taken


def _frozen(layers: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    for name, weight in layers.named_parameters():
        if not weight.requires_grad:
            yield name, weight


@torch.no_grad()
def _read_shards(layers: nn.Module, unread: dict[str, Tensor], device: torch.device) -> None:
    """Fills the shards of this process with its rows of the weights."""

    def allocated(tensor: Tensor) -> Tensor:
        return torch.empty_like(tensor, device=device) if tensor.is_meta else tensor

    layers._apply(allocated)
    for name, shard in _frozen(layers):
        assert isinstance(shard, DTensor)
        rows_of_process = -(-len(shard) // dist.get_world_size())  # the last have fewer, or none
        own = shard.to_local()
        first = dist.get_rank() * rows_of_process
        own.copy_(unread.pop(name)[first : first + len(own)])
