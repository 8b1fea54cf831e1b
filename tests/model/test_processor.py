"""The processor: token sequences, padding, and the refusal of unusable media."""

import numpy as np
import pytest
import torch

from omni_avsr import OmniAVSRProcessor
from omni_avsr.errors import InputError
from omni_avsr.model import Features, Media
from omni_avsr.tasks import PIXEL_MEAN, PIXEL_STD, Route, Task
from tests.support.towers import TEXTS, clips


@pytest.fixture(scope="module")
def processor(make):
    return make()[1]


def spell(processor, ids):
    """The sequence with runs of media tokens counted."""
    text = processor.tokenizer.decode(ids)
    for token, letter in (("<|audio|>", "A"), ("<|video|>", "V")):
        count = text.count(token)
        if count:
            text = text.replace(token * count, f"{letter}{count}")
    return text


@pytest.mark.parametrize(
    ("task", "prefix"),
    [
        (Task.ASR, "<s><audio>A3</audio><|asr|>Transcribe speech to text."),
        (Task.VSR, "<s><video>V5</video><|vsr|>Transcribe video to text."),
        (
            Task.AVSR,
            "<s><audio>A3</audio><video>V5</video><|avsr|>Transcribe speech and video to text.",
        ),
    ],
)
def test_the_sequence_is_media_then_task_then_transcript(processor, task, prefix):
    rates = {"audio_rate": 16, "video_rate": 5}
    training = processor(**clips(21), text=["we talk in public"], task=task, **rates)
    assert spell(processor, training.input_ids[0]) == f"{prefix}we talk in public</s>"
    labels = training.labels[0]
    assert processor.tokenizer.decode(labels[labels != -100]) == "we talk in public</s>"
    decoding = processor(**clips(21), task=task, **rates)
    assert spell(processor, decoding.input_ids[0]) == prefix
    assert decoding.labels is None


def test_a_batch_has_its_route_and_its_media(processor):
    batch = processor(**clips(30, 10), task="asr", audio_rate=16, video_rate=5)
    assert batch.route == Route(Task.ASR, 16)
    assert batch.media.audio_lengths.tolist() == [30 * 640, 10 * 640]
    assert batch.media.video.shape == (2, 30, 88, 88)
    assert batch.media.video_lengths.tolist() == [30, 10]
    assert batch.features is None


def test_training_pads_on_the_right_and_decoding_on_the_left(processor):
    training = processor(**clips(30, 10), text=["a", "a"], task="asr")
    decoding = processor(**clips(30, 10), task="asr")
    padding = training.attention_mask[1] == 0
    assert padding.any()
    assert training.attention_mask[1].diff().unique().tolist() == [-1, 0]
    assert decoding.attention_mask[1].diff().unique().tolist() == [0, 1]
    assert (training.labels[1][padding] == -100).all()


def test_features_give_the_same_sequences_as_their_media(make):
    model, processor = make()
    media = processor.media(**clips(30, 11))
    features = model.encode(media)
    for route in model.config.routes():
        for text in (TEXTS[:2], None):
            expected = processor.batch(media, route, text)
            found = processor.batch(features, route, text)
            assert torch.equal(found.input_ids, expected.input_ids)
            assert torch.equal(found.attention_mask, expected.attention_mask)
            assert found.features is features
            assert found.media is None


def test_media_without_lengths_are_full(processor):
    media = processor.media(**clips(30, 30))
    full = Media(audio=media.audio, video=media.video)
    route = Route(Task.AVSR, 4, 2)
    expected = processor.batch(media, route)
    assert torch.equal(processor.batch(full, route).input_ids, expected.input_ids)


@pytest.mark.parametrize(("mask_padding", "in_training"), [(True, [15, 5]), (False, [15, 15])])
def test_frames_that_pad_a_clip_become_tokens_only_in_published_training(
    make, mask_padding, in_training
):
    model, processor = make(mask_padding=mask_padding)
    placeholder = model.config.special_tokens["<|video|>"]
    training = processor(**clips(30, 10), text=["a", "a"], task="vsr")
    assert (training.input_ids == placeholder).sum(1).tolist() == in_training
    decoding = processor(**clips(30, 10), task="vsr")
    assert (decoding.input_ids == placeholder).sum(1).tolist() == [15, 5]


def test_pixels_are_cropped_in_the_middle_and_normalised(processor):
    pixels = clips(3)["video"][0]
    expected = (pixels[:, 4:92, 4:92] / 255 - PIXEL_MEAN) / PIXEL_STD
    assert torch.equal(processor.media(None, [pixels]).video[0], expected)
    assert torch.equal(processor.media(None, [expected]).video[0], expected)


