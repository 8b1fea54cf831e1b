import pytest
import torch

from omni_avsr.tasks import Task
from tests.support.towers import TEXTS, clips


def spell(processor, ids):
    """The sequence with runs of media tokens counted."""
    text = processor.tokenizer.decode(ids)
    for token, letter in (("<|audio|>", "A"), ("<|video|>", "V")):
        count = text.count(token)
        text = text.replace(token * max(count, 1), f"{letter}{count}")
    return text


def test_the_sequence_is_media_then_task_then_transcript(make):
    _, processor = make()
    expected = {
        Task.ASR: "<s><audio>A3</audio><|asr|>Transcribe speech to text.we talk in public</s>",
        Task.VSR: "<s><video>V5</video><|vsr|>Transcribe video to text.we talk in public</s>",
        Task.AVSR: "<s><audio>A3</audio><video>V5</video><|avsr|>Transcribe speech and video to text."
        "we talk in public</s>",
    }
    for task, text in expected.items():
        batch = processor(**clips(21), text=TEXTS[3:], task=task, audio_rate=16, video_rate=5)
        assert spell(processor, batch["input_ids"][0]) == text
        labels = batch["labels"][0]
        assert processor.tokenizer.decode(labels[labels != -100]) == "we talk in public</s>"


def test_training_pads_right_and_decoding_left(make):
    _, processor = make()
    training = processor(**clips(30, 10), text=["a", "a"], task="asr")
    decoding = processor(**clips(30, 10), task="asr")
    assert training["attention_mask"][1].diff().tolist().count(-1) == 1
    assert decoding["attention_mask"][1].diff().tolist().count(1) == 1
    assert (training["labels"][1][training["attention_mask"][1] == 0] == -100).all()


def test_frames_that_pad_a_clip_are_tokens_only_as_published(make):
    for mask_padding, expected in ((True, [15, 5]), (False, [15, 15])):
        model, processor = make(mask_padding=mask_padding)
        place = model.config.special_tokens["<|video|>"]
        training = processor(**clips(30, 10), text=["a", "a"], task="vsr")
        assert (training["input_ids"] == place).sum(1).tolist() == expected
        decoding = processor(**clips(30, 10), task="vsr")
        assert (decoding["input_ids"] == place).sum(1).tolist() == [15, 5]


def test_pixels_are_cropped_in_the_middle_and_normalised(make):
    _, processor = make()
    video = clips(3)["video"][0]
    expected = (video[:, 4:92, 4:92] / 255 - 0.421) / 0.165
    assert torch.equal(processor.media(None, [video])["video"][0], expected)
    assert torch.equal(processor.media(None, [expected])["video"][0], expected)


def test_a_waveform_is_normalised_over_its_own_length(make):
    _, processor = make()
    audio = processor.media([3 * a + 1 for a in clips(30, 10)["audio"]], None)["audio"]
    assert audio[1, :6400].mean().abs() < 1e-6
    assert audio[1, :6400].std() == pytest.approx(1, abs=1e-3)
    assert not audio[1, 6400:].any()


@pytest.mark.parametrize(
    ("media", "message"),
    [
        ({"audio": [torch.zeros(2, 100)]}, r"audio of shape \(2, 100\), one non-empty channel"),
        ({"audio": [torch.zeros(0)]}, r"audio of shape \(0,\), one non-empty channel"),
        ({"audio": [torch.zeros(100)], "sampling_rate": 44100}, "audio at 44100 Hz, 16000 Hz expected"),
        ({"video": [torch.zeros(3, 96, 96, 3, dtype=torch.uint8)]}, r"video of shape \(3, 96, 96, 3\), grey frames"),
        (
            {"video": [torch.zeros(3, 60, 60, dtype=torch.uint8)]},
            "video frames of 60 x 60 pixels, 96 x 96 or 88 x 88 expected",
        ),
        ({"video": [torch.zeros(3, 96, 96)]}, "video frames of 96 x 96 pixels, 96 x 96 or 88 x 88 expected"),
    ],
)
def test_wrong_media_are_refused_with_their_values(make, media, message):
    _, processor = make()
    with pytest.raises(ValueError, match=message):
        processor(**media, task="asr" if "audio" in media else "vsr")


def test_a_tokenizer_of_another_model_is_refused(make, tokenizer):
    model, processor = make()
    tokenizer.add_tokens(["<extra>"])
    with pytest.raises(ValueError, match="this tokenizer numbers the special tokens"):
        type(processor)(tokenizer, model.config)


def test_as_many_sounds_as_videos_are_needed(make):
    _, processor = make()
    with pytest.raises(ValueError, match="2 sounds and 1 videos"):
        processor(audio=clips(12, 13)["audio"], video=clips(12)["video"], task="avsr")


def test_special_tokens_in_a_text_are_plain_text(make):
    model, processor = make()
    batch = processor(**clips(12), text=["say <|audio|> and </s>"], task="asr")
    labels = batch["labels"][0]
    assert (labels == model.config.eos_token_id).sum() == 1
    assert model(**batch).loss.isfinite()


def test_texts_and_clips_must_be_as_many(make):
    _, processor = make()
    with pytest.raises(ValueError, match="1 texts for 2 clips"):
        processor(**clips(12, 13), text=["a"], task="asr")
