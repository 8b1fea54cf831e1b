"""What the encoders and the compressors compute, and that padding does not change it."""

import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import WhisperFeatureExtractor

from omni_avsr import AVHubertEncoder
from omni_avsr.errors import InputError
from omni_avsr.model.compress import Compressor, compress, group_by_length, ungroup
from omni_avsr.model.towers import build
from omni_avsr.model.whisper import encode_audio, log_mel
from omni_avsr.tasks import CROP_SIZE, SAMPLE_RATE, SAMPLES_PER_AUDIO_FRAME
from tests.support.towers import avhubert_config, whisper_config

FRAMES = [23, 10, 2]


@pytest.fixture(scope="module")
def whisper():
    torch.manual_seed(0)
    return build("audio", whisper_config(), torch.float32)


def mouths(*shape: int) -> torch.Tensor:
    """Random normalised mouth videos (*shape, 88, 88)."""
    return torch.randn(*shape, CROP_SIZE, CROP_SIZE)


def front_end(**changes):
    """A frozen front end whose BatchNorms do something."""
    torch.manual_seed(0)
    encoder = AVHubertEncoder(avhubert_config(**changes)).requires_grad_(False).eval()
    for module in encoder.frontend.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
            module.bias.data.normal_()
    return encoder.frontend


def test_a_frozen_front_end_computes_what_one_in_training_does():
    """Folded with its BatchNorms, and in chunks."""
    frozen = front_end()
    video = mouths(2, 40)
    valid = torch.ones(2, 40, dtype=torch.bool)
    valid[1, 25:] = False
    folded = frozen(video, valid)
    assert not folded[1, 25:].any()
    frozen.requires_grad_(True)
    expected = frozen(video, valid)
    torch.testing.assert_close(folded, expected, atol=1e-5, rtol=1e-4)


def test_a_front_end_can_be_trained():
    trained = front_end().requires_grad_(True).train()
    before = trained.bn3d.running_mean.clone()
    trained(mouths(1, 6), torch.ones(1, 6, dtype=torch.bool)).sum().backward()
    assert all(weight.grad is not None for weight in trained.parameters())
    assert not torch.equal(before, trained.bn3d.running_mean)


