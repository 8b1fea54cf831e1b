"""The audio and the video encoder learn to name the phoneme of every frame.

The video encoder learns in two stages. Its front end first learns from single frames where the lips
are and what they say. Then it is frozen, and the transformer behind it learns from its vectors,
which are computed only once.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel, WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from omni_avsr.model import AVHubertConfig, AVHubertEncoder, Features
from omni_avsr.model.compress import length_mask
from omni_avsr.model.config import IGNORED
from omni_avsr.model.towers import build
from omni_avsr.model.whisper import encode_audio
from omni_avsr.tasks import AUDIO_FPS, SAMPLES_PER_AUDIO_FRAME
from omni_avsr.toy import PHONEMES
from omni_avsr.toy.looks import PARAMETERS
from tools.augment import ZERO_DB, Noise
from tools.corpus import FRAME_FACTORS, ClipBatch, Clips, Corpus, Frames
from tools.encoded import EncodedClips
from tools.loop import Plan, Result, autocast, train
from tools.terminal import console

FOLDERS = {"audio": "tiny-audio", "video": "tiny-video"}
WIDTH, LAYERS, HEADS, FEED_FORWARD = 160, 4, 5, 640  # of both transformers
DROPOUT = 0.1
LONGEST = 16 * AUDIO_FPS  # frames of the audio encoder
LABEL_SMOOTHING = 0.1
LIPS_SCALE = 4.0  # so that an error of the lip parameters weighs like one of the phoneme
MEASURE_BATCH = 128  # clips

FeaturesOf = Callable[[ClipBatch], Tensor]  # (B, T, D)


def new_audio_encoder() -> WhisperEncoder:
    config = WhisperConfig(
        num_mel_bins=80,
        max_source_positions=LONGEST,
        d_model=WIDTH,
        encoder_layers=LAYERS,
        encoder_attention_heads=HEADS,
        encoder_ffn_dim=FEED_FORWARD,
        dropout=DROPOUT,
        # Only the encoder is built, but the config must describe a decoder, too.
        decoder_layers=1,
        decoder_attention_heads=HEADS,
        decoder_ffn_dim=FEED_FORWARD,
        vocab_size=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    encoder = WhisperEncoder(config)
    encoder.set_attn_implementation("eager")  # with dropout, the fastest on CPUs
    return encoder


def new_video_encoder() -> AVHubertEncoder:
    config = AVHubertConfig(
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=FEED_FORWARD,
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
    encoder = AVHubertEncoder(config)
    encoder.set_attn_implementation("eager")
    return encoder


def features(encoder: PreTrainedModel, batch: ClipBatch) -> Tensor:
    """Returns the features (B, T, D) that OmniAVSR.encode gives for the batch."""
    media = batch.media
    if isinstance(encoder, WhisperEncoder):
        assert media.audio is not None
        assert media.audio_lengths is not None
        frames = media.audio_lengths // SAMPLES_PER_AUDIO_FRAME
        return encode_audio(encoder, media.audio, frames, padded=False)
    assert media.video is not None
    assert media.video_lengths is not None
    padding = ~length_mask(media.video_lengths, media.video.shape[1])
    return encoder(media.video, padding)


def pretrain_audio(corpus: Corpus, held_out: Mapping[str, Corpus], plan: Plan, out: Path) -> Result:
    """Trains the audio encoder, writes its folder, and returns its accuracies."""
    torch.manual_seed(plan.seed)
    encoder = new_audio_encoder()
    head = nn.Linear(WIDTH, len(PHONEMES))
    result = _train(plan, encoder, head, corpus, lambda batch: features(encoder, batch))
    for name, clips in held_out.items():
        result[name] = frame_accuracy(encoder, head, clips, None)
        result[f"{name}_0dB"] = frame_accuracy(encoder, head, clips, ZERO_DB)
    _save(encoder, result, out / FOLDERS["audio"])
    return result


def pretrain_front_end(frames: Frames, plan: Plan) -> Result:
    """Trains the front end of the video encoder; the plan's checkpoint has its weights."""
    torch.manual_seed(plan.seed)
    front_end = new_video_encoder().frontend
    size = front_end_width()
    heads = {"lips": nn.Linear(size, PARAMETERS), "phoneme": nn.Linear(size, len(PHONEMES))}
    modules = nn.ModuleDict({"front_end": front_end, **heads}).to(frames.device)

    def loss_of(batch: ClipBatch, step: int) -> dict[str, Tensor]:
        assert batch.media.video is not None
        windows = batch.media.video.permute(0, 2, 3, 1)  # (N, 5, 88, 88) -> (N, 88, 88, 5)
        vectors = front_end.images(windows)
        lips = F.smooth_l1_loss(heads["lips"](vectors).float(), frames.lips[batch.clips], beta=0.1)
        classes = frames.classes[batch.clips]
        logits = heads["phoneme"](vectors).float()
        phoneme = F.cross_entropy(logits, classes, label_smoothing=LABEL_SMOOTHING)
        accuracy = (logits.argmax(1) == classes).float().mean()
        loss = LIPS_SCALE * lips + phoneme
        return {"loss": loss, "lips": lips.detach(), "accuracy": accuracy}

    return train(plan, modules, loss_of, frames, Noise())


