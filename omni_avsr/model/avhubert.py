"""AV-HuBERT's video path: a 3-D convolution, a ResNet-18 with PReLU, and Hugging Face's HuBERT transformer layers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights
from transformers import AutoModel, PreTrainedModel
from transformers.models.hubert.modeling_hubert import HubertEncoder, HubertEncoderStableLayerNorm

from omni_avsr.model.config import AVHubertConfig
from omni_avsr.model.winograd import Winograd
from omni_avsr.tasks import CROP_SIZE

CHUNK = {"cpu": 32}  # frames that fit a core's cache; other devices take more
LARGE_CHUNK = 2048
MANY = 200  # frames
Layer = Callable[[Tensor], Tensor]


def convolution(conv: nn.Conv2d | nn.Conv3d, norm: nn.BatchNorm2d | nn.BatchNorm3d, many: bool = False) -> Layer:
    """A convolution and its BatchNorm, folded into one if both are frozen. A Conv3d takes its frames as channels.

    With many images it is worth preparing a faster one where there is one.
    """
    weight = conv.weight.flatten(1, -3)  # (out, in, height, width)
    stride, padding = conv.stride[-2:], tuple(int(p) for p in conv.padding[-2:])
    if norm.training or weight.requires_grad:
        known = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        options = (norm.training, norm.momentum or 0.0, norm.eps)
        return lambda x: F.batch_norm(F.conv2d(x, weight, None, stride, padding), *known, *options)
    folded, bias = _fold(weight, norm)
    plain = weight.device.type == "cpu" and weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if many and plain and weight.shape[1] >= 128 and conv.kernel_size == (3, 3) and stride == (1, 1):
        return Winograd(folded, bias)
    return lambda x: F.conv2d(x, folded, bias, stride, padding)


def _fold(weight: Tensor, norm: Any) -> tuple[Tensor, Tensor]:
    statistics = (norm.running_mean.float(), norm.running_var.float(), norm.eps, norm.weight.float(), norm.bias.float())
    folded, bias = fuse_conv_bn_weights(weight.float(), None, *statistics)
    return folded.to(weight.dtype, memory_format=torch.channels_last), bias.to(weight.dtype)


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    def __init__(self, inner: int, outer: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.relu1 = nn.PReLU(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.relu2 = nn.PReLU(outer)
        same = stride == 1 and inner == outer
        shortcut = () if same else (nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))
        self.downsample = nn.Sequential(*shortcut)

    def ready(self, many: bool) -> Layer:
        """What it computes, with its weights as they are now."""
        first, second = convolution(self.conv1, self.bn1, many), convolution(self.conv2, self.bn2, many)
        beside = convolution(*self.downsample) if len(self.downsample) else nn.Identity()
        return lambda x: self.relu2(second(self.relu1(first(x))).add_(beside(x)))


class FrontEnd(nn.Module):
    """Frames to vectors; only the first convolution looks beyond its own frame, two to each side."""

    def __init__(self, widths: list[int] | tuple[int, ...], stride: int):
        super().__init__()
        first = widths[0]
        self.conv3d = nn.Conv3d(1, first, (5, 7, 7), (1, stride, stride), (2, 3, 3), bias=False)
        self.bn3d = nn.BatchNorm3d(first)
        self.relu3d = nn.PReLU(first)
        self.pool = nn.MaxPool2d(3, 2, 1)
        pairs = zip((first, *widths[:-1]), widths, strict=True)
        self.trunk = nn.Sequential(
            *(nn.Sequential(Block(a, b, 1 if i == 0 else 2), Block(b, b, 1)) for i, (a, b) in enumerate(pairs))
        )

    def forward(self, video: Tensor, valid: Tensor) -> Tensor:
        """Vectors (B, T, C) of the frames (B, T, H, W) that are valid (B, T), and zeros elsewhere."""
        places, parts = valid.nonzero(), self.trunk.modules()
        stem = convolution(self.conv3d, self.bn3d)
        blocks = [part.ready(len(places) >= MANY) for part in parts if isinstance(part, Block)]
        windows = F.pad(video, (0, 0, 0, 0, 2, 2)).unfold(1, 5, 1)  # (B, T, H, W, 5), a view
        size = len(places) if self.training else CHUNK.get(video.device.type, LARGE_CHUNK)
        vectors = []
        for chunk in places.split(size):
            x = self.pool(
                self.relu3d(stem(windows[chunk[:, 0], chunk[:, 1]].permute(0, 3, 1, 2)))
            )  # (n, C, H / 4, ...)
            for block in blocks:
                x = block(x)
            vectors.append(x.mean((2, 3)))
        seen = torch.cat(vectors)  # (N, C)
        return seen.new_zeros(*valid.shape, seen.shape[1]).index_put(places.unbind(1), seen)


class AVHubertEncoder(PreTrainedModel):
    """Grey mouth frames in, one feature vector a frame out. The audio half of AV-HuBERT's input stays zero."""

    config_class = AVHubertConfig
    base_model_prefix = "avhubert"
    main_input_name = "video"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: AVHubertConfig):
        super().__init__(config)
        self.frontend = FrontEnd(config.resnet_widths, config.frontend_stride)
        self.video_proj = nn.Linear(config.resnet_widths[-1], config.hidden_size)
        self.layer_norm = nn.LayerNorm(2 * config.hidden_size, eps=config.layer_norm_eps)  # over audio and video
        self.fused_proj = nn.Linear(2 * config.hidden_size, config.hidden_size)
        self.encoder = (HubertEncoderStableLayerNorm if config.do_stable_layer_norm else HubertEncoder)(config)
        self.post_init()

    def forward(self, video: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Features (B, T, D) of normalised video (B, T, 88, 88); padding_mask is True at frames that are no frames."""
        if video.shape[2:] != (CROP_SIZE, CROP_SIZE):
            raise ValueError(f"video frames are {tuple(video.shape[2:])} pixels, {CROP_SIZE} x {CROP_SIZE} expected")
        valid = None if padding_mask is None else ~padding_mask
        if valid is not None and self.config.blank_padding:
            video = video * valid[..., None, None]
        real = video.new_ones(video.shape[:2], dtype=torch.bool) if valid is None else valid
        seen = self.video_proj(self.frontend(video.to(self.dtype), real))  # (B, T, 88, 88) -> (B, T, D)
        fused = self.fused_proj(self.layer_norm(torch.cat([torch.zeros_like(seen), seen], -1)))
        return self.encoder(fused, attention_mask=valid).last_hidden_state  # (B, T, D)


AutoModel.register(AVHubertConfig, AVHubertEncoder)
