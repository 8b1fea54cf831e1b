"""Media, features and batches as values."""

import pytest
import torch

from omni_avsr.model import Batch, Features, Media
from omni_avsr.tasks import Route, Task

LENGTHS = torch.tensor([3])
AUDIO = Features(audio=torch.zeros(1, 3, 2), audio_lengths=LENGTHS)


def test_features_name_the_modalities_that_they_hold():
    video = Features(video=torch.zeros(1, 3, 2), video_lengths=LENGTHS)
    both = Features(AUDIO.audio, LENGTHS, video.video, LENGTHS)
    assert Features().modalities == ()
    assert AUDIO.modalities == ("audio",)
    assert video.modalities == ("video",)
    assert both.modalities == ("audio", "video")


def test_features_of_a_modality_come_with_their_lengths():
    values, lengths = AUDIO.of("audio")
    assert values is AUDIO.audio
    assert lengths is LENGTHS
    with pytest.raises(AssertionError, match="there are no video features"):
        AUDIO.of("video")


def test_a_batch_moves_its_media_to_a_device_and_keeps_on_the_cpu_what_shapes_follow_from():
    batch = Batch(
        route=Route(Task.ASR, 4),
        input_ids=torch.zeros(1, 5).long(),
        attention_mask=torch.ones(1, 5).long(),
        media=Media(audio=torch.zeros(1, 960), audio_lengths=torch.tensor([960])),
        features=AUDIO,
    )
    moved = batch.to("meta")
    assert moved.media.audio.is_meta
    assert moved.features.audio.is_meta
    kept = [
        moved.input_ids,
        moved.attention_mask,
        moved.media.audio_lengths,
        moved.features.audio_lengths,
    ]
    assert {tensor.device.type for tensor in kept} == {"cpu"}
    assert moved.route == batch.route
    assert moved.labels is None
    assert moved.media.video is None
    assert batch.input_ids.device.type == "cpu"  # the original stays where it was
