"""The two encoders and the compressors: what they compute, and that padding is nothing to them."""

import pytest
import torch
from torch.nn import functional as F
from transformers import WhisperFeatureExtractor

from omni_avsr import AVHubertEncoder
from omni_avsr.model import avhubert
from omni_avsr.model.compress import Compressor, compress
from omni_avsr.model.towers import build
from omni_avsr.model.whisper import encode_audio, log_mel
from tests.support.towers import avhubert_config, whisper_config

FRAMES = [23, 10, 2]


def front_end(**changes):
    """A front end whose BatchNorms do something."""
    torch.manual_seed(0)
    encoder = AVHubertEncoder(avhubert_config(**changes)).requires_grad_(False).eval()
    for module in encoder.frontend.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
            module.bias.data.normal_()
    return encoder.frontend


@pytest.mark.parametrize("widths", [[4, 4, 8, 8], [4, 128, 128, 160]])
def test_a_frozen_front_end_computes_what_one_in_training_does(monkeypatch, widths):
    """Folded, in chunks, and with many frames by fewer multiplications."""
    frozen = front_end(resnet_widths=widths)
    video, valid = torch.randn(2, 40, 88, 88), torch.ones(2, 40, dtype=torch.bool)
    valid[1, 25:] = False
    plain = frozen(video, valid)
    assert not plain[1, 25:].any()
    monkeypatch.setattr(avhubert, "MANY", 1)
    many = frozen(video, valid)
    frozen.requires_grad_(True)
    expected = frozen(video, valid)
    torch.testing.assert_close(plain, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(many, expected, atol=5e-5, rtol=1e-4)
    assert torch.equal(many, plain) == (max(widths) < 128)


def test_a_front_end_can_be_trained():
    trained = front_end().requires_grad_(True).train()
    before = trained.bn3d.running_mean.clone()
    trained(torch.randn(1, 6, 88, 88), torch.ones(1, 6, dtype=torch.bool)).sum().backward()
    assert all(weight.grad is not None for weight in trained.parameters())
    assert not torch.equal(before, trained.bn3d.running_mean)


def test_log_mel_is_whispers():
    wave = torch.randn(1, 20_000)
    expected = WhisperFeatureExtractor(feature_size=20)(wave[0].numpy(), sampling_rate=16_000, return_tensors="pt")
    torch.testing.assert_close(log_mel(wave, 20, 1500), expected["input_features"], atol=1e-4, rtol=0)


def test_padded_audio_context_is_the_published_encoder():
    encoder, wave = build("audio", whisper_config(), torch.float32), torch.randn(1, 20_000)
    expected = encoder(log_mel(wave, 20, 1500)).last_hidden_state[:, :62]
    assert torch.equal(encode_audio(encoder, wave, torch.tensor([62]), padded=True), expected)


def test_audio_features_do_not_depend_on_the_batch():
    encoder = build("audio", whisper_config(), torch.float32)
    waves = [torch.randn(n * 320) for n in FRAMES]
    batch = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    together = encode_audio(encoder, batch, torch.tensor(FRAMES), padded=False)
    for wave, frames, features in zip(waves, FRAMES, together, strict=True):
        alone = encode_audio(encoder, wave[None], torch.tensor([frames]), padded=False)[0]
        torch.testing.assert_close(features[:frames], alone, atol=1e-5, rtol=1e-5)


def test_a_loud_end_does_not_change_a_clip_in_a_batch():
    encoder, wave = build("audio", whisper_config(), torch.float32), 1e-4 * torch.randn(50 * 320)
    wave[-100:] = 1.0
    batch = torch.nn.utils.rnn.pad_sequence([wave, torch.randn(120 * 320)], batch_first=True)
    together = encode_audio(encoder, batch, torch.tensor([50, 120]), padded=False)[0, :50]
    alone = encode_audio(encoder, wave[None], torch.tensor([50]), padded=False)[0]
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_audio_longer_than_the_encoder_is_refused():
    encoder = build("audio", whisper_config(), torch.float32)
    with pytest.raises(ValueError, match=r"audio of 31.0 s is longer than this encoder's 30 s"):
        encode_audio(encoder, torch.randn(1, 31 * 16_000), torch.tensor([1550]), padded=False)


@pytest.mark.parametrize("norm_first", [True, False])
def test_video_features_do_not_depend_on_what_pads_them(norm_first):
    encoder = AVHubertEncoder(avhubert_config(do_stable_layer_norm=norm_first)).eval()
    video = torch.randn(3, max(FRAMES), 88, 88)  # not zero after a clip's end
    padding = torch.arange(max(FRAMES)) >= torch.tensor(FRAMES)[:, None]
    together = encoder(video, padding)
    for clip, frames, features in zip(video, FRAMES, together, strict=True):
        torch.testing.assert_close(features[:frames], encoder(clip[None, :frames])[0], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(encoder(video)[2, :2], together[2, :2], atol=1e-4)


def test_average_is_average_pooling():
    features = torch.randn(1, 12, 5)
    pooled = F.avg_pool1d(features.transpose(1, 2), 4).transpose(1, 2)[0]
    torch.testing.assert_close(compress(features, torch.tensor([12]), 4, stack=False, keep_tail=False), pooled)


def test_stack_puts_frames_side_by_side():
    features = torch.randn(1, 13, 5)
    stacked = compress(features, torch.tensor([13]), 4, stack=True, keep_tail=False)
    assert torch.equal(stacked, features[0, :12].reshape(3, 20))


def test_a_kept_tail_is_the_mean_of_its_true_frames():
    features = torch.randn(2, 9, 5)
    tokens = compress(features, torch.tensor([9, 6]), 4, stack=False, keep_tail=True)
    assert len(tokens) == 3 + 2
    torch.testing.assert_close(tokens[2], features[0, 8])
    torch.testing.assert_close(tokens[4], features[1, 4:6].mean(0))


@pytest.mark.parametrize("stack", [True, False])
def test_padding_is_never_a_token(stack):
    features = torch.randn(2, 9, 5)
    garbage = features.clone()
    garbage[1, 6:] = torch.nan
    for keep_tail in (True, False):
        kept = [compress(f, torch.tensor([9, 6]), 4, stack, keep_tail) for f in (features, garbage)]
        assert torch.equal(*kept)


@pytest.mark.parametrize(("one", "names"), [(True, ["all"]), (False, ["4", "16"])])
@pytest.mark.parametrize("norm", [True, False])
def test_projectors_are_one_per_rate_or_one_for_all(one, names, norm):
    compressor = Compressor((5, 7, 6), [4, 16], one=one, stack=False, norm=norm)
    assert list(compressor.projectors) == names
    assert len(compressor.projectors[names[0]]) == (4 if norm else 3)
    assert compressor(torch.randn(1, 32, 5), torch.tensor([32]), 16, True).shape == (2, 6)
