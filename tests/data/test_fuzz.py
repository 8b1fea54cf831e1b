"""Unexpected label files, texts and media are read or refused, and never crash a run.

tests/stress/fuzz.py tries a thousand times as many.
"""

import random

import av
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omni_avsr.data.manifest import read
from omni_avsr.errors import InputError
from omni_avsr.media import streams
from omni_avsr.tasks import MOUTH_SIZE, NORMALISERS
from omni_avsr.text import aligned_words, normalise, word_errors
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
    content, format = labels
    try_labels(tmp_path / "labels.csv", content, format)


@FEW
@given(st.text(), st.text(), st.sampled_from(NORMALISERS))
def test_any_text_can_be_scored(reference, hypothesis, how):
    reference = normalise(reference, how)
    hypothesis = normalise(hypothesis, how)
    assert normalise(reference, how) == reference or how == "whisper"
    expected, found = reference.split(), hypothesis.split()
    errors = word_errors(reference, hypothesis)
    assert errors.words == len(expected)
    assert errors.errors >= abs(len(expected) - len(found))
    assert (errors.errors == 0) == (expected == found)
    columns = aligned_words(reference, hypothesis)
    marks = [column.mark for column in columns if column.mark]
    assert len(marks) == errors.errors


@FEW
@given(st.lists(LINE, max_size=4))
def test_normalising_twice_is_normalising_once(lines):
    once = normalise(" ".join(lines), "13a")
    assert normalise(once, "13a") == once


@pytest.fixture
def clip(files):
    """A whole mp4 file, with a wav file next to it."""
    return read(files["train"])[0].video


@pytest.mark.parametrize("suffix", [".mp4", ".wav"])
def test_damaged_media_is_read_or_refused(clip, tmp_path, suffix):
    content = clip.with_suffix(suffix).read_bytes()
    chance = random.Random(0)
    for number in range(60):
        file = tmp_path / f"{number}{suffix}"
        file.write_bytes(damaged(content, chance))
        try_media(file)


def test_a_clip_that_ends_before_its_header_says_is_refused(clip, tmp_path):
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    copy_with_header_first(clip, whole)
    assert len(streams.read_video(whole)) == len(streams.read_video(clip))
    with av.open(str(whole)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.pos]
    middle = places[len(places) // 2]
    cut.write_bytes(whole.read_bytes()[:middle])
    with pytest.raises(InputError, match=r"cut.mp4 is damaged: \d+ of \d+ frames can be read"):
        streams.read_video(cut)


def copy_with_header_first(file, copy):
    """Copies the video stream to a file that starts with its header."""
    options = {"movflags": "faststart"}
    with av.open(str(file)) as source, av.open(str(copy), "w", options=options) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)


def all_frames(file):
    return list(streams.video_frames(file))


@pytest.mark.parametrize("look", [streams.probe, streams.read_video, all_frames])
def test_a_video_that_says_it_is_huge_is_refused_before_it_is_read(clip, monkeypatch, look):
    monkeypatch.setattr(streams, "LARGEST_FRAME", MOUTH_SIZE * MOUTH_SIZE - 1)
    with pytest.raises(InputError, match="says that its frames are larger than any video's"):
        look(clip)
