"""What a file holds is read as far as possible; what is wrong with it is said at the end."""

import cv2
import numpy as np
import pytest

from omni_avsr.decode.contents import look, windows_of
from omni_avsr.decode.windows import moments, windows
from omni_avsr.errors import InputError
from omni_avsr.media import faces, streams
from omni_avsr.media.faces import Face
from omni_avsr.settings import TranscribeSettings
from omni_avsr.tasks import Task
from tests.support.heads import moving_head
from tests.support.recordings import copy_interleaved, with_bursts

TASKS = list(Task)
PLACES = (60, 260)  # x of the middle of each person's face
HEAD = moving_head(1, 0, 0)[0] * 0.4 + np.array([-70, 30])  # around x = 0


def detect(frame):
    """The faces in a drawn frame: a person's shirt is bright where the person is there."""
    if frame.shape[0] > frame.shape[1]:
        return []
    found = []
    for x in PLACES:
        if frame[220:, x - 20 : x + 20].mean() > 150:
            points = HEAD - HEAD.mean(0) + np.array([x, 100])
            corner, size = points.min(0) - 20, np.ptp(points, axis=0) + 40
            found.append(Face(np.concatenate([corner, size]), points))
    return found


@pytest.fixture
def film(tmp_path, monkeypatch):
    """A function that writes a film in which the persons (begin, end, turns) are there and speak.

    The sound is noise wherever somebody speaks.
    """
    monkeypatch.setattr(faces, "yunet", lambda *_: detect)

    def write(name, persons, frames, seed=0):
        rng = np.random.default_rng(seed)
        video = np.full((frames, 240, 320, 3), 90, np.uint8)
        loudness = np.zeros(frames)
        for x, (begin, end, turns) in zip(PLACES, persons, strict=False):
            mouth = (HEAD - HEAD.mean(0))[3] + np.array([x, 100])
            video[begin:end, 220:, x - 30 : x + 30] = 220
            for first, last in turns:
                opening = np.repeat(rng.uniform(0, 1, (last - first) // 3 + 1), 3)[: last - first]
                loudness[first:last] = opening + 0.1
                for index in range(first, last):
                    radii = (9, 1 + int(9 * opening[index - first] * (index % 2)))
                    centre = mouth.astype(int).tolist()
                    cv2.ellipse(video[index], centre, radii, 0, 0, 360, (10, 10, 10), -1)
        sound = rng.normal(0, 3000, (frames, 640)) * loudness[:, None]
        streams.write_video(tmp_path / name, video, sound.astype(np.int16).ravel())
        return tmp_path / name

    return write


def read(file, tasks=TASKS, **options):
    """The windows of a file as (start, end, task) in whole seconds, and what is wrong with it."""
    found = []
    try:
        for window in windows_of(file, tasks, TranscribeSettings(**options)):
            found.append((round(window.start), round(window.end), window.task))
    except InputError as error:
        return found, str(error)
    return found, ""


def test_each_turn_of_a_dialogue_has_the_lips_of_its_speaker(film):
    turns = [(10, 90), (110, 190)]
    file = film("talk.mp4", [(0, 200, turns[:1]), (0, 200, turns[1:])], 200)
    first, second = windows_of(file, TASKS, TranscribeSettings())
    assert [first.task, second.task] == [Task.AVSR, Task.AVSR]
    assert motion(first.video) > 1
    assert motion(second.video) > 1
    mouth = (HEAD - HEAD.mean(0))[3] + np.array([0, 100])
    for window, x in ((first, PLACES[0]), (second, PLACES[1])):
        assert len(window.squares) == len(window.video) == window.frames
        assert window.squares[:, :2].mean(0) == pytest.approx(mouth + np.array([x, 0]), abs=2)
    one_face = list(windows_of(file, TASKS, TranscribeSettings(face=1)))
    assert min(motion(window.video) for window in one_face) < 0.5


def motion(video):
    return np.abs(np.diff(video.astype(float), axis=0)).mean()


def test_after_a_cut_the_lips_of_the_other_person_are_in_a_window_of_their_own(film):
    persons = [(0, 100, [(0, 100)]), (100, 200, [(100, 200)])]
    found, problem = read(film("cut.mp4", persons, 200))
    assert (found, problem) == ([(0, 4, Task.AVSR), (4, 8, Task.AVSR)], "")


def test_somebody_who_is_seen_for_a_second_of_a_long_film_speaks_there(film):
    frames = 1600  # of which 2 % are more than a second
    persons = [(0, 800, [(0, 50)]), (900, 930, [(904, 920)])]
    found, _ = read(film("long.mp4", persons, frames))
    assert [task for _, _, task in found] == [Task.AVSR, Task.AVSR]


def test_a_face_that_is_not_there_is_refused_with_the_number_of_those_that_are(film):
    file = film("one.mp4", [(0, 50, [(0, 50)])], 50)
    assert read(file, face=2) == ([], f"{file} has no face 2: faces found: 1")
    assert read(file, face=1)[1] == ""


def test_a_window_ends_where_another_face_begins():
    mouth = np.zeros((96, 96), np.uint8)
    stream = list(moments(np.full((75, 640), 0.1, np.float32), [mouth] * 75))
    cuts = {30}
    assert [window.frames for window in windows(stream, 16, 0.5, cuts)] == [30, 45]
    assert [window.frames for window in windows(stream, 16, 0.5)] == [75]


def test_where_nothing_is_said_there_are_no_windows_and_nothing_is_wrong(film, tmp_path):
    silent = np.zeros(50 * 640, np.int16)
    streams.write_audio(tmp_path / "silent.wav", silent)
    streams.write_video(tmp_path / "dark.mp4", np.zeros((50, 240, 320), np.uint8), silent)
    for name in ("silent.wav", "dark.mp4"):
        assert read(tmp_path / name) == ([], "")
        assert read(tmp_path / name, task="asr") == ([], "")
    assert read(tmp_path / "dark.mp4", task="avsr") == ([], "")
    assert "dark.mp4 lacks a face for vsr" in read(tmp_path / "dark.mp4", task="vsr")[1]


def test_a_file_with_neither_sound_nor_video_is_refused(tmp_path):
    (tmp_path / "x.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n\n")
    with pytest.raises(InputError, match=r"x\.srt (has neither sound nor video|cannot be read)"):
        look(tmp_path / "x.srt", TASKS, TranscribeSettings())


@pytest.fixture
def damaged(film, tmp_path):
    """A film of eight seconds of speech with a damaged middle."""
    file = film("whole.mp4", [(0, 200, [(0, 200)])], 200)
    copy_interleaved(file, tmp_path / "front.mp4", {"movflags": "faststart"})
    content = (tmp_path / "front.mp4").read_bytes()
    (tmp_path / "damaged.mp4").write_bytes(with_bursts(content, 1, 2, 0.4, 0.6))
    return tmp_path / "damaged.mp4"


def test_all_windows_of_a_damaged_file_come_before_its_error(damaged):
    found, problem = read(damaged)
    assert found[-1][1] == 8
    assert sum(end - start for start, end, _ in found) > 7
    assert "damaged.mp4 is damaged: of its" in problem


def test_a_picture_that_cannot_be_read_does_not_end_the_sound(damaged, monkeypatch):
    def broken(file, colour="bgr24"):
        yield from list(whole(file, colour))[:60]
        raise InputError("the picture is damaged")

    whole = streams.video_frames
    monkeypatch.setattr(streams, "video_frames", broken)
    found, problem = read(damaged.with_name("whole.mp4"))
    assert found[0][2] is Task.AVSR
    assert found[-1][1:] == (8, Task.ASR)
    assert problem == "the picture is damaged"


def test_a_sound_that_cannot_be_read_does_not_end_the_picture(damaged, monkeypatch):
    def broken(file, track=None):
        yield np.concatenate(list(whole(file)))[: 25 * 640]
        raise InputError("the sound is damaged")

    whole = streams.audio_blocks
    monkeypatch.setattr(streams, "audio_blocks", broken)
    contents = look(damaged.with_name("whole.mp4"), TASKS, TranscribeSettings())
    assert len(list(contents.mouths.read())) == 200
    found, problem = read(damaged.with_name("whole.mp4"))
    assert [task for _, _, task in found] == [Task.AVSR]
    assert problem == "the sound is damaged"
