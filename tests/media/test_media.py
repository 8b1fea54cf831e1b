"""Any sound and video as frames of ours: 16 kHz, 25 a second, upright, on one clock; bad files in one sentence."""

from fractions import Fraction

import av
import numpy as np
import pytest

from omni_avsr.media import streams as media
from omni_avsr.toy import draw_mouth, lip_track, make_face


def write(path, times=(), size=(48, 64), rate=None, layout="mono", seconds=1.0, audio_from=0.0, codec="mpeg4"):
    """A file whose video frame at time t is as bright as 8 times the whole tenth of a second, and a 440 Hz tone."""
    with av.open(str(path), "w") as container:
        video = audio = None
        if len(times):
            video = container.add_stream(codec, rate=1000)
            video.height, video.width, video.pix_fmt, video.time_base = *size, "yuv420p", Fraction(1, 1000)
            video.codec_context.time_base = Fraction(1, 1000)
        if rate:
            audio = container.add_stream("pcm_s16le" if path.suffix == ".wav" else "flac", rate=rate, layout=layout)
        for t in times:
            frame = av.VideoFrame.from_ndarray(np.full(size, 8 * int(t * 10 + 1e-6), np.uint8), format="gray")
            frame.pts, frame.time_base = round(t * 1000), Fraction(1, 1000)
            container.mux(video.encode(frame))
        if video:
            container.mux(video.encode(None))
        if rate:
            channels = audio.codec_context.channels
            clock = np.arange(int(seconds * rate)) / rate
            tone = (10_000 * np.sin(2 * np.pi * 440 * clock)).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(np.repeat(tone, channels)[None], format="s16", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, round(audio_from * rate), Fraction(1, rate)
            for piece in (*audio.encode(frame), *audio.encode(None)):
                container.mux(piece)
    return path


def brightness(path):
    return [float(frame.mean()) / 8 for frame in media.video_frames(path, "gray")]


@pytest.mark.parametrize("fps", [25, 50, 30, 12.5, 23.976])
def test_any_frame_rate_becomes_25_at_the_right_times(tmp_path, fps):
    times = np.arange(round(2 * fps)) / fps
    shown = brightness(write(tmp_path / "x.mkv", times))
    assert abs(len(shown) - 50) <= 1
    expected = [int(times[times <= (k + 0.5) / 25 + 1e-3][-1] * 10 + 1e-6) for k in range(len(shown))]
    assert np.abs(np.array(shown) - expected).max() < 1.2  # a millisecond's rounding may move a change by one frame
    assert np.median(np.abs(np.array(shown) - expected)) < 0.3


def test_a_variable_frame_rate_is_followed(tmp_path):
    times = [0, 0.04, 0.08, 0.5, 0.54, 0.9, 1.3]
    shown = np.array(brightness(write(tmp_path / "x.mkv", times)))
    assert np.abs(shown[3:11]).max() < 0.5  # held from 0.08 s to 0.5 s
    assert np.abs(shown[14:22] - 5).max() < 0.5
    assert np.abs(shown[23:32] - 9).max() < 0.5


def test_a_sound_that_begins_late_is_late(tmp_path):
    file = write(tmp_path / "x.mkv", np.arange(25) / 25, rate=16_000, seconds=0.5, audio_from=0.4)
    sound = np.concatenate(list(media.audio_blocks(file)))
    assert np.flatnonzero(np.abs(sound) > 0.01)[0] == pytest.approx(0.4 * 16_000, abs=100)


@pytest.mark.parametrize(
    ("rate", "layout"), [(8_000, "mono"), (96_000, "stereo"), (44_100, "stereo"), (48_000, "7.1"), (16_000, "mono")]
)
def test_any_sound_becomes_mono_at_16_khz(tmp_path, rate, layout):
    file = write(tmp_path / "ein Ton mit ü.wav", rate=rate, layout=layout)
    streamed = np.concatenate(list(media.audio_blocks(file)))
    assert len(streamed) == pytest.approx(16_000, abs=50)
    assert np.array_equal(streamed, media.read_audio(file))
    loudest = np.abs(np.fft.rfft(streamed[:15_900])).argmax() * 16_000 / 15_900
    assert loudest == pytest.approx(440, abs=2)
    assert np.abs(streamed).max() > 0.1


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_rotation_flag_is_honoured(tmp_path, turn):
    upright = np.zeros((48, 64), np.uint8)
    upright[:10, :20] = 200  # a mark in the upper left corner
    stored = np.rot90(upright, turn // 90)  # to be turned clockwise by `turn` for display
    media.write_video(tmp_path / "x.mp4", np.repeat(stored[None], 3, 0))
    rotate(tmp_path / "x.mp4", turn)
    frame = next(iter(media.video_frames(tmp_path / "x.mp4", "gray")))
    assert frame.shape == upright.shape
    assert np.abs(frame.astype(int) - upright).mean() < 5


def rotate(path, clockwise):
    """Writes the rotation into the track header, as phones do."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 40
    a, b = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[clockwise]
    matrix = [a, b, 0, -b, a, 0, 0, 0]
    numbers = [round(value * 65536) for value in matrix] + [1 << 30]
    content[place : place + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in numbers)
    path.write_bytes(content)


def test_a_probe_says_what_the_header_says(tmp_path):
    probe = media.probe(write(tmp_path / "x.mkv", np.arange(50) / 25, rate=8_000, layout="stereo", seconds=2))
    assert (probe.size, probe.sample_rate, probe.channels) == ((48, 64), 8_000, 2)
    assert probe.seconds == pytest.approx(2, abs=0.1)
    assert media.count_frames(tmp_path / "missing.mp4") == 0


def test_sound_is_cut_into_frames_whatever_its_blocks():
    sound = np.arange(3000, dtype=np.float32)
    frames = list(media.frames_of_sound([sound[:100], sound[100:2000], sound[2000:]]))
    assert [len(frame) for frame in frames] == [640] * 5
    assert np.array_equal(np.concatenate(frames)[:3000], sound)
    assert np.concatenate(frames)[3000:].sum() == 0


def test_a_video_is_written_to_the_same_bytes_wherever_its_frames_lie_in_memory(tmp_path):
    rng = np.random.default_rng(5)
    face = make_face(rng)
    phonemes = [(0.2 * i, 0.2 * i + 0.2, "a" if i % 2 else "m") for i in range(6)]
    frames = draw_mouth(lip_track(phonemes, 30, face, rng), face, rng)
    written, held = set(), []
    for _ in range(30):
        held.append(np.empty(rng.integers(100, 100_000), np.uint8))  # moves what is allocated next
        held = held[len(held) % 3 :]
        media.write_video(tmp_path / "x.mp4", frames)
        written.add((tmp_path / "x.mp4").read_bytes())
    assert len(written) == 1


@pytest.mark.parametrize("kind", ["empty", "text", "truncated", "missing", "folder"])
def test_a_bad_file_is_one_sentence_that_names_it(tmp_path, kind):
    file = tmp_path / "bad file ü.mp4"
    if kind == "folder":
        file.mkdir()
    elif kind == "truncated":
        media.write_video(file, np.zeros((20, 96, 96), np.uint8))
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif kind != "missing":
        file.write_text("" if kind == "empty" else "this is no video\n" * 50)
    for read in (media.read_video, media.read_audio, lambda path: list(media.video_frames(path)), media.probe):
        with pytest.raises(ValueError, match=r"bad file ü\.mp4 (cannot be read|has )") as refused:
            read(file)
        assert "\n" not in str(refused.value)


def test_a_missing_stream_is_named(tmp_path):
    file = write(tmp_path / "x.wav", rate=16_000)
    with pytest.raises(ValueError, match=r"x\.wav has no video stream"):
        list(media.video_frames(file))
    media.write_video(tmp_path / "x.mp4", np.zeros((1, 96, 96), np.uint8))
    with pytest.raises(ValueError, match=r"x\.mp4 has no audio stream"):
        list(media.audio_blocks(tmp_path / "x.mp4"))
    assert len(list(media.video_frames(tmp_path / "x.mp4"))) == 1


@pytest.mark.parametrize("kind", ["yuv420p", "yuvj420p", "yuv444p", "rgb24"])
def test_frames_are_as_grey_as_ffmpeg_makes_them(tmp_path, kind):
    pixels = np.arange(256, dtype=np.uint8).repeat(96).reshape(128, 192)
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        codec, own = ("libx264rgb", "rgb24") if kind == "rgb24" else ("libx264", kind)
        stream = container.add_stream(codec, rate=25, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = 128, 192, own
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="gray")))
        container.mux(stream.encode(None))
    with av.open(str(tmp_path / "a.mkv")) as container:
        expected = next(container.decode(video=0)).to_ndarray(format="gray")
    assert len(np.unique(expected)) > 200
    np.testing.assert_array_equal(media.read_video(tmp_path / "a.mkv")[0], expected)
    np.testing.assert_array_equal(next(media.video_frames(tmp_path / "a.mkv", "gray")), expected)


def test_a_gap_in_the_sound_stays_one(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for second in (0, 5):
            frame = av.AudioFrame.from_ndarray(np.full((1, 16_000), 8000, np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts = 16_000, second * 16_000
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    sound = np.concatenate(list(media.audio_blocks(tmp_path / "a.mkv")))
    assert len(sound) == 6 * 16_000
    assert not sound[16_000 : 5 * 16_000].any()
    assert sound[5 * 16_000 :].all()


def test_a_file_that_is_cut_off_is_read_to_its_end_and_then_refused(tmp_path):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (100, 96, 96), np.uint8)
    media.write_video(tmp_path / "a.mp4", frames, rng.integers(-9000, 9000, 64_000).astype(np.int16))
    with av.open(str(tmp_path / "a.mp4")) as whole:
        options = {"movflags": "faststart"}
        with av.open(str(tmp_path / "b.mp4"), "w", options=options) as moved:
            streams = {stream: moved.add_stream_from_template(stream) for stream in whole.streams}
            for packet in whole.demux():
                if packet.dts is not None:
                    packet.stream = streams[packet.stream]
                    moved.mux(packet)
    content = (tmp_path / "b.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(content[: len(content) // 2])
    for read in (media.audio_blocks, media.video_frames):
        pieces = []
        with pytest.raises(ValueError, match=r"b\.mp4 (is cut off: it ends after .* of 4|cannot be read)"):
            pieces.extend(read(tmp_path / "b.mp4"))
        assert pieces