def front_end_width() -> int:
    """Returns the size of the front end's vectors."""
    return new_video_encoder().config.resnet_widths[-1]


def video_encoder_behind(checkpoint: Path) -> AVHubertEncoder:
    """Returns a new video encoder with the trained front end of a checkpoint, frozen."""
    encoder = new_video_encoder()
    prefix = "front_end."
    weights = torch.load(checkpoint, map_location="cpu", weights_only=True)["modules"]
    own = {name[len(prefix) :]: w for name, w in weights.items() if name.startswith(prefix)}
    encoder.frontend.load_state_dict(own)
    encoder.frontend.requires_grad_(False).eval()
    return encoder


def front_end_vectors(encoder: AVHubertEncoder, batch: ClipBatch) -> Features:
    """Returns what the front end sees of a batch."""
    video, lengths = batch.media.video, batch.media.video_lengths
    assert video is not None
    assert lengths is not None
    with autocast(video.device):
        vectors = encoder.vectors(video, length_mask(lengths, video.shape[1]))
    return Features(video=vectors, video_lengths=lengths)


def made(out: Path, device: torch.device) -> dict[str, PreTrainedModel]:
    """Returns the encoders of a folder, frozen."""
    return {
        modality: build(modality, out / folder, torch.float32).to(device)  # type: ignore[arg-type]
        for modality, folder in FOLDERS.items()
    }


def encoded(encoders: Mapping[str, PreTrainedModel], batch: ClipBatch) -> Features:
    """Returns what the encoders make of a batch."""
    fields: dict[str, Tensor] = {}
    frames = torch.tensor(batch.lengths)
    for modality, encoder in encoders.items():
        with autocast(encoder.device):
            fields[modality] = features(encoder, batch)
        fields[f"{modality}_lengths"] = FRAME_FACTORS[modality] * frames
    return Features(**fields)


def pretrain_video(
    encoder: AVHubertEncoder,
    vectors: EncodedClips,
    held_out: Mapping[str, Corpus],
    plan: Plan,
    out: Path,
) -> Result:
    """Trains the transformer on the front end's vectors and writes the video encoder."""
    torch.manual_seed(plan.seed)
    head = nn.Linear(WIDTH, len(PHONEMES))

    def in_context(batch: ClipBatch) -> Tensor:
        assert batch.features is not None
        values, lengths = batch.features.of("video")
        return encoder.in_context(values, ~length_mask(lengths, values.shape[1]))

    learned = nn.ModuleDict(
        {name: part for name, part in encoder.named_children() if name != "frontend"}
    )
    result = _train(plan, learned, head, vectors, in_context)
    encoder.to(vectors.device)  # type: ignore[arg-type]
    for name, clips in held_out.items():
        result[name] = frame_accuracy(encoder, head, clips, None)
    _save(encoder, result, out / FOLDERS["video"])
    return result


def _train(
    plan: Plan, encoder: nn.Module, head: nn.Module, clips: Clips, encode: FeaturesOf
) -> Result:
    """Trains an encoder and its head to name the phoneme of each frame."""
    modules = nn.ModuleDict({"encoder": encoder, "head": head}).to(clips.device)
    modality = plan.name

    def loss_of(batch: ClipBatch, step: int) -> dict[str, Tensor]:
        targets = clips.targets(batch, modality).flatten()
        logits = head(encode(batch)).flatten(0, 1).float()
        loss = F.cross_entropy(logits, targets, label_smoothing=LABEL_SMOOTHING)
        right = (logits.argmax(1) == targets).sum()
        return {"loss": loss, "accuracy": right / (targets != IGNORED).sum()}

    return train(plan, modules, loss_of, clips, Noise())


@torch.no_grad()
def frame_accuracy(
    encoder: PreTrainedModel, head: nn.Module, corpus: Corpus, noise: Noise | None
) -> float:
    """Returns the share of frames whose phoneme is named."""
    modality = "audio" if isinstance(encoder, WhisperEncoder) else "video"
    encoder.eval()
    corpus = corpus.only(modality)
    right = total = 0
    for number, clips in enumerate(corpus.batches(MEASURE_BATCH, None)):
        batch = corpus.batch(clips, number, noise)
        with autocast(corpus.device):
            guesses = head(features(encoder, batch)).argmax(-1)
        targets = corpus.targets(batch, modality)
        right += int((guesses == targets).sum())
        total += int((targets != IGNORED).sum())
    return round(right / total, 4)


def _save(encoder: PreTrainedModel, result: Result, folder: Path) -> None:
    """Writes an encoder in half precision, and adds how large it is to the result."""
    result["parameters"] = sum(weight.numel() for weight in encoder.parameters())
    encoder.eval().half().save_pretrained(folder)
    console.print(f"{folder.name}: {result}")