def test_a_waveform_is_normalised_over_its_own_length(processor):
    sounds = [3 * sound + 1 for sound in clips(30, 10)["audio"]]
    shorter = processor.media(sounds, None).audio[1]
    assert shorter[:6400].mean().abs() < 1e-6
    assert shorter[:6400].std() == pytest.approx(1, abs=1e-3)
    assert not shorter[6400:].any()


def test_arrays_are_taken_as_tensors_are(processor):
    given = clips(12)
    arrays = {modality: [np.asarray(clip) for clip in given[modality]] for modality in given}
    expected = processor.media(**given)
    found = processor.media(**arrays)
    assert torch.equal(found.audio, expected.audio)
    assert torch.equal(found.video, expected.video)


@pytest.mark.parametrize(
    ("media", "message"),
    [
        (
            {"audio": [torch.zeros(2, 100)]},
            r"audio of shape \(2, 100\), one non-empty channel",
        ),
        (
            {"audio": [torch.zeros(0)]},
            r"audio of shape \(0,\), one non-empty channel",
        ),
        (
            {"audio": [torch.zeros(100)], "sampling_rate": 44100},
            "audio at 44100 Hz, 16000 Hz expected",
        ),
        (
            {"video": [torch.zeros(3, 96, 96, 3, dtype=torch.uint8)]},
            r"video of shape \(3, 96, 96, 3\), grey frames",
        ),
        (
            {"video": [torch.zeros(3, 60, 60, dtype=torch.uint8)]},
            "video frames of 60 x 60 pixels, 96 x 96 or 88 x 88 expected",
        ),
        (
            {"video": [torch.zeros(3, 96, 96)]},
            "video frames of 96 x 96 pixels, 96 x 96 or 88 x 88 expected",
        ),
        (
            {"video": [torch.zeros(3, 96, 96, dtype=torch.int32)]},
            "video of torch.int32, uint8 pixels or normalised floats expected",
        ),
        (
            {"audio": clips(12, 13)["audio"], "video": clips(12)["video"]},
            "2 sounds and 1 videos",
        ),
        ({"audio": [], "video": []}, "0 sounds and 0 videos"),
    ],
)
def test_unusable_media_are_refused_with_their_values(processor, media, message):
    with pytest.raises(InputError, match=message):
        processor(**media, task="asr" if "audio" in media else "vsr")


def test_media_that_lack_a_modality_of_the_task_are_refused(processor):
    with pytest.raises(InputError, match="task 'avsr' needs video, given: audio"):
        processor(audio=clips(12)["audio"], task="avsr")
    with pytest.raises(InputError, match="task 'avsr' needs audio and video, given: nothing"):
        processor.batch(Features(), Route(Task.AVSR, 4, 2))


def test_a_task_or_rate_that_was_not_trained_is_refused(make):
    _, processor = make(tasks=["asr", "avsr"])
    with pytest.raises(InputError, match="task 'vsr' was not trained; this model has asr, avsr"):
        processor(**clips(12), task="vsr")
    with pytest.raises(InputError, match="audio rate 8 was not trained; this model has 4, 16"):
        processor(**clips(12), task="asr", audio_rate=8)


def test_a_tokenizer_of_another_model_is_refused(processor, tokenizer):
    tokenizer.add_tokens(["<extra>"])
    with pytest.raises(InputError, match="this tokenizer numbers the special tokens"):
        OmniAVSRProcessor(tokenizer, processor.config)


def test_special_tokens_in_a_text_are_plain_text(make):
    model, processor = make()
    batch = processor(**clips(12), text=["say <|audio|> and </s>"], task="asr")
    assert (batch.labels[0] == model.config.eos_token_id).sum() == 1
    assert model(batch).loss.isfinite()


def test_there_must_be_as_many_texts_as_clips(processor):
    with pytest.raises(InputError, match="1 texts for 2 clips"):
        processor(**clips(12, 13), text=["a"], task="asr")


def test_a_clip_without_text_learns_only_its_end(processor):
    sound = [torch.ones(16_000)]
    batch = processor(sound, text=[""], task="asr")
    learned = batch.labels[batch.labels != -100]
    assert learned.tolist() == [processor.config.eos_token_id]
    assert batch.input_ids.dtype == torch.long


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("samples", [1, 2, 641])
def test_a_clip_may_be_as_short_as_a_sample_and_a_frame(make, task, samples):
    model, processor = make()
    video = [torch.zeros(1, 96, 96, dtype=torch.uint8)]
    sounds = [torch.ones(samples), torch.ones(samples, 1)]
    for sound in sounds:
        batch = processor([sound], video, ["a word"], task=task)
        assert model(batch).loss.isfinite()
        assert len(model.generate(processor([sound], video, task=task))) == 1
