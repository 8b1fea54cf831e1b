"""AV-HuBERT's video path: a 3-D convolution, a ResNet-18 with PReLU, and Hugging Face's HuBERT transformer layers."""

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.models.hubert.modeling_hubert import HubertEncoder, HubertEncoderStableLayerNorm

from omni_avsr.model.config import AVHubertConfig
from omni_avsr.tasks import CROP_SIZE


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

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(out)) + self.downsample(x))


class FrontEnd(nn.Module):
    """Frames to vectors; only the 3-D convolution looks beyond its own frame, two to each side."""

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

    def forward(self, video: Tensor) -> Tensor:
        x = self.relu3d(self.bn3d(self.conv3d(video[:, None])))  # (B, T, H, W) -> (B, C, T, H / stride, W / stride)
        x = self.pool(x.transpose(1, 2).flatten(0, 1))  # (B * T, C, H / stride / 2, ...)
        return self.trunk(x).mean((2, 3)).unflatten(0, video.shape[:2])  # (B, T, C)


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
        seen = self.video_proj(self.frontend(video.to(self.dtype)))  # (B, T, 88, 88) -> (B, T, D)
        fused = self.fused_proj(self.layer_norm(torch.cat([torch.zeros_like(seen), seen], -1)))
        return self.encoder(fused, attention_mask=valid).last_hidden_state  # (B, T, D)


AutoModel.register(AVHubertConfig, AVHubertEncoder)
