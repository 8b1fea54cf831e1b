"""AV-HuBERT's video path: a 3-D convolution, a ResNet-18 with PReLU, and HuBERT's transformer.

The transformer layers are Hugging Face's. Only true frames are computed, in chunks that fit the
cache of a CPU, and a frozen convolution is folded with its BatchNorm.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights
from transformers import AutoModel, PreTrainedModel
from transformers.models.hubert.modeling_hubert import HubertEncoder, HubertEncoderStableLayerNorm

from omni_avsr.errors import InputError
from omni_avsr.model.compress import sent
from omni_avsr.model.config import AVHubertConfig
from omni_avsr.tasks import CROP_SIZE

CPU_CHUNK = 32  # frames whose activations fit a core's cache
CHUNK = 2048  # frames, on other devices
REACH = 2  # frames before and after its own that the first convolution sees

STATISTICS = torch.float32  # type of the BatchNorms in every model
Conv = nn.Conv2d | nn.Conv3d
Norm = nn.BatchNorm2d | nn.BatchNorm3d


def normed_convolution(x: Tensor, conv: Conv, norm: Norm) -> Tensor:
    """norm(conv(x)) of images (N, C, H, W); a 3-D convolution takes its frames as channels."""
    weight = conv.weight.flatten(1, -3)  # (out, in, height, width)
    stride = conv.stride[-2:]
    padding = conv.padding[-2:]
    if not norm.training and not weight.requires_grad:
        weight, bias = fold(weight, norm)
        return F.conv2d(x, weight, bias, stride, padding)
    return F.batch_norm(
        F.conv2d(x, weight, None, stride, padding),
        norm.running_mean,
        norm.running_var,
        norm.weight,
        norm.bias,
        norm.training,
        norm.momentum or 0.0,
        norm.eps,
    )


def fold(weight: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """The weight and bias of a convolution that is followed by a BatchNorm in eval mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    folded, bias = fuse_conv_bn_weights(
        weight.float(),
        None,
        norm.running_mean.float(),
        norm.running_var.float(),
        norm.eps,
        norm.weight.float(),
        norm.bias.float(),
    )
    return folded.to(weight.dtype, memory_format=torch.channels_last), bias.to(weight.dtype)


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    def __init__(self, inner: int, outer: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer, dtype=STATISTICS)
        self.relu1 = nn.PReLU(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer, dtype=STATISTICS)
        self.relu2 = nn.PReLU(outer)
        self.downsample: Any = nn.ModuleList()
        if stride != 1 or inner != outer:
            self.downsample.append(nn.Conv2d(inner, outer, 1, stride, bias=False))
            self.downsample.append(nn.BatchNorm2d(outer, dtype=STATISTICS))

    def shortcut(self, x: Tensor) -> Tensor:
        return normed_convolution(x, *self.downsample) if self.downsample else x

    def forward(
        self, x: Tensor
    ) -> Tensor:  # (N, inner, H, W) -> (N, outer, H / stride, W / stride)
        hidden = self.relu1(normed_convolution(x, self.conv1, self.bn1))
        hidden = normed_convolution(hidden, self.conv2, self.bn2)
        return self.relu2(hidden + self.shortcut(x))


