"""Tasks, routes, conditions, lengths, and the table of methods."""

import pytest

from omni_avsr.errors import InputError
from omni_avsr.methods import METHODS, method
from omni_avsr.tasks import (
    CLEAN,
    MODALITIES,
    SAMPLES_PER_VIDEO_FRAME,
    Condition,
    Route,
    Task,
    audio_frames,
    token_count,
)

ASR = Route(Task.ASR, audio_rate=4)
VSR = Route(Task.VSR, video_rate=5)
AVSR = Route(Task.AVSR, audio_rate=4, video_rate=2)


def test_a_video_frame_has_two_audio_frames():
    assert audio_frames(25 * SAMPLES_PER_VIDEO_FRAME) == 50
    assert audio_frames(1) == 1


def test_published_audio_lengths_are_one_short_where_float32_rounds_down():
    published = {}
    for frames in range(13, 213):
        published[frames] = audio_frames(frames * SAMPLES_PER_VIDEO_FRAME, exact=False)
    short = {frames for frames, length in published.items() if length < 2 * frames}
    assert {53, 59, 105, 106, 117, 118, 209, 210, 211, 212} <= short
    assert all(published[frames] == 2 * frames - 1 for frames in short)


def test_published_audio_lengths_are_at_least_half_a_second():
    assert audio_frames(640, exact=False) == 25


@pytest.mark.parametrize(
    ("frames", "kept", "dropped"), [(9, 3, 2), (8, 2, 2), (3, 1, 0), (0, 0, 0)]
)
def test_a_last_partial_window_becomes_a_token_only_if_the_tail_is_kept(frames, kept, dropped):
    assert token_count(frames, 4, keep_tail=True) == kept
    assert token_count(frames, 4, keep_tail=False) == dropped


def test_an_unknown_task_or_method_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="unknown task 'tts'; available: asr, vsr, avsr"):
        Task("tts")
    with pytest.raises(
        InputError, match=r"unknown method 'omni'; available: llama-avsr, .*omni-avsr-st"
    ):
        method("omni")


def test_a_task_has_the_modalities_that_it_hears_and_sees():
    assert Task.ASR.modalities == ("audio",)
    assert Task.VSR.modalities == ("video",)
    assert Task.AVSR.modalities == MODALITIES
    for task in Task:
        assert task.hears == ("audio" in task.modalities)
        assert task.sees == ("video" in task.modalities)


@pytest.mark.parametrize(
    ("route", "text", "rates", "key", "tokens_per_second"),
    [
        (ASR, "ASR (4)", "(4)", "asr-a4", 12.5),
        (VSR, "VSR (5)", "(5)", "vsr-v5", 5),
        (AVSR, "AVSR (4,2)", "(4,2)", "avsr-a4-v2", 25),
    ],
    ids=str,
)
def test_a_route_has_a_text_a_key_and_a_token_rate(route, text, rates, key, tokens_per_second):
    assert str(route) == text
    assert route.rates == rates
    assert route.key == key
    assert route.tokens_per_second == tokens_per_second


def test_a_route_knows_the_rate_of_each_of_its_modalities():
    assert AVSR.modalities == MODALITIES
    assert (AVSR.rate("audio"), AVSR.rate("video")) == (4, 2)
    with pytest.raises(AssertionError, match=r"VSR \(5\) has no audio"):
        VSR.rate("audio")


def test_routes_are_sorted_by_task_and_then_by_rate():
    expected = [
        Route(Task.ASR, 4),
        Route(Task.ASR, 16),
        Route(Task.VSR, None, 2),
        Route(Task.VSR, None, 5),
        Route(Task.AVSR, 4, 2),
        Route(Task.AVSR, 4, 5),
        Route(Task.AVSR, 16, 2),
    ]
    mixed = expected[3:] + expected[:3]
    assert sorted(mixed) == expected


def test_a_task_can_be_given_as_text():
    route = Route("asr", 4)
    assert route.task is Task.ASR
    assert route == ASR
    assert hash(route) == hash(ASR)


@pytest.mark.parametrize("route", [ASR, VSR, AVSR], ids=str)
def test_a_route_can_be_read_back_from_its_row(route):
    row = route.as_row()
    assert row == {
        "task": str(route.task),
        "audio_rate": route.audio_rate,
        "video_rate": route.video_rate,
    }
    assert Route.from_row(row) == route


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("asr", 4, 2), "asr takes no video rate, 2 was given"),
        (("vsr", 4, 2), "vsr takes no audio rate, 4 was given"),
        (("asr",), "asr: the audio rate must be 1 or more, not None"),
        (("avsr", 0, 2), "avsr: the audio rate must be 1 or more, not 0"),
        (("avsr", 4), "avsr: the video rate must be 1 or more, not None"),
        (("tts", 4), "unknown task 'tts'; available: asr, vsr, avsr"),
    ],
)
def test_a_route_needs_a_rate_for_each_of_its_modalities_and_no_other(given, message):
    with pytest.raises(InputError, match=message):
        Route(*given)


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        (CLEAN, "clean"),
        (Condition(0, "babble"), "babble 0 dB"),
        (Condition(-2.5, "white"), "white -2.5 dB"),
        (Condition(10.0), "noise 10 dB"),
    ],
)
def test_a_condition_is_shown_with_its_noise_and_ratio(condition, text):
    assert str(condition) == text


def test_a_condition_without_a_ratio_is_clean_whatever_its_noise():
    assert Condition(None, "babble") == CLEAN


def test_conditions_are_sorted_from_clean_to_noisy():
    expected = [
        CLEAN,
        Condition(10, "babble"),
        Condition(0, "babble"),
        Condition(-5, "babble"),
        Condition(20, "white"),
    ]
    mixed = expected[3:] + expected[:3]
    assert sorted(mixed) == expected


@pytest.mark.parametrize("condition", [CLEAN, Condition(0, "babble")], ids=str)
def test_a_condition_can_be_read_back_from_its_row(condition):
    row = condition.as_row()
    assert row == {"snr": condition.snr, "noise": condition.noise}
    assert Condition.from_row(row) == condition


def test_the_table_has_the_published_methods():
    shown = {}
    for name, row in METHODS.items():
        shown[name] = (row.tasks, row.rates_in_a_step, "+".join(row.adapters), row.projectors)
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
