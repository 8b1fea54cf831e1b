import pytest

from omni_avsr.methods import METHODS, method
from omni_avsr.tasks import SAMPLES_PER_VIDEO_FRAME, Task, audio_frames, token_count


def test_a_video_frame_has_two_audio_frames():
    assert audio_frames(25 * SAMPLES_PER_VIDEO_FRAME) == 50
    assert audio_frames(1) == 1


def test_published_audio_lengths_are_one_short_where_float32_rounds_down():
    short = [n for n in range(13, 213) if audio_frames(n * SAMPLES_PER_VIDEO_FRAME, exact=False) < 2 * n]
    assert {53, 59, 105, 106, 117, 118, 209, 210, 211, 212} <= set(short)
    assert all(audio_frames(n * SAMPLES_PER_VIDEO_FRAME, exact=False) == 2 * n - 1 for n in short)


def test_published_audio_lengths_are_half_a_second_at_the_least():
    assert audio_frames(640, exact=False) == 25


@pytest.mark.parametrize(("frames", "kept", "dropped"), [(9, 3, 2), (8, 2, 2), (3, 1, 0), (0, 0, 0)])
def test_a_last_partial_window_is_a_token_if_kept(frames, kept, dropped):
    assert token_count(frames, 4, keep_tail=True) == kept
    assert token_count(frames, 4, keep_tail=False) == dropped


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown task 'tts'; available: asr, vsr, avsr"):
        Task("tts")
    with pytest.raises(ValueError, match=r"unknown method 'omni'; available: llama-avsr, .*omni-avsr-st"):
        method("omni")


def test_the_table_has_the_published_methods():
    shown = {name: (m.tasks, m.rates_in_a_step, "+".join(m.adapters), m.projectors) for name, m in METHODS.items()}
    assert shown == {
        "llama-avsr": ("one", "fixed", "shared", "one"),
        "llama-mtsk-ms": ("one", "all", "shared", "per_rate"),
        "llama-mtsk-ss": ("one", "all", "scale", "per_rate"),
        "llama-mtsk-mss": ("one", "all", "shared+scale", "per_rate"),
        "llama-mt": ("all", "fixed", "shared", "one"),
        "omni-avsr-s": ("all", "sampled", "shared", "per_rate"),
        "omni-avsr-t": ("all", "sampled", "task", "per_rate"),
        "omni-avsr-st": ("all", "sampled", "shared+task", "per_rate"),
    }
