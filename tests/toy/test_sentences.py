"""The sentences of the toy corpus."""

# ruff: noqa: RUF001 (some Russian words look like Latin letters)

import hashlib
import itertools
import re

import numpy as np
import pytest

from omni_avsr.errors import InputError
from omni_avsr.settings.shared import LANGUAGES, MULTI, WORLDS
from omni_avsr.toy.sentences import SPLITS, multi_sentences, pronounced, sentences, words

ABROAD = [language for language in LANGUAGES if language != "en"]
LETTERS = {
    "es": "a-záéíóúñ",
    "fr": "a-zàâçéèêëîïôùûœ",
    "it": "a-zàèéìòù",
    "ru": "а-яё",
}
MISTAKES = {  # what a teacher would mark
    "es": [
        r"\b(de|a) el\b",
        r"\b(el|un|este|nuestro) \w+a (blanca|negra|roja|nueva|vieja|cansada)\b",
        r"\b(la|una|esta|nuestra) \w+ (blanco|negro|rojo|nuevo|viejo|cansado)\b",
    ],
    "fr": [
        r"\b(de|à) les?\b",
        r"\b(le|la|de|ne|que|ce|ma|ta|sa|si) [aeiouéèêœ]",
        r"\b(le|un|mon|cet?) \w+ (verte|blanche|grise|ronde|lourde|contente)\b",
        r"\b(la|une|ma|cette) \w+ (vert|blanc|gris|rond|lourd|content)\b",
    ],
    "it": [
        r"\b(di|in|a|da|su) (il|lo|la|l')",
        r"\b(il|lo|la|una|questo|questa) [aeiou]",
        r"\b(il|un) (s[ctp]|z)",
        r"\b(lo|uno) [^sz]",
        r"\b(la|una) \w+ (rosso|nero|nuovo|rotto|stanco)\b",
        r"\b(il|un) \w+ (rossa|nera|nuova|rotta|stanca)\b",
    ],
    "ru": [
        r"\b(пять|шесть|семь|десять|сто) \w+[ыиа]\b",
        r"\b(два|две|три|четыре) \w+(ов|ей|ок)\b",
        r"\bдва (книги|лампы|недели|минуты)|\bдве (стола|ключа|часа|дня)",
        r"\b(красный|новый|старый|добрый) \w+[ая]\b",
        r"\b(красная|новая|старая|добрая) \w+[^ая ]\b",
        r"\b(анна|мария|ольга|елена|наташа) (\w+о )?\w+л\b",
        r"\b(иван|борис|андрей|михаил) (\w+о )?\w+ла\b",
        r"\bнет \w+(ый|ая|ую)\b",
    ],
}


def some(world, split, seed, count=2000, language="en"):
    return list(itertools.islice(sentences(world, split, seed, language), count))


def parts(text):
    """The words, of which l'arbre is two."""
    return text.replace("'", "' ").split()


@pytest.fixture(scope="module", params=ABROAD)
def abroad(request):
    """A language, and sentences in it."""
    return request.param, some("open", "train", 0, 5000, request.param)


@pytest.mark.parametrize("world", WORLDS)
def test_splits_share_no_sentence_whatever_the_seeds(world):
    sets = [set(some(world, split, seed, 600)) for seed, split in enumerate(SPLITS)]
    assert len(set.union(*sets)) == 1800


@pytest.mark.parametrize("world", WORLDS)
def test_a_stream_repeats_nothing_and_depends_on_its_seed_only(world):
    texts = some(world, "train", 3)
    assert len(set(texts)) == len(texts) == 2000
    assert texts == some(world, "train", 3)
    assert texts != some(world, "train", 4)


def test_sentences_are_those_of_this_generator_version():
    texts = some("mixed", "train", 7, 3000)
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    assert digest.startswith("4e2f5cebcf7e9cc4")  # if it changes, raise GENERATOR_VERSION


def test_the_grid_has_64000_commands():
    assert sum(len(list(sentences("grid", split, 0))) for split in SPLITS) == 64_000


