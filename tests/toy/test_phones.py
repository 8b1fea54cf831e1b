"""The classes and looks of the phonemes that espeak says in each language."""

import importlib.util
import itertools

import numpy as np
import pytest

from omni_avsr.settings.shared import LANGUAGES
from omni_avsr.toy.phones import LOOKS, PHONEMES, VISEMES, phoneme_class
from omni_avsr.toy.sentences import sentences
from omni_avsr.toy.speech import speak
from omni_avsr.toy.voices import speakers

needs_espeak = pytest.mark.skipif(
    not importlib.util.find_spec("espeakng_loader"), reason="needs espeak-ng"
)

ENGLISH = {  # class: espeak's names for it in English sentences
    "sil": "_ _: _|",
    "p": "p",
    "b": "b",
    "m": "m",
    "f": "f",
    "v": "v",
    "T": "T",
    "D": "D",
    "t": "t t# t2 t[",
    "d": "d",
    "n": "n",
    "l": "@L l",
    "s": "s",
    "z": "z",
    "tS": "tS",
    "dZ": "dZ",
    "S": "S",
    "Z": "Z",
    "k": "k",
    "g": "g",
    "N": "N",
    "h": "h",
    "w": "w w#",
    "r": "r r-",
    "i:": "i i:",
    "I": "I I# I2 i@ i@3",
    "j": "; j",
    "E": "E e@",
    "a": "a aa",
    "V": "V",
    "A:": "0 A: A@ O2",
    "O:": "O: O@ o@",
    "U": "U U@",
    "u:": "u:",
    "@": "@ @- @2 @5 a#",
    "3:": "3 3: IR VR",
    "eI": "eI",
    "aI": "aI aI2 aI3 aI@",
    "OI": "OI",
    "aU": "aU",
    "oU": "oU",
}
ABROAD = {  # and the further ones of the other languages
    "sil": "_!",
    "b": "B",
    "m": "m;",
    "t": "* t;",
    "d": "d;",
    "n": "n^ n_",
    "l": "l^",
    "s": "s; ss",
    "z": "z2 z;",
    "tS": "tS;",
    "S": "S;",
    "g": "Q",
    "w": "w2",
    "I": "I^",
    "j": "J^",
    "E": "E# e e-",
    "a": "a-",
    "A:": "A",
    "O:": "8 O o",
    "u:": 'u u" u#',
    "OI": "oI",
    "rr": "** R R2",
    "x": "x",
    "ts": "ts ts2",
    "dz": "dz",
    "y": "y y-",
    "Y": "W W~ Y",
    "A~": "A~",
    "O~": "O~",
    "E~": "E~",
    "ja": "ja",
    "ju": "ju",
}


def listed(table):
    """Pairs of a class and a name."""
    return [(known, name) for known, names in table.items() for name in names.split()]


def names_in(language, count):
    """The names without stress marks of all phonemes of some sentences."""
    voices = speakers("train", language)
    names = set()
    texts = itertools.islice(sentences("open", "train", 0, language), count)
    for text, voice in zip(texts, itertools.cycle(voices), strict=False):
        phonemes = speak(text, voice, np.random.default_rng(0)).phonemes
        names |= {name.lstrip("',") for _, _, name in phonemes}
    return names


def test_classes_of_other_languages_come_after_the_english_ones():
    assert PHONEMES[0] == "sil"
    assert PHONEMES[40] == "oU"
    assert PHONEMES[41:] == ("rr", "x", "ts", "dz", "y", "Y", "A~", "O~", "E~", "ja", "ju")
    assert set(LOOKS) == set(PHONEMES)


def test_no_look_was_added_as_faces_draw_a_style_for_each():
    assert len(VISEMES) == 15
    assert set(itertools.chain(*LOOKS.values())) == set(VISEMES)


@pytest.mark.parametrize(("expected", "name"), listed(ENGLISH) + listed(ABROAD))
def test_each_name_has_the_class_that_it_sounds_like(expected, name):
    assert phoneme_class(name) == phoneme_class(f"'{name}") == expected


def test_english_needs_no_class_of_the_other_languages():
    assert set(ENGLISH) <= set(PHONEMES[:41])


@needs_espeak
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_name_that_espeak_makes_is_known(language):
    listed_names = listed(ENGLISH) if language == "en" else listed(ENGLISH) + listed(ABROAD)
    count = 200 if language == "en" else 60
    assert names_in(language, count) <= {name for _, name in listed_names}


@pytest.mark.parametrize(
    ("name", "looks"),
    [
        ("B", ("closed",)),
        ("**", ("tip",)),
        ("t;", ("tip",)),
        ("m;", ("closed",)),
        ("x", ("back",)),
        ("ts2", ("hiss",)),
        ("y", ("purse",)),
        ("A~", LOOKS["a"]),
        ("O~", LOOKS["O:"]),
        ("E~", LOOKS["E"]),
        ("ju", ("smile", "purse")),
    ],
)
def test_sounds_of_other_languages_look_like_their_neighbours(name, looks):
    assert LOOKS[phoneme_class(name)] == looks
