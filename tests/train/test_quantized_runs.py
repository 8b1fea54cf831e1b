"""Runs whose language model is in 4 bits."""

import json
from dataclasses import replace

from omni_avsr.measure.evaluate import decode_file
from omni_avsr.settings import DecodeSettings
from omni_avsr.train.average import average
from omni_avsr.train.fit import fit
from tests.support.runs import weights_of_model


def test_a_run_in_four_bits_is_averaged_started_from_and_decoded(settings, tmp_path):
    run = replace(
        settings,
        quantize="4bit",
        audio_rates=(4,),
        video_rates=(2,),
        keep=2,
        valid_every=1,
        cache_copies=0,
        max_new_tokens=2,
    )
    fit(run)
    assert json.loads((run.out / "run.json").read_text())["settings"]["quantize"] == "4bit"
    average(run.out, 2, tmp_path / "average")
    tuned = replace(
        run,
        from_=str(tmp_path / "average"),
        max_steps=1,
        keep=0,
        valid_every=0,
        out=tmp_path / "tuned",
    )
    fit(tuned)
    assert weights_of_model(tuned.out).keys() == weights_of_model(run.out).keys()
    decoding = DecodeSettings(
        checkpoint=str(tuned.out), quantize="4bit", data=run.valid, max_new_tokens=2
    )
    (result,) = decode_file(decoding).results
    assert result.quantize == "4bit"
