"""Where the model chooses: what is in doubt climbs, within the budget, and the surer text stays."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_avsr.decode.elastic import Climb, Ladder, chosen_climb, ladders
from omni_avsr.decode.hypothesis import Hypothesis
from omni_avsr.errors import InputError
from omni_avsr.measure.elastic import Climbs
from omni_avsr.model import OmniAVSRConfig
from omni_avsr.settings import DecodeSettings, LiveSettings, TranscribeSettings
from omni_avsr.tasks import Route, Task

ROUTES = [
    *(Route(Task.ASR, audio) for audio in (4, 16)),
    *(Route(Task.VSR, None, video) for video in (2, 5)),
    *(Route(Task.AVSR, audio, video) for audio in (4, 16) for video in (2, 5)),
]
COARSE, FINE = Route(Task.AVSR, 16, 5), Route(Task.AVSR, 4, 2)
LADDER = Ladder(COARSE, FINE, doubt=0.1)


@pytest.fixture(scope="module")
def config():
    return OmniAVSRConfig.from_pretrained("omni_avsr/tiny/omni-avsr-st")


def hypothesis(id, route, errors, doubt, seconds=1.0):
    words = ["x"] * errors + ["a"] * (4 - errors)
    sure = [1 - doubt] * 4
    return Hypothesis(id, "a a a a", " ".join(words), route, probabilities=sure, seconds=seconds)


def test_ladders_lead_to_the_finest_rates_and_from_hearing_to_seeing():
    assert list(map(str, ladders(ROUTES))) == [
        "ASR (16), in doubt (4)",
        "VSR (5), in doubt (2)",
        "AVSR (16,5), in doubt (4,2)",
        "ASR (4), in doubt AVSR (4,2)",
        "ASR (16), in doubt AVSR (4,2)",
    ]
    assert ladders([COARSE]) == []


def test_the_shipped_model_knows_when_to_doubt(config):
    assert set(config.ladders) == {ladder.key for ladder in ladders(config.routes())}
    assert set(config.calibration) == set(config.tasks)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"task": "avsr", "rates": "auto"}, "AVSR (16,5), in doubt (4,2)"),
        ({"task": "vsr", "rates": "auto"}, "VSR (5), in doubt (2)"),
        ({"task": "auto"}, "ASR (4), in doubt AVSR (4,2)"),
        ({"task": "auto", "rates": "auto"}, "ASR (16), in doubt AVSR (4,2)"),
    ],
)
def test_options_choose_a_ladder(config, chosen, expected):
    climb = chosen_climb(config, chosen["task"], DecodeSettings(**chosen))
    assert str(climb.ladder) == expected
    assert climb.ladder.doubt == config.ladders[climb.ladder.key]


def test_one_route_is_no_choice(config):
    assert chosen_climb(config, Task.AVSR, DecodeSettings()) is None
    only = replace(OmniAVSRConfig.from_dict(config.to_dict()), audio_rates=(4,), video_rates=(2,))
    assert chosen_climb(only, Task.AVSR, DecodeSettings(rates="auto")) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rates": "auto", "budget": 5.0}, "--budget 5 is less than the 8.1 tokens per second"),
        ({"task": "auto", "audio_rate": 16, "video_rate": 5}, "cannot tell when to doubt ASR (16)"),
    ],
)
def test_what_cannot_be_chosen_is_refused(config, given, message):
    settings = DecodeSettings(**given)
    with pytest.raises(InputError) as error:
        chosen_climb(config, settings.task, settings)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (DecodeSettings, {"budget": 12.0}, "a budget is for auto"),
        (DecodeSettings, {"rates": "auto", "audio_rate": 4}, "rates auto chooses the rates"),
        (DecodeSettings, {"task": "auto", "merge": True}, "leave merge or auto out"),
        (TranscribeSettings, {"rates": "auto", "words": False}, "judges words"),
        (LiveSettings, {"rates": "auto", "budget": 12.0}, "there is no budget"),
    ],
)
def test_contradictions_are_refused(kind, given, message):
    with pytest.raises(InputError) as error:
        kind(**given)
    assert message in str(error.value)


def test_the_most_doubtful_climb_first_while_the_budget_lasts():
    climb = Climb(LADDER, budget=COARSE.tokens_per_second + FINE.tokens_per_second / 2)
    assert climb.of([0.2, 0.05, 0.9, 0.3], [1.0] * 4) == [2, 3]
    assert climb.of([0.5], [1.0]) == []  # half a second is not enough
    assert climb.of([0.5], [1.0]) == [0]  # but is kept
    assert Climb(LADDER).of([0.2, 0.05, 0.9], [1.0] * 3) == [0, 2]


@given(
    st.lists(st.lists(st.tuples(st.floats(0, 1), st.floats(0.1, 9)), max_size=6), max_size=6),
    st.floats(COARSE.tokens_per_second, 40),
)
def test_a_budget_is_kept_whatever_comes(batches, budget):
    climb = Climb(LADDER, budget)
    spoken = tokens = 0.0
    for batch in batches:
        doubts, seconds = [one for one, _ in batch], [one for _, one in batch]
        places = climb.of(doubts, seconds)
        spoken += sum(seconds)
        tokens += COARSE.tokens_per_second * sum(seconds)
        tokens += FINE.tokens_per_second * sum(seconds[place] for place in places)
        assert tokens <= budget * spoken + 1e-6
        assert all(doubts[place] > LADDER.doubt for place in places)


def test_a_curve_counts_the_errors_of_the_surer_transcripts():
    doubts = {"a": 0.3, "b": 0.2, "c": 0.5}
    cheap = [hypothesis(name, COARSE, 2, doubt) for name, doubt in doubts.items()]
    better = [
        hypothesis("a", FINE, 0, 0.1),
        hypothesis("b", FINE, 3, 0.4),  # less sure, so that the cheap one stays
        hypothesis("c", FINE, 1, 0.5),  # as sure
    ]
    climbs = Climbs.of(cheap, better)
    assert climbs.doubts.tolist() == pytest.approx([0.5, 0.3, 0.2])
    assert climbs.errors.tolist() == [6, 5, 3, 3]
    assert climbs.shares.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert climbs.words == 12
    assert climbs.above(0.25) == 2


def test_no_more_is_doubted_than_is_worth_it():
    doubts = {"a": 0.4, "b": 0.3, "c": 0.2, "d": 0.1}
    cheap = [hypothesis(name, COARSE, 1, doubt) for name, doubt in doubts.items()]
    errors = {"a": 0, "b": 0, "c": 1, "d": 1}
    better = [hypothesis(name, FINE, wrong, 0.0) for name, wrong in errors.items()]
    climbs = Climbs.of(cheap, better)
    assert climbs.above(climbs.doubt_worth(0.0)) == 2
    assert climbs.above(climbs.doubt_worth(1 / 16)) == 1
    always = [hypothesis(name, FINE, 0, 0.0) for name in "abcd"]
    climbs = Climbs.of(cheap, always)
    assert climbs.above(climbs.doubt_worth(0.0)) == 4
    assert Climbs.of([], []).doubt_worth(0.0) == 0.0
