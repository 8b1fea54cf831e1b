"""Options: every one of numbers has bounds, and a value outside of them is refused by its name."""

from dataclasses import Field, fields
from typing import get_args, get_origin, get_type_hints

import pytest

from omni_avsr import settings
from omni_avsr.errors import InputError
from omni_avsr.settings import DecodeSettings, EvaluateSettings, Settings, TrainSettings
from omni_avsr.settings.base import COUNT, POSITIVE, SHARE, Bounds, required

COMMANDS = [getattr(settings, name) for name in settings.__all__ if name not in ("Settings",)]


def of_numbers(command: type[Settings]) -> list[tuple[Field, bool]]:
    """The options that are numbers, and whether they are lists."""
    found = []
    hints = get_type_hints(command)
    for own in fields(command):
        kind = required(hints[own.name])
        is_list = get_origin(kind) is tuple
        if (get_args(kind)[0] if is_list else kind) in (int, float):
            found.append((own, is_list))
    return found


OPTIONS = [
    pytest.param(command, own, is_list, id=f"{command.__name__}.{own.name}")
    for command in COMMANDS
    for own, is_list in of_numbers(command)
]


def test_the_table_has_many_options():
    assert len(OPTIONS) > 60


@pytest.mark.parametrize(("command", "own", "is_list"), OPTIONS)
def test_every_option_of_numbers_refuses_what_is_out_of_its_bounds(command, own, is_list):
    bounds: Bounds = own.metadata["bounds"]
    assert bounds, f"{own.name} has no bounds"
    low = int(bounds.low)
    too_low = low if bounds.above else low - 1
    too_high = [] if bounds.high == float("inf") else [int(bounds.high) + 1]
    for value in (too_low, *too_high):
        with pytest.raises(InputError, match=f"{own.name} must be .*, not {value}"):
            command(**{own.name: (value,) if is_list else value})


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_numbers_must_be_finite(value):
    with pytest.raises(InputError, match=f"lr must be more than 0, not {value}"):
        TrainSettings(lr=value)
    with pytest.raises(InputError, match="neither clean nor a signal-to-noise ratio"):
        EvaluateSettings(snr=("clean", value))


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        (COUNT, "1 or more"),
        (POSITIVE, "more than 0"),
        (SHARE, "from 0 to 1"),
        (Bounds(0, 9, above=True), "more than 0 and at most 9"),
    ],
)
def test_bounds_are_told_in_words(bounds, words):
    assert str(bounds) == words


def test_the_bounds_themselves_are_allowed():
    DecodeSettings(snr=100, beams=1, seed=0)
    DecodeSettings(snr=-100)
    assert not POSITIVE.hold(0)