class FrontEnd(nn.Module):
    """Frames to vectors. Only the first convolution looks beyond its own frame."""

    chunk: int | None = None  # frames that are computed at a time; by default as suits the device

    def __init__(self, widths: list[int] | tuple[int, ...], stride: int):
        super().__init__()
        first = widths[0]
        kernel = (2 * REACH + 1, 7, 7)
        self.conv3d = nn.Conv3d(1, first, kernel, (1, stride, stride), (REACH, 3, 3), bias=False)
        self.bn3d = nn.BatchNorm3d(first, dtype=STATISTICS)
        self.relu3d = nn.PReLU(first)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.trunk = nn.Sequential()
        inner = first
        for stage, outer in enumerate(widths):
            stage_stride = 1 if stage == 0 else 2
            self.trunk.append(
                nn.Sequential(Block(inner, outer, stage_stride), Block(outer, outer, 1))
            )
            inner = outer

    def images(self, windows: Tensor) -> Tensor:
        """Vectors (n, C) of windows of frames (n, H, W, 5)."""
        x = windows.permute(0, 3, 1, 2)  # (n, 5, H, W)
        x = self.relu3d(normed_convolution(x, self.conv3d, self.bn3d))
        x = self.trunk(self.pool(x))  # (n, C, H / 32, W / 32)
        return x.mean((2, 3))

    def forward(self, video: Tensor, valid: Tensor) -> Tensor:
        """Vectors (B, T, C) of the frames (B, T, H, W) that are valid (B, T); zeros elsewhere."""
        padded = F.pad(video, (0, 0, 0, 0, REACH, REACH))
        windows = padded.unfold(1, 2 * REACH + 1, 1)  # (B, T, H, W, 5), a view
        places = valid.nonzero(as_tuple=True)
        rows, frames = [sent(index, video.device) for index in places]  # (N,) each
        chunk = self.chunk or (CPU_CHUNK if video.device.type == "cpu" else CHUNK)
        if self.training:
            chunk = len(rows)  # BatchNorm needs all frames at once
        vectors = []
        for row, frame in zip(rows.split(chunk), frames.split(chunk), strict=True):
            vectors.append(self.images(windows[row, frame]))
        seen = torch.cat(vectors)  # (N, C)
        empty = seen.new_zeros(*valid.shape, seen.shape[1])
        return empty.index_put((rows, frames), seen)


class AVHubertEncoder(PreTrainedModel):
    """Grey mouth frames to one feature vector per frame. AV-HuBERT's audio input stays zero."""

    config_class = AVHubertConfig
    base_model_prefix = "avhubert"
    main_input_name = "video"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    config: AVHubertConfig

    def __init__(self, config: AVHubertConfig):
        super().__init__(config)
        width = config.hidden_size
        transformer = HubertEncoderStableLayerNorm if config.do_stable_layer_norm else HubertEncoder
        self.frontend = FrontEnd(config.resnet_widths, config.frontend_stride)
        self.video_proj = nn.Linear(config.resnet_widths[-1], width)
        self.layer_norm = nn.LayerNorm(2 * width, eps=config.layer_norm_eps)  # of audio and video
        self.fused_proj = nn.Linear(2 * width, width)
        self.encoder = transformer(config)
        self.post_init()

    def forward(self, video: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Features (B, T, D) of normalised video (B, T, 88, 88).

        padding_mask (B, T) is True at frames that are padding. On the CPU, no GPU is waited for.
        """
        valid = torch.ones(video.shape[:2], dtype=torch.bool)
        if padding_mask is not None:
            valid = ~padding_mask
        return self.in_context(self.vectors(video, valid), padding_mask)

    def vectors(self, video: Tensor, valid: Tensor) -> Tensor:
        """The front end's vectors (B, T, C) of video; valid (B, T) marks the true frames."""
        if video.shape[2:] != (CROP_SIZE, CROP_SIZE):
            size = tuple(video.shape[2:])
            raise InputError(f"video frames are {size} pixels, {CROP_SIZE} x {CROP_SIZE} expected")
        if self.config.blank_padding:
            video = video * sent(valid, video.device)[..., None, None]
        return self.frontend(video.to(self.dtype), valid)

    def in_context(self, vectors: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Features (B, T, D) of the front end's vectors (B, T, C)."""
        seen = self.video_proj(vectors)  # (B, T, D)
        heard = torch.zeros_like(seen)
        fused = self.fused_proj(self.layer_norm(torch.cat([heard, seen], -1)))
        valid = None if padding_mask is None else sent(~padding_mask, vectors.device)
        return self.encoder(fused, attention_mask=valid).last_hidden_state


AutoModel.register(AVHubertConfig, AVHubertEncoder)
