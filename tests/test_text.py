import pytest

from omni_avsr.text import Errors, aligned_words, alignment, normalise, total_errors, word_errors


def test_normalised_text_is_lower_case_with_single_spaces():
    assert normalise("  BIN\tBlue \n at  F ") == "bin blue at f"


def test_counts_are_those_found_by_hand():
    errors = word_errors(
        "place red at g five now", "place bread at five now please"
    )  # red > bread, g lost, please added
    assert (errors.words, errors.hits) == (6, 4)
    assert (errors.substitutions, errors.deletions, errors.insertions) == (1, 1, 1)
    assert errors.wer == 3 / 6


def test_characters_are_counted_with_their_spaces():
    errors = word_errors("a bc", "a bd e")  # c > d, then " e" added
    assert (errors.characters, errors.character_errors) == (4, 3)
    assert errors.cer == 3 / 4


def test_a_hypothesis_that_only_adds_words_has_only_insertions():
    errors = word_errors("blue", "blue blue blue now")
    assert (errors.hits, errors.substitutions, errors.deletions, errors.insertions) == (1, 0, 0, 3)
    assert errors.wer == 3


def test_an_empty_hypothesis_is_all_deletions():
    assert word_errors("set white", "") == Errors(words=2, deletions=2, characters=9, character_errors=9)


def test_an_empty_reference_has_a_finite_rate():
    assert word_errors("", "") == Errors()
    assert word_errors("", "").wer == 0
    silence = word_errors(" ", "oh no")
    assert (silence.words, silence.insertions, silence.wer, silence.cer) == (0, 2, 2, 5)


def test_the_width_of_a_space_is_no_error_but_case_is():
    assert word_errors("a  b\tc", " a b c").errors == 0
    assert word_errors("a", "A").substitutions == 1


def test_a_total_weighs_clips_by_their_words():
    total = total_errors([("a b c d", "a b c d"), ("x", "y"), ("p q", "p")])
    assert total == Errors(words=7, substitutions=1, deletions=1, hits=5, characters=11, character_errors=3)
    assert total.wer == 2 / 7
    assert total_errors([]) == Errors()


def test_errors_add_up_part_by_part():
    assert Errors(1, 2, 3, 4, 5, 6, 7) + Errors(10, 20, 30, 40, 50, 60, 70) == Errors(11, 22, 33, 44, 55, 66, 77)


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
    [("", "", "REF:\nHYP:"), ("a bc", "", "REF: a bc\nHYP: * **\n     D D"), ("", "a", "REF: *\nHYP: a\n     I")],
)
def test_empty_texts_are_aligned(reference, hypothesis, expected):
    assert alignment(reference, hypothesis) == expected


def test_a_long_alignment_goes_on_in_blocks_that_fit():
    reference = " ".join(f"word{i}" for i in range(30))
    lines = alignment(reference, reference.replace("word7 ", ""), width=40).splitlines()
    assert max(map(len, lines)) <= 40
    assert " ".join(line.removeprefix("REF: ") for line in lines if line.startswith("REF")) == reference
    assert sum(line.startswith("     ") for line in lines) == 1


def test_a_word_wider_than_the_terminal_stands_alone():
    assert alignment("a " + "b" * 50 + " c", "a c", width=20).count("REF: ") == 3


def test_aligned_words_keep_what_a_starred_reference_says():
    assert aligned_words("f *** off", "f off") == [("f", "f", ""), ("***", "***", "D"), ("off", "off", "")]