def test_log_mel_is_whispers():
    wave = torch.randn(1, 20_000)
    extractor = WhisperFeatureExtractor(feature_size=20)
    expected = extractor(wave[0].numpy(), sampling_rate=SAMPLE_RATE, return_tensors="pt")
    found = log_mel(wave, 20, 1500)
    torch.testing.assert_close(found, expected["input_features"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_log_mel_is_computed_in_single_precision_under_autocast(dtype):
    click = torch.zeros(1, 30 * SAMPLE_RATE)
    click[0, 1000] = 1
    wave = F.layer_norm(click, click.shape[1:])
    expected = log_mel(wave, 20, 1500)
    with torch.autocast("cpu", dtype):
        assert torch.equal(log_mel(wave, 20, 1500), expected)


def test_padded_audio_context_is_the_published_encoder(whisper):
    wave = torch.randn(1, 20_000)
    expected = whisper(log_mel(wave, 20, 1500)).last_hidden_state[:, :62]
    assert torch.equal(encode_audio(whisper, wave, torch.tensor([62]), padded=True), expected)


def test_audio_features_do_not_depend_on_the_batch(whisper):
    waves = [torch.randn(n * SAMPLES_PER_AUDIO_FRAME) for n in FRAMES]
    batch = pad_sequence(waves, batch_first=True)
    together = encode_audio(whisper, batch, torch.tensor(FRAMES), padded=False)
    for wave, frames, features in zip(waves, FRAMES, together, strict=True):
        by_itself = encode_audio(whisper, wave[None], torch.tensor([frames]), padded=False)[0]
        torch.testing.assert_close(features[:frames], by_itself, atol=1e-5, rtol=1e-5)


def test_a_clip_with_a_loud_end_has_the_same_features_in_a_batch(whisper):
    wave = 1e-4 * torch.randn(50 * SAMPLES_PER_AUDIO_FRAME)
    wave[-100:] = 1.0
    longer = torch.randn(120 * SAMPLES_PER_AUDIO_FRAME)
    batch = pad_sequence([wave, longer], batch_first=True)
    together = encode_audio(whisper, batch, torch.tensor([50, 120]), padded=False)
    by_itself = encode_audio(whisper, wave[None], torch.tensor([50]), padded=False)
    torch.testing.assert_close(together[0, :50], by_itself[0], atol=1e-5, rtol=1e-5)


def test_audio_longer_than_the_encoder_is_refused(whisper):
    wave = torch.randn(1, 31 * SAMPLE_RATE)
    with pytest.raises(InputError, match=r"audio of 31.0 s is longer than this encoder's 30 s"):
        encode_audio(whisper, wave, torch.tensor([1550]), padded=False)


@pytest.mark.parametrize("norm_first", [True, False])
def test_video_features_do_not_depend_on_what_pads_them(norm_first):
    encoder = AVHubertEncoder(avhubert_config(do_stable_layer_norm=norm_first)).eval()
    longest = max(FRAMES)
    video = mouths(3, longest)  # not zero after a clip's end
    padding = torch.arange(longest) >= torch.tensor(FRAMES)[:, None]
    together = encoder(video, padding)
    for clip, frames, features in zip(video, FRAMES, together, strict=True):
        by_itself = encoder(clip[None, :frames])[0]
        torch.testing.assert_close(features[:frames], by_itself, atol=1e-5, rtol=1e-5)
    without_mask = encoder(video)
    assert not torch.allclose(without_mask[2, :2], together[2, :2], atol=1e-4)


def test_rows_are_grouped_by_similar_length_and_ungrouped_in_their_order():
    lengths = torch.tensor([10, 3, 12, 11, 4])
    groups = group_by_length(lengths, lengths.device)
    assert [(rows.tolist(), longest) for rows, longest in groups] == [
        ([1], 3),
        ([4], 4),
        ([0, 2, 3], 12),
    ]
    features = torch.randn(5, 12, 2)
    parts = [features[rows, :longest] for rows, longest in groups]
    for row, original, length in zip(ungroup(parts, groups), features, lengths, strict=True):
        assert torch.equal(row[:length], original[:length])


def test_average_compression_is_average_pooling():
    features = torch.randn(1, 12, 5)
    pooled = F.avg_pool1d(features.transpose(1, 2), 4).transpose(1, 2)[0]
    tokens = compress(features, torch.tensor([12]), 4, stack=False, keep_tail=False)
    torch.testing.assert_close(tokens, pooled)


def test_stack_compression_puts_frames_side_by_side():
    features = torch.randn(1, 13, 5)
    tokens = compress(features, torch.tensor([13]), 4, stack=True, keep_tail=False)
    assert torch.equal(tokens, features[0, :12].reshape(3, 20))


def test_a_kept_tail_is_the_mean_of_its_true_frames():
    features = torch.randn(2, 9, 5)
    tokens = compress(features, torch.tensor([9, 6]), 4, stack=False, keep_tail=True)
    assert len(tokens) == 3 + 2
    torch.testing.assert_close(tokens[2], features[0, 8])
    torch.testing.assert_close(tokens[4], features[1, 4:6].mean(0))


@pytest.mark.parametrize("keep_tail", [True, False])
@pytest.mark.parametrize("stack", [True, False])
def test_padding_never_becomes_a_token(stack, keep_tail):
    features = torch.randn(2, 9, 5)
    garbage = features.clone()
    garbage[1, 6:] = torch.nan
    lengths = torch.tensor([9, 6])
    expected = compress(features, lengths, 4, stack, keep_tail)
    assert torch.equal(compress(garbage, lengths, 4, stack, keep_tail), expected)


@pytest.mark.parametrize(("one", "names"), [(True, ["all"]), (False, ["4", "16"])])
@pytest.mark.parametrize("norm", [True, False])
def test_there_is_one_projector_per_rate_or_one_for_all(one, names, norm):
    compressor = Compressor((5, 7, 6), [4, 16], one=one, stack=False, norm=norm)
    assert list(compressor.projectors) == names
    assert len(compressor.projectors[names[0]]) == (4 if norm else 3)
    assert compressor(torch.randn(1, 32, 5), torch.tensor([32]), 16, True).shape == (2, 6)
