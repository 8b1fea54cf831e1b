"""What commands print: alignments, and Table I."""

from dataclasses import replace

import pytest
from rich.console import Console

from omni_avsr.cli.decoded import alignment, show_result
from omni_avsr.cli.terminal import Bars, table_one
from omni_avsr.errors import InputError
from omni_avsr.measure.results import Result
from omni_avsr.tasks import Condition, Route, Task

CLEAN = Condition()
RESULT = Result(
    route=Route(Task.ASR, 4),
    condition=CLEAN,
    wer=0.125,
    wer_low=0.1,
    wer_high=0.2,
    cer=0.051,
    words=80,
    substitutions=7,
    deletions=2,
    insertions=1,
    clips=20,
    audio_seconds=30.0,
    decode_seconds=1.5,
    beams=1,
    normaliser="lower",
    seed=3,
    checkpoint="runs/a[b]",
    manifest="test.csv",
)


def results(*conditions):
    """A result of every route in each condition, the routes in no order."""
    routes = [
        Route(Task.AVSR, 16, 5),
        Route(Task.VSR, None, 5),
        Route(Task.ASR, 16),
        Route(Task.AVSR, 4, 2),
        Route(Task.ASR, 4),
        Route(Task.AVSR, 16, 2),
        Route(Task.VSR, None, 2),
        Route(Task.AVSR, 4, 5),
    ]
    found = []
    for condition in conditions:
        for route in routes:
            wer = len(found) / 100
            found.append(replace(RESULT, route=route, condition=condition, wer=wer))
    return found


def printed(table, width=120):
    """The lines of a table, each with single spaces."""
    console = Console(width=width)
    with console.capture() as capture:
        console.print(table)
    return [" ".join(line.split()) for line in capture.get().splitlines()]


def test_table_one_has_the_papers_layout():
    table = table_one(results(Condition(0, "babble"), CLEAN), title=None)
    assert printed(table) == [
        "│ ASR │ VSR │ AVSR",
        "WER % │ (4) (16) │ (2) (5) │ (4,2) (4,5) (16,2) (16,5)",
        "clean │ 12.0 10.0 │ 14.0 9.0 │ 11.0 15.0 13.0 8.0",
        "babble 0 dB │ 4.0 2.0 │ 6.0 1.0 │ 3.0 7.0 5.0 0.0",
    ]


def test_table_one_fits_a_terminal_of_80_columns():
    table = table_one(results(CLEAN, Condition(-5, "babble")), title=None)
    assert printed(table, 80) == printed(table, 200)


def test_table_one_shows_what_was_not_measured_as_a_dash():
    heard = replace(RESULT, route=Route(Task.ASR, 3), wer=0.5)
    noise = Condition(2.5, "[b]wind")
    seen = replace(RESULT, route=Route(Task.VSR, None, 7), condition=noise, wer=1.234)
    lines = printed(table_one([heard, seen], title=None))
    assert lines[1] == "WER % │ (3) │ (7)"
    assert lines[2:] == ["clean │ 50.0 │ -", "[b]wind 2.5 dB │ - │ 123.4"]


def test_a_cell_with_two_results_and_a_table_of_nothing_are_refused():
    with pytest.raises(InputError, match=r"two results for ASR \(4\), clean"):
        table_one([RESULT, replace(RESULT, seed=4)])
    with pytest.raises(InputError, match="no results"):
        table_one([])


def test_a_result_is_shown_with_its_rates_and_counts(capsys):
    show_result(replace(RESULT, route=Route(Task.AVSR, 4, 2)))
    assert " ".join(capsys.readouterr().out.split()) == (
        "AVSR (4,2): WER 12.5 % of 80 words (7 substituted, 2 deleted, "
        "1 inserted), CER 5.1 %, 20 clips, 20 times as fast as speech; checkpoint runs/a[b]"
    )


def test_an_alignment_puts_word_under_word_with_its_marks():
    text = alignment("place red at g five now", "place bread at five now please")
    assert text.splitlines() == [
        "REF: place red   at g five now ******",
        "HYP: place bread at * five now please",
        "           S        D          I",
    ]


def test_an_alignment_without_errors_has_no_marks():
    assert alignment("bin blue", "bin blue") == "REF: bin blue\nHYP: bin blue"


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("", "", "REF:\nHYP:"),
        ("a bc", "", "REF: a bc\nHYP: * **\n     D D"),
        ("", "a", "REF: *\nHYP: a\n     I"),
    ],
)
def test_empty_texts_are_aligned(reference, hypothesis, expected):
    assert alignment(reference, hypothesis) == expected


def test_a_long_alignment_is_continued_in_blocks_that_fit():
    reference = " ".join(f"word{i}" for i in range(30))
    hypothesis = reference.replace("word7 ", "")
    lines = alignment(reference, hypothesis, width=40).splitlines()
    assert max(map(len, lines)) <= 40
    spoken = [line.removeprefix("REF: ") for line in lines if line.startswith("REF")]
    assert " ".join(spoken) == reference
    assert sum(line.startswith("     ") for line in lines) == 1


def test_words_that_just_fit_stay_in_one_block():
    assert alignment("abc de fgh", "abc de fgh", width=15).count("REF: ") == 1
    assert alignment("abc de fgh", "abc de fgh", width=14).count("REF: ") == 2


def test_a_word_wider_than_the_terminal_has_its_own_block():
    assert alignment("a " + "b" * 50 + " c", "a c", width=20).count("REF: ") == 3


def test_without_a_terminal_there_are_no_bars(capsys):
    bars = Bars()
    bars("Training", 1, 2)
    print("a result")
    bars("Training", 2, 2)
    assert capsys.readouterr() == ("a result\n", "")
    assert Bars.shown is None


def test_a_bar_needs_no_standard_output(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    Bars()("Decoding", 1, 1)
