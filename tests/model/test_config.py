"""The model's settings: which routes it has, and which choices it refuses."""

import pytest

from omni_avsr import OmniAVSRConfig
from omni_avsr.errors import InputError
from omni_avsr.tasks import SAMPLE_RATE, Route, Task, audio_frames
from tests.support.towers import avhubert_config, llm_config, whisper_config


def config(**settings) -> OmniAVSRConfig:
    towers = {
        "audio_config": whisper_config(),
        "video_config": avhubert_config(),
        "llm_config": llm_config(),
    }
    return OmniAVSRConfig(**{**towers, **settings})


def test_rates_that_are_not_chosen_are_the_first_that_were_trained():
    trained = config(audio_rates=[16, 4], video_rates=[5, 2])
    assert trained.choose("asr") == Route(Task.ASR, 16)
    assert trained.choose("avsr") == Route(Task.AVSR, 16, 5)
    assert trained.choose("avsr", video_rate=2) == Route(Task.AVSR, 16, 2)


def test_a_rate_of_a_modality_that_the_task_does_not_need_is_ignored():
    assert config().choose("asr", 4, 2) == Route(Task.ASR, 4)
    assert config().choose("vsr", 4, 2) == Route(Task.VSR, None, 2)


def test_a_rate_that_was_not_trained_is_refused():
    with pytest.raises(InputError, match="audio rate 8 was not trained; this model has 4, 16"):
        config().choose("asr", audio_rate=8)
    with pytest.raises(InputError, match="video rate 3 was not trained; this model has 2, 5"):
        config().choose("avsr", 4, 3)


def test_a_task_that_was_not_trained_or_does_not_exist_is_refused():
    with pytest.raises(InputError, match="task 'vsr' was not trained; this model has asr, avsr"):
        config(tasks=["asr", "avsr"]).choose("vsr")
    with pytest.raises(InputError, match="unknown task 'tts'; available: asr, vsr, avsr"):
        config().choose("tts")


def test_one_averaging_projector_serves_every_rate():
    one = config(projectors="one", audio_rates=[4], video_rates=[2])
    assert one.choose("asr", 7) == Route(Task.ASR, 7)
    with pytest.raises(InputError, match="audio rate 0 was not trained"):
        one.choose("asr", 0)


@pytest.mark.parametrize("settings", [{"compression": "stack"}, {"adapters": ["scale"]}])
def test_stacked_windows_and_scale_adapters_serve_only_trained_rates(settings):
    one = config(projectors="one", audio_rates=[4], video_rates=[2], **settings)
    with pytest.raises(InputError, match="audio rate 7 was not trained; this model has 4"):
        one.choose("asr", 7)


def test_the_routes_are_every_task_at_its_rates_once():
    assert sorted(config().routes()) == [
        Route(Task.ASR, 4),
        Route(Task.ASR, 16),
        Route(Task.VSR, None, 2),
        Route(Task.VSR, None, 5),
        Route(Task.AVSR, 4, 2),
        Route(Task.AVSR, 4, 5),
        Route(Task.AVSR, 16, 2),
        Route(Task.AVSR, 16, 5),
    ]
    assert len(config().routes()) == 8
    assert config().routes(audio_rates=[16], tasks=["asr"]) == [Route(Task.ASR, 16)]


def test_the_tasks_are_tasks_also_after_saving(tmp_path):
    config(tasks=["vsr", "asr"]).save_pretrained(tmp_path)
    saved = OmniAVSRConfig.from_pretrained(tmp_path)
    assert [type(task) for task in saved.tasks] == [Task, Task]
    assert saved.tasks == (Task.VSR, Task.ASR)


@pytest.mark.parametrize(
    ("tasks", "streams"),
    [
        (["asr"], ("audio",)),
        (["vsr"], ("video",)),
        (["vsr", "asr"], ("audio", "video")),
        (["avsr"], ("audio", "video")),
    ],
    ids=str,
)
def test_the_streams_are_what_the_tasks_need_between_them(tasks, streams):
    assert config(tasks=tasks).streams == streams


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": []}, "no task given"),
        ({"tasks": ["tts"]}, "unknown task 'tts'; available: asr, vsr, avsr"),
        ({"audio_rates": [4, 4]}, r"audio_rates \[4, 4\] must be different positive whole numbers"),
        ({"video_rates": [0]}, r"video_rates \[0\] must be different positive whole numbers"),
        ({"adapters": ["task", "task"]}, r"adapters \['task', 'task'\] name a factor twice"),
        ({"lora_rank": 0}, "lora_rank 0 is not a rank for the adapters"),
        (
            {"compression": "stack", "projectors": "one"},
            r"one projector cannot serve stacked windows of different lengths \[4, 16\]",
        ),
        (
            {"compression": "max", "adapters": ["speaker"]},
            r"unknown compression 'max'.*unknown adapters 'speaker'.*"
            "available: shared, task, scale",
        ),
        ({"video_config": None}, "tasks asr, vsr, avsr need a tower for video, none is given"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        config(**settings)


def test_rates_of_a_modality_that_no_task_needs_are_not_checked():
    heard = {"tasks": ["asr"], "projectors": "one", "compression": "stack", "audio_rates": [4]}
    assert config(**heard, video_rates=[2, 5]).routes() == [Route(Task.ASR, 4)]
    with pytest.raises(InputError, match="one projector cannot serve stacked windows"):
        config(**{**heard, "audio_rates": [4, 16]})


def test_the_longest_sound_is_that_of_the_audio_encoder():
    assert config().longest_sound == 30 * SAMPLE_RATE
    assert config(tasks=["vsr"]).longest_sound is None
    rounded_down = config(exact_audio_length=False).longest_sound
    assert audio_frames(rounded_down, exact=False) == 1500
    assert audio_frames(rounded_down + 1, exact=False) == 1501
