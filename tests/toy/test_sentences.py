"""The sentences of the toy corpus."""

import hashlib
import itertools

import numpy as np
import pytest

from omni_avsr.errors import InputError
from omni_avsr.settings.shared import WORLDS
from omni_avsr.toy.sentences import SPLITS, pronounced, sentences, words


def some(world, split, seed, count=2000):
    return list(itertools.islice(sentences(world, split, seed), count))


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


def test_the_letter_a_is_not_an_article():
    assert pronounced("bin blue at a two now") == "bin blue at ay two now"
    assert pronounced("tom is as tall as a tiger") == "tom is as tall as a tiger"
