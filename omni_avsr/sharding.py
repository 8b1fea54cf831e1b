"""A language model that is too large for each device: its frozen layers are shared out over the processes of a run.

What is trained is small: it stays whole in every process, with gradients averaged by DDP, and checkpoints are as ever.
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
    """Leaves this process its part of each layer, which is gathered while it runs; DDP of the module passes them by."""
    decoder = plain(model.llm).get_decoder()
    frozen = {weight for weight in decoder.layers.parameters() if not weight.requires_grad}
    options: dict[str, Any] = {"mesh": init_device_mesh(device, (dist.get_world_size(),))}
    options["ignored_params"] = set(decoder.parameters()) - frozen
    layers = [fully_shard(layer, **options) for layer in decoder.layers]
    fully_shard(decoder, **options)
    for layer, before in zip(
        layers, [layers[0], *layers], strict=False
    ):  # by default, as the last forwards went, which
        layer.set_modules_to_backward_prefetch([before])  # is not the same in all processes after a validation
    parts = [name for name, weight in module.named_parameters() if isinstance(weight, DTensor)]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, parts)
    model.rows_together = True


def gather(model: OmniAVSR) -> None:
    """Whole layers in every process, for decoding: each takes as many steps as its clips are long."""
    for layer in plain(model.llm).get_decoder().layers:
        layer.set_reshard_after_forward(False)
        layer.unshard()


def release(model: OmniAVSR) -> None:
    """The end of `gather`."""
    for layer in plain(model.llm).get_decoder().layers:
        layer.set_reshard_after_forward(True)
        layer.reshard()
