"""The file of word times is read as it is written, by the ids of the label file."""

from omni_avsr.data import manifest
from omni_avsr.toy.words import Word, times_path, times_row, word_times

WORDS = [Word(0.25, 0.5, "тёмной"), Word(0.5, 0.75, "l'école")]
JOINED = [Word(0.25, None, "in"), Word(None, None, "the"), Word(0.5, 0.875, "house")]


def test_word_times_are_found_by_the_ids_of_the_label_file(tmp_path):
    labels = tmp_path / "labels" / "toy_test_transcript_lengths_seg16s.csv"
    labels.parent.mkdir()
    videos = [f"toy_video_seg16s/test/t00/open_test_{index:06d}.mp4" for index in range(2)]
    labels.write_text("".join(f"toy,{video},25,0,тёмной l'école\n" for video in videos))
    written = [times_row(videos[0], WORDS), times_row(videos[1], JOINED)]
    times_path(labels).write_text("".join(written))
    first, second = [clip.id for clip in manifest.read(labels)]
    assert word_times(labels) == {first: WORDS, second: JOINED}
