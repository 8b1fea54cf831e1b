"""Stage 1: the audio and the video encoder learn to name the phoneme of every frame."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel, WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from omni_avsr.model import AVHubertConfig, AVHubertEncoder
from omni_avsr.model.compress import length_mask
from omni_avsr.model.config import IGNORED
from omni_avsr.model.whisper import encode_audio
from omni_avsr.tasks import AUDIO_FPS, SAMPLES_PER_AUDIO_FRAME
from omni_avsr.toy import PHONEMES
from tools.augment import ZERO_DB, Noise
from tools.corpus import ClipBatch, Corpus
from tools.loop import Plan, Result, autocast, train
from tools.terminal import console

FOLDERS = {"audio": "tiny-audio", "video": "tiny-video"}
DROPOUT = 0.1
LONGEST = 16 * AUDIO_FPS  # frames of the audio encoder
LABEL_SMOOTHING = 0.1
MEASURE_BATCH = 128  # clips


def new_encoder(modality: str) -> PreTrainedModel:
    """Returns a random encoder of about a million parameters."""
    return new_audio_encoder() if modality == "audio" else new_video_encoder()


def new_audio_encoder() -> WhisperEncoder:
    config = WhisperConfig(
        num_mel_bins=80,
        max_source_positions=LONGEST,
        d_model=144,
        encoder_layers=3,
        encoder_attention_heads=4,
        encoder_ffn_dim=576,
        dropout=DROPOUT,
        # Only the encoder is built, but the config must describe a decoder, too.
        decoder_layers=1,
        decoder_attention_heads=4,
        decoder_ffn_dim=576,
        vocab_size=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    return WhisperEncoder(config)


def new_video_encoder() -> AVHubertEncoder:
    config = AVHubertConfig(
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=512,
        num_conv_pos_embeddings=32,
        num_conv_pos_embedding_groups=8,
        resnet_widths=[16, 32, 64, 96],
        frontend_stride=4,
        do_stable_layer_norm=True,
        layerdrop=0.0,
        hidden_dropout=DROPOUT,
        activation_dropout=DROPOUT,
        attention_dropout=DROPOUT,
    )
    return AVHubertEncoder(config)


def features(modality: str, encoder: PreTrainedModel, batch: ClipBatch) -> Tensor:
    """Returns the features (B, T, D) that OmniAVSR.encode gives for the batch."""
    media = batch.media
    if modality == "audio":
        assert isinstance(encoder, WhisperEncoder)
        assert media.audio is not None
        assert media.audio_lengths is not None
        frames = media.audio_lengths // SAMPLES_PER_AUDIO_FRAME
        return encode_audio(encoder, media.audio, frames, padded=False)
    assert media.video is not None
    assert media.video_lengths is not None
    padding = ~length_mask(media.video_lengths, media.video.shape[1])
    return encoder(media.video, padding)


def pretrain(
    modality: str, corpus: Corpus, held_out: Mapping[str, Corpus], plan: Plan, out: Path
) -> Result:
    """Trains one encoder, writes its folder, and returns its accuracies on the held-out clips."""
    torch.manual_seed(plan.seed)
    corpus = corpus.only(modality)
    encoder = new_encoder(modality)
    head = nn.Linear(encoder.config.hidden_size, len(PHONEMES))
    modules = nn.ModuleDict({"encoder": encoder, "head": head}).to(corpus.device)

    def loss_of(batch: ClipBatch, step: int) -> dict[str, Tensor]:
        targets = corpus.targets(batch, modality).flatten()
        logits = head(features(modality, encoder, batch)).flatten(0, 1).float()
        loss = F.cross_entropy(logits, targets, label_smoothing=LABEL_SMOOTHING)
        right = (logits.argmax(1) == targets).sum()
        frames = (targets != IGNORED).sum()
        return {"loss": loss, "accuracy": right / frames}

    result = train(plan, modules, loss_of, corpus, Noise())
    trained = [weight for weight in encoder.parameters() if weight.requires_grad]
    result["parameters"] = sum(weight.numel() for weight in trained)
    for name, clips in held_out.items():
        result[name] = frame_accuracy(modality, encoder, head, clips, None)
    if modality == "audio":
        for name, clips in held_out.items():
            result[f"{name}_0dB"] = frame_accuracy(modality, encoder, head, clips, ZERO_DB)
    encoder.eval().half().save_pretrained(out / FOLDERS[modality])
    console.print(f"{plan.name}: {result}")
    return result


@torch.no_grad()
def frame_accuracy(
    modality: str, encoder: PreTrainedModel, head: nn.Module, corpus: Corpus, noise: Noise | None
) -> float:
    """Returns the share of frames whose phoneme is named."""
    encoder.eval()
    corpus = corpus.only(modality)
    right = total = 0
    for number, clips in enumerate(corpus.batches(MEASURE_BATCH, None)):
        batch = corpus.batch(clips, number, noise)
        with autocast(corpus.device):
            guesses = head(features(modality, encoder, batch)).argmax(-1)
        targets = corpus.targets(batch, modality)
        right += int((guesses == targets).sum())
        total += int((targets != IGNORED).sum())
    return round(right / total, 4)
