"""Settings of runs that are smaller than the other tests' ones, and a run that many tests read."""

from dataclasses import replace

import pytest

from omni_avsr.train.fit import fit
from tests.support.corpus import write_split
from tests.support.small_llm import TARGETS, write_small_llm


@pytest.fixture(scope="session")
def small_settings(small_settings, tmp_path_factory, tokenizer_file):
    """Settings with twelve training clips and a language model of two layers."""
    clips = write_split(tmp_path_factory.mktemp("clips"), "train", 12, seed=7)
    llm = write_small_llm(tmp_path_factory.mktemp("llm"), tokenizer_file)
    return replace(small_settings, data=clips, llm=str(llm), lora_targets=TARGETS)


@pytest.fixture(scope="session")
def trained(small_settings, tmp_path_factory):
    """The folder of a finished run of two steps with these settings."""
    run = tmp_path_factory.mktemp("trained") / "run"
    fit(replace(small_settings, out=run))
    return run
