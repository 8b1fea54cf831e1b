import pytest

from omni_avsr.errors import InputError
from omni_avsr.text import Errors, aligned_words, normalise, total_errors, word_errors


def test_normalised_text_is_lower_case_with_single_spaces():
    assert normalise("  BIN\tBlue \n at  F ") == "bin blue at f"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Well, it's 3,000.50 - or so!", "well it's 3,000.50 or so"),
        ("A state-of-the-art 9-5 job.", "a state-of-the-art 9 5 job"),
        ("(No.)", "no"),
    ],
)
def test_13a_drops_punctuation_except_inside_numbers_and_words(text, expected):
    assert normalise(text, "13a") == expected


def test_whispers_normaliser_keeps_british_spellings():
    assert normalise("The colour isn't twenty-one, um, grey.", "whisper") == (
        "the colour is not 21 grey"
    )


def test_an_unknown_normaliser_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="unknown normaliser 'upper'; available: lower, 13a"):
        normalise("a", "upper")


def test_counts_are_those_found_by_hand():
    # red became bread, g is lost, please is added
    errors = word_errors("place red at g five now", "place bread at five now please")
    assert (errors.words, errors.hits) == (6, 4)
    assert (errors.substitutions, errors.deletions, errors.insertions) == (1, 1, 1)
    assert errors.wer == 3 / 6


def test_characters_are_counted_with_their_spaces():
    errors = word_errors("a bc", "a bd e")  # c became d, then " e" is added
    assert (errors.characters, errors.character_errors) == (4, 3)
    assert errors.cer == 3 / 4


def test_a_hypothesis_that_only_adds_words_has_only_insertions():
    errors = word_errors("blue", "blue blue blue now")
    assert errors.hits == 1
    assert (errors.substitutions, errors.deletions, errors.insertions) == (0, 0, 3)
    assert errors.wer == 3


def test_an_empty_hypothesis_is_all_deletions():
    expected = Errors(words=2, deletions=2, characters=9, character_errors=9)
    assert word_errors("set white", "") == expected


def test_an_empty_reference_has_a_finite_rate():
    assert word_errors("", "") == Errors()
    assert word_errors("", "").wer == 0
    silence = word_errors(" ", "oh no")
    assert (silence.words, silence.insertions) == (0, 2)
    assert (silence.wer, silence.cer) == (2, 5)


def test_the_width_of_a_space_is_no_error_but_case_is():
    assert word_errors("a  b\tc", " a b c").errors == 0
    assert word_errors("a", "A").substitutions == 1


def test_a_total_weighs_clips_by_their_words():
    total = total_errors([("a b c d", "a b c d"), ("x", "y"), ("p q", "p")])
    assert total == Errors(
        words=7, substitutions=1, deletions=1, hits=5, characters=11, character_errors=3
    )
    assert total.wer == 2 / 7
    assert total_errors([]) == Errors()
    assert total_errors([(" ", "all that is said is inserted"), ("x", "x")]).wer == 0


def test_errors_add_up_field_by_field():
    one = Errors(1, 2, 3, 4, 5, 6, 7)
    other = Errors(10, 20, 30, 40, 50, 60, 70)
    assert one + other == Errors(11, 22, 33, 44, 55, 66, 77)


def test_aligned_words_mark_substitutions_deletions_and_insertions():
    columns = aligned_words("place red at g five now", "place bread at five now please")
    assert [column.mark for column in columns] == ["", "S", "", "D", "", "", "I"]
    assert (columns[3].reference, columns[3].hypothesis) == ("g", "*")
    assert (columns[6].reference, columns[6].hypothesis) == ("******", "please")


def test_aligned_words_keep_asterisks_of_the_reference():
    assert aligned_words("f *** off", "f off") == [
        ("f", "f", ""),
        ("***", "***", "D"),
        ("off", "off", ""),
    ]
