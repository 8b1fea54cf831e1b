"""An LLM that is too large for one device: its frozen layers are sharded over a run's processes.

What is trained is small: it stays whole in every process, DDP averages its gradients, and
checkpoints are the same as without sharding. All processes gather a layer together, so all of them
have to run it equally often.
"""

import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from omni_avsr.model import OmniAVSR
from omni_avsr.model.adapters import plain


def shard_llm(module: nn.Module, model: OmniAVSR, device: str) -> None:
    """Leaves this process its shard of each layer of the model's LLM.

    DDP of the module, which holds the model, ignores the shards.
    """
    decoder = plain(model.llm).get_decoder()
    mesh = init_device_mesh(device, (dist.get_world_size(),))
    frozen = {weight for weight in decoder.layers.parameters() if not weight.requires_grad}
    ignored = set(decoder.parameters()) - frozen
    for layer in decoder.layers:
        fully_shard(layer, mesh=mesh, ignored_params=ignored)
    # The decoder too, so that a layer is gathered while the one before it runs
    fully_shard(decoder, mesh=mesh, ignored_params=ignored)
    shards = [name for name, weight in module.named_parameters() if isinstance(weight, DTensor)]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, shards)
    model.rows_together = True
