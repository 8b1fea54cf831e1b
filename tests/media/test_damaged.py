"""Of a damaged file everything else is read, in step with its clock, and then it is refused."""

import random
import re
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest

from omni_avsr.errors import InputError
from omni_avsr.media import streams
from omni_avsr.tasks import SAMPLE_RATE, VIDEO_FPS
from tests.support.fuzzing import damaged, try_media
from tests.support.recordings import add_frames, copy_interleaved, with_bursts

SECONDS = 8


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A function that returns a recording of eight noisy seconds as mp4, mkv or ts."""
    folder = tmp_path_factory.mktemp("whole")
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (SECONDS * VIDEO_FPS, 24, 32), np.uint8)
    frames = frames.repeat(4, 1).repeat(4, 2)
    sound = rng.integers(-9000, 9000, SECONDS * SAMPLE_RATE).astype(np.int16)
    streams.write_video(folder / "a.mp4", frames, sound)
    copy_interleaved(folder / "a.mp4", folder / "a.ts")
    copy_interleaved(folder / "a.mp4", folder / "a.mkv", {"cluster_time_limit": "400"})
    copy_interleaved(folder / "a.mp4", folder / "front.mp4", {"movflags": "faststart"})
    return lambda name: (folder / name).read_bytes()


def read(stream):
    """What a stream yields, and why it is refused at its end."""
    pieces = []
    try:
        pieces.extend(stream)
    except InputError as error:
        return pieces, str(error)
    return pieces, ""


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_file_is_read_to_its_end(whole, tmp_path, suffix, seed):
    content = whole("front.mp4" if suffix == "mp4" else f"a.{suffix}")
    file = tmp_path / f"x.{suffix}"
    file.write_bytes(with_bursts(content, seed, bursts=10))
    frames, picture = read(streams.video_frames(file))
    blocks, sound = read(streams.audio_blocks(file))
    assert len(frames) == pytest.approx(SECONDS * VIDEO_FPS, abs=2)
    assert sum(map(len, blocks)) == pytest.approx(SECONDS * SAMPLE_RATE, abs=0.1 * SAMPLE_RATE)
    assert re.search(r"x\.\w+ (is damaged|has a gap): .* \d\.\d\d s are lost", picture + sound)


def test_what_is_lost_is_said_and_what_is_left_is_in_its_place(whole, tmp_path):
    content = bytearray(whole("front.mp4"))
    with av.open(str(write(tmp_path / "a.mp4", content))) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.pos]
    lost = packets[50:70]  # of 64 ms each
    for packet in lost:
        content[packet.pos : packet.pos + packet.size] = bytes([255]) * packet.size
    blocks, error = read(streams.audio_blocks(write(tmp_path / "b.mp4", content)))
    found = np.concatenate(blocks)
    expected = np.concatenate(list(streams.audio_blocks(tmp_path / "a.mp4")))
    assert re.search(
        r"b\.mp4 is damaged: of its sound 1\.\d+ s are lost, the first at 3\.\d s", error
    )
    assert len(found) == pytest.approx(len(expected), abs=640)
    begin, end = (
        int(packet.pts * packet.time_base * SAMPLE_RATE) for packet in lost[:: len(lost) - 1]
    )
    assert np.abs(found[begin + 2048 : end - 2048]).max() < 1e-3
    assert np.abs(found[end + 8192 :] - expected[end + 8192 : len(found)]).max() < 0.1
    frames, error = read(streams.video_frames(tmp_path / "b.mp4"))
    assert (len(frames), error) == (SECONDS * VIDEO_FPS, "")


def write(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_truncated_file_says_how_much_its_header_promised(whole, tmp_path, suffix):
    content = whole("front.mp4" if suffix == "mp4" else f"a.{suffix}")
    file = write(tmp_path / f"x.{suffix}", content[: len(content) // 2])
    for stream in (streams.video_frames(file, "gray"), streams.audio_blocks(file)):
        pieces, error = read(stream)
        assert pieces
        assert re.search(r"is cut off: it ends after [345]\.\d of 8\.\d seconds", error)


def test_what_neither_shows_nor_sounds_anything_is_a_gap(tmp_path):
    times = [t / 25 for t in range(75) if not 20 <= t < 60]
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        audio = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        add_frames(container, times)
        for begin in (0, 2.4):
            add_tone_at(container, audio, begin)
    frames, error = read(streams.video_frames(tmp_path / "a.mkv", "gray"))
    assert "has a gap: of sound and picture 1.40 s are lost, the first at 1.0 s" in error
    assert len(frames) == pytest.approx(75, abs=2)
    assert [frames[index].any() for index in (19, 43, 46, 58, 61)] == [1, 1, 0, 0, 1]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_pictures_that_are_shown_in_another_order_leave_no_gap(tmp_path, suffix):
    """A screen that was recorded at one picture a second, with B-frames."""
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 255, (48, 80), np.uint8)
    with av.open(str(tmp_path / "whole.mp4"), "w") as container:
        video = container.add_stream("libx264", rate=1, options={"threads": "1", "bf": "2"})
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        audio = container.add_stream("aac", rate=8000, layout="mono")
        for second in range(12):
            image = np.ascontiguousarray(scene[:, second : second + 64])
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="gray")))
        container.mux(video.encode(None))
        for begin in range(12):
            add_tone_at(container, audio, begin)
        container.mux(audio.encode(None))
    copy_interleaved(tmp_path / "whole.mp4", tmp_path / f"a.{suffix}")
    for stream in (streams.video_frames, streams.audio_blocks):
        pieces, error = read(stream(tmp_path / f"a.{suffix}"))
        assert pieces
        assert not error


def add_tone_at(container, stream, begin):
    tone = np.full((1, 8000), 5000, np.int16)
    frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
    frame.sample_rate = 8000
    frame.pts = round(begin * 8000)
    container.mux(stream.encode(frame))


def test_a_clip_with_damage_is_not_read_at_all(whole, tmp_path):
    file = write(tmp_path / "x.mp4", with_bursts(whole("front.mp4"), seed=1, bursts=20))
    with pytest.raises(InputError, match=r"x\.mp4 cannot be read"):
        streams.read_audio(file)


def test_a_file_of_rubbish_frames_is_refused(whole, tmp_path):
    content = bytearray(whole("front.mp4"))
    begin = content.index(b"mdat") + 4
    content[begin:] = random.Random(0).randbytes(len(content) - begin)
    file = write(tmp_path / "x.mp4", content)
    for stream in (streams.video_frames(file), streams.audio_blocks(file)):
        with pytest.raises(InputError, match=r"x\.mp4 (cannot be read|is cut off|is damaged)"):
            list(stream)


def test_some_bytes_never_make_a_file_endless(whole, tmp_path):
    for seed in range(8):
        file = write(tmp_path / "x.ts", with_bursts(whole("a.ts"), seed, bursts=40, begin=0, end=1))
        with suppress(InputError):
            frames, _ = read(streams.video_frames(file, "gray"))
            assert len(frames) < 2 * SECONDS * VIDEO_FPS


def test_a_stream_that_damage_makes_one_of_another_kind_is_read_on(tmp_path):
    clips = Path(streams.__file__).parents[1] / "serve" / "clips"
    chance = random.Random("0 243")  # whose damage does that
    content = damaged(chance.choice([f.read_bytes() for f in sorted(clips.iterdir())]), chance)
    file = tmp_path / "clip.mp4"
    file.write_bytes(content)
    try_media(file)