def test_the_open_world_has_500_words_and_sentences_of_4_to_12():
    texts = [text.split() for text in some("open", "train", 0, 20_000)]
    vocabulary = words("open")
    assert set(itertools.chain(*texts)) == set(vocabulary)
    assert len(vocabulary) >= 500
    assert {len(text) for text in texts} == set(range(4, 13))
    assert all(word.isascii() and word.isalpha() and word.islower() for word in words("mixed"))


def test_other_languages_have_300_words_and_sentences_of_4_to_12(abroad):
    language, texts = abroad
    vocabulary = words("open", language)
    assert set(itertools.chain(*map(parts, texts))) == set(vocabulary)
    assert len(vocabulary) >= 300
    assert {len(text.split()) for text in texts} >= set(range(5, 12))
    assert all(4 <= len(text.split()) <= 12 for text in texts)


def test_other_languages_are_spelt_with_their_letters(abroad):
    language, texts = abroad
    spelling = re.compile(rf"[{LETTERS[language]}]+('[{LETTERS[language]}]+)?")
    assert all(spelling.fullmatch(word) for text in texts for word in text.split())
    special = set("".join(texts)) - set("abcdefghijklmnopqrstuvwxyz' ")
    assert len(special) >= 4


def test_articles_endings_and_cases_agree(abroad):
    language, texts = abroad
    for mistake in MISTAKES[language]:
        marked = [text for text in texts if re.search(mistake, text)]
        assert marked == [], mistake


def test_splits_of_a_language_share_no_sentence_and_depend_on_their_seed_only(abroad):
    language, texts = abroad
    assert len(set(texts)) == len(texts)
    assert some("open", "train", 0, 200, language) == texts[:200]
    assert some("open", "train", 1, 200, language) != texts[:200]
    others = some("open", "test", 1, 200, language) + some("open", "valid", 2, 200, language)
    assert len(set(others)) == 400
    assert not set(others) & set(texts)


def test_languages_take_turns_with_their_own_sentences():
    turns = list(itertools.islice(multi_sentences("valid", 3), 20))
    assert [language for language, _ in turns] == [*LANGUAGES] * 4
    for language in LANGUAGES:
        own = [text for spoken, text in turns if spoken == language]
        assert own == some("open", "valid", 3, 4, language)
    assert set(words("open", MULTI)) >= {"an", "hermano", "l'", "книга"}


def test_half_of_the_mixed_world_is_commands():
    grid = set(words("grid"))
    texts = [text.split() for text in some("mixed", "test", 0, 400)]
    is_command = [len(text) == 6 and set(text) <= grid for text in texts]
    assert 0.4 < np.mean(is_command) < 0.6


def test_an_unknown_world_or_split_is_refused_with_those_that_exist():
    with pytest.raises(InputError, match="available: grid, open, mixed"):
        sentences("lrs3", "train", 0)
    with pytest.raises(InputError, match="available: train, valid, test"):
        sentences("grid", "dev", 0)


def test_a_language_is_refused_if_unknown_or_not_of_this_world_or_several():
    with pytest.raises(InputError, match="available: en, es, fr, it, ru, multi"):
        sentences("open", "train", 0, "de")
    with pytest.raises(InputError, match="the grid world is in English, not in 'es'"):
        sentences("grid", "train", 0, "es")
    with pytest.raises(InputError, match="the mixed world is in English"):
        words("mixed", MULTI)
    with pytest.raises(InputError, match="multi is several languages"):
        sentences("open", "train", 0, MULTI)


def test_the_letter_a_is_not_an_article():
    assert pronounced("bin blue at a two now") == "bin blue at ay two now"
    assert pronounced("tom is as tall as a tiger") == "tom is as tall as a tiger"


def test_nothing_is_respelt_in_other_languages(abroad):
    _, texts = abroad
    assert [pronounced(text) for text in texts] == texts
    assert pronounced("marie a six livres") == "marie a six livres"
