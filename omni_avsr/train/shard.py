"""A language model that is too large for each device: its frozen layers are shared out over the processes of a run.

What is trained is small: it stays whole in every process, with gradients averaged by DDP, and checkpoints are as ever.
A layer is gathered by all processes together, so all of them have to run it equally often.
"""

from typing import Any

import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from omni_avsr.model import OmniAVSR
from omni_avsr.model.adapters import plain


def share_out(module: nn.Module, model: OmniAVSR, device: str) -> None:
    """Leaves this process its part of each layer; DDP of the module passes them by."""
    decoder = plain(model.llm).get_decoder()
    frozen = {weight for weight in decoder.layers.parameters() if not weight.requires_grad}
    options: dict[str, Any] = {"mesh": init_device_mesh(device, (dist.get_world_size(),))}
    options["ignored_params"] = set(decoder.parameters()) - frozen
    for layer in decoder.layers:
        fully_shard(layer, **options)
    fully_shard(decoder, **options)  # so that a layer is gathered while the one before it runs
    parts = [name for name, weight in module.named_parameters() if isinstance(weight, DTensor)]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, parts)
    model.rows_together = True
