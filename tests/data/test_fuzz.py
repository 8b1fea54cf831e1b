"""Label files, texts and media that nobody thought of are read or refused, never the end of a run.

tests/stress/fuzz.py tries a thousand times as many.
"""

import random

import av
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omni_avsr.data.manifest import read
from omni_avsr.media import streams as media
from omni_avsr.tasks import NORMALISERS
from omni_avsr.text import alignment, normalise, word_errors
from tests.support.fuzzing import LINE, MANIFEST, damaged, try_labels, try_media

FEW = settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@FEW
@given(MANIFEST)
def test_a_label_file_is_read_or_refused(tmp_path, labels):
    try_labels(tmp_path / "labels.csv", *labels)


@FEW
@given(st.text(), st.text(), st.sampled_from(NORMALISERS))
def test_any_text_can_be_scored(reference, hypothesis, how):
    reference, hypothesis = normalise(reference, how), normalise(hypothesis, how)
    assert normalise(reference, how) == reference or how == "whisper"
    errors = word_errors(reference, hypothesis)
    assert errors.words == len(reference.split())
    assert errors.errors >= abs(len(reference.split()) - len(hypothesis.split()))
    assert (errors.errors == 0) == (reference.split() == hypothesis.split())
    alignment(reference, hypothesis)


@FEW
@given(st.lists(LINE, max_size=4))
def test_normalising_twice_is_normalising_once(lines):
    once = normalise(" ".join(lines), "13a")
    assert normalise(once, "13a") == once


@pytest.mark.parametrize("suffix", [".mp4", ".wav"])
def test_damaged_media_is_read_or_refused(files, tmp_path, suffix):
    clip = read(files["train"])[0].video.with_suffix(suffix)
    content, chance = clip.read_bytes(), random.Random(0)
    for i in range(60):
        file = tmp_path / f"{i}{suffix}"
        file.write_bytes(damaged(content, chance))
        try_media(file)


def test_a_clip_that_ends_before_its_header_says_is_refused(files, tmp_path):
    clip = read(files["train"])[0].video
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    with av.open(str(clip)) as source, av.open(str(whole), "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    assert len(media.read_video(whole)) == len(media.read_video(clip))
    with av.open(str(whole)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.pos]
    cut.write_bytes(whole.read_bytes()[: places[len(places) // 2]])
    with pytest.raises(ValueError, match=r"cut.mp4 is damaged: \d+ of \d+ frames can be read"):
        media.read_video(cut)


def test_a_video_that_says_it_is_huge_is_refused_before_it_is_read(files, monkeypatch):
    monkeypatch.setattr(media, "LARGEST_FRAME", 96 * 96 - 1)
    clip = read(files["train"])[0].video
    for look in (media.probe, media.read_video, lambda path: list(media.video_frames(path))):
        with pytest.raises(ValueError, match="says that its frames are larger than any video's"):
            look(clip)
