"""Files of any kind become 16 kHz audio and upright 25 fps video on one clock, or are refused."""

from fractions import Fraction

import av
import numpy as np
import pytest

from omni_avsr.errors import InputError
from omni_avsr.media import streams
from omni_avsr.toy import draw_mouth, lip_track, make_face
from tests.support.recordings import BRIGHTNESS, add_frames, tenths

TONE = 440  # Hz


def write_frames(path, times, size=(48, 64)):
    """Writes a video whose frame at a time is as bright as its tenths of a second."""
    with av.open(str(path), "w") as container:
        add_frames(container, times, size)
    return path


def write_tone(path, rate=16_000, layout="mono"):
    """Writes a second of a tone."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout=layout)
        add_tone(container, stream, rate, layout)
    return path


def add_tone(container, stream, rate, layout="mono", seconds=1.0, begin=0.0):
    time = np.arange(int(seconds * rate)) / rate
    tone = (10_000 * np.sin(2 * np.pi * TONE * time)).astype(np.int16)
    channels = stream.codec_context.channels
    frame = av.AudioFrame.from_ndarray(np.repeat(tone, channels)[None], format="s16", layout=layout)
    frame.sample_rate = rate
    frame.pts = round(begin * rate)
    frame.time_base = Fraction(1, rate)
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def write_both(path, times, rate, layout="mono", seconds=1.0, audio_begin=0.0):
    """Writes frames as write_frames does, and a tone that may begin late."""
    with av.open(str(path), "w") as container:
        audio = container.add_stream("flac", rate=rate, layout=layout)
        add_frames(container, times)
        add_tone(container, audio, rate, layout, seconds, audio_begin)
    return path


def read_blocks(path):
    return np.concatenate(list(streams.audio_blocks(path)))


def shown_tenths(path):
    """The tenths of a second that each frame shows."""
    frames = streams.video_frames(path, "gray")
    return np.array([frame.mean() / BRIGHTNESS for frame in frames])


@pytest.mark.parametrize("fps", [25, 50, 30, 12.5, 23.976])
def test_any_frame_rate_becomes_25_at_the_right_times(tmp_path, fps):
    times = np.arange(round(2 * fps)) / fps
    shown = shown_tenths(write_frames(tmp_path / "x.mkv", times))
    assert abs(len(shown) - 50) <= 1
    expected = []
    for index in range(len(shown)):
        begun = times[times <= (index + 0.5) / 25 + 1e-3]
        expected.append(tenths(begun[-1]))
    errors = np.abs(shown - expected)
    assert errors.max() < 1.2  # rounding to milliseconds may move a change by one frame
    assert np.median(errors) < 0.3


def test_a_variable_frame_rate_is_followed(tmp_path):
    times = [0, 0.04, 0.08, 0.5, 0.54, 0.9, 1.3]
    shown = shown_tenths(write_frames(tmp_path / "x.mkv", times))
    assert np.abs(shown[3:11]).max() < 0.5  # held from 0.08 s to 0.5 s
    assert np.abs(shown[14:22] - 5).max() < 0.5
    assert np.abs(shown[23:32] - 9).max() < 0.5


def test_a_sound_that_begins_late_is_late(tmp_path):
    times = np.arange(25) / 25
    file = write_both(tmp_path / "x.mkv", times, rate=16_000, seconds=0.5, audio_begin=0.4)
    loud = np.flatnonzero(np.abs(read_blocks(file)) > 0.01)
    assert loud[0] == pytest.approx(0.4 * 16_000, abs=100)


@pytest.mark.parametrize(
    ("rate", "layout"),
    [
        (8_000, "mono"),
        (96_000, "stereo"),
        (44_100, "stereo"),
        (48_000, "7.1"),
        (16_000, "mono"),
    ],
)
def test_any_sound_becomes_mono_at_16_khz(tmp_path, rate, layout):
    file = write_tone(tmp_path / "ein Ton mit ü.wav", rate, layout)
    audio = read_blocks(file)
    assert len(audio) == pytest.approx(16_000, abs=50)
    assert np.array_equal(audio, streams.read_audio(file))
    loudest = np.abs(np.fft.rfft(audio[:15_900])).argmax() * 16_000 / 15_900
    assert loudest == pytest.approx(TONE, abs=2)
    assert np.abs(audio).max() > 0.1


@pytest.mark.parametrize("clockwise", [90, 180, 270])
def test_a_rotation_flag_is_honoured(tmp_path, clockwise):
    upright = np.zeros((48, 64), np.uint8)
    upright[:10, :20] = 200  # a mark in the upper left corner
    stored = np.rot90(upright, clockwise // 90)
    streams.write_video(tmp_path / "x.mp4", np.repeat(stored[None], 3, 0))
    set_rotation(tmp_path / "x.mp4", clockwise)
    frame = next(iter(streams.video_frames(tmp_path / "x.mp4", "gray")))
    assert frame.shape == upright.shape
    assert np.abs(frame.astype(int) - upright).mean() < 5


def set_rotation(path, clockwise):
    """Writes the rotation into the track header, as phones do."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 40
    a, b = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[clockwise]
    matrix = [a, b, 0, -b, a, 0, 0, 0]
    numbers = [value << 16 for value in matrix] + [1 << 30]
    field = b"".join(number.to_bytes(4, "big", signed=True) for number in numbers)
    content[place : place + len(field)] = field
    path.write_bytes(content)


def test_a_probe_returns_what_the_header_says(tmp_path):
    times = np.arange(50) / 25
    probe = streams.probe(write_both(tmp_path / "x.mkv", times, 8_000, "stereo", seconds=2))
    assert (probe.size, probe.sample_rate, probe.channels) == ((48, 64), 8_000, 2)
    assert probe.seconds == pytest.approx(2, abs=0.1)
    assert streams.count_frames(tmp_path / "missing.mp4") == 0


def test_frames_are_counted_where_the_header_announces_no_length(tmp_path):
    file = tmp_path / "live.mkv"
    with av.open(str(file), "w", options={"live": "1"}) as container:
        add_frames(container, np.arange(0, 2, 0.04))
    assert streams.probe(file).seconds == 0
    assert streams.count_frames(file) == pytest.approx(50, abs=1)


def test_sound_is_cut_into_frames_whatever_its_blocks():
    sound = np.arange(3000, dtype=np.float32)
    frames = list(streams.frames_of_sound([sound[:100], sound[100:2000], sound[2000:]]))
    assert [len(frame) for frame in frames] == [640] * 5
    joined = np.concatenate(frames)
    assert np.array_equal(joined[:3000], sound)
    assert joined[3000:].sum() == 0


def test_a_video_is_written_to_the_same_bytes_wherever_its_frames_lie_in_memory(tmp_path):
    rng = np.random.default_rng(5)
    face = make_face(rng)
    phonemes = [(0.2 * i, 0.2 * i + 0.2, "a" if i % 2 else "m") for i in range(6)]
    frames = draw_mouth(lip_track(phonemes, 30, face, rng), face, rng)
    written = set()
    held = []
    for _ in range(30):
        held.append(np.empty(rng.integers(100, 100_000), np.uint8))  # moves what comes next
        held = held[len(held) % 3 :]
        streams.write_video(tmp_path / "x.mp4", frames)
        written.add((tmp_path / "x.mp4").read_bytes())
    assert len(written) == 1


READERS = [
    streams.read_video,
    streams.read_audio,
    streams.probe,
    lambda path: list(streams.video_frames(path)),
]


@pytest.mark.parametrize("kind", ["empty", "text", "truncated", "missing", "folder"])
def test_a_bad_file_is_one_sentence_that_names_it(tmp_path, kind):
    file = tmp_path / "bad file ü.mp4"
    if kind == "empty":
        file.touch()
    elif kind == "text":
        file.write_text("this is no video\n" * 50)
    elif kind == "truncated":
        streams.write_video(file, np.zeros((20, 96, 96), np.uint8))
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
    elif kind == "folder":
        file.mkdir()
    for read in READERS:
        with pytest.raises(InputError, match=r"bad file ü\.mp4 (cannot be read|has )") as refused:
            read(file)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["a:b.wav", "concat:a.wav", "http:a.wav", "file:a.wav"])
def test_a_name_with_a_colon_is_a_file_and_no_protocol(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_tone(tmp_path / "a.wav", rate=8000).rename(name)
    assert len(streams.read_audio(name)) == 16_000
    assert streams.probe(name).sample_rate == 8000


def test_a_missing_stream_is_named(tmp_path):
    write_tone(tmp_path / "x.wav")
    with pytest.raises(InputError, match=r"x\.wav has no video stream"):
        list(streams.video_frames(tmp_path / "x.wav"))
    streams.write_video(tmp_path / "x.mp4", np.zeros((1, 96, 96), np.uint8))
    with pytest.raises(InputError, match=r"x\.mp4 has no audio stream"):
        list(streams.audio_blocks(tmp_path / "x.mp4"))
    assert len(list(streams.video_frames(tmp_path / "x.mp4"))) == 1


@pytest.mark.parametrize("kind", ["yuv420p", "yuvj420p", "yuv444p", "rgb24"])
def test_frames_are_as_grey_as_ffmpeg_makes_them(tmp_path, kind):
    file = tmp_path / "a.mkv"
    pixels = np.arange(256, dtype=np.uint8).repeat(96).reshape(128, 192)
    codec = "libx264rgb" if kind == "rgb24" else "libx264"
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"qp": "0"})
        stream.height, stream.width = pixels.shape
        stream.pix_fmt = kind
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="gray")))
        container.mux(stream.encode(None))
    with av.open(str(file)) as container:
        expected = next(container.decode(video=0)).to_ndarray(format="gray")
    assert len(np.unique(expected)) > 200
    np.testing.assert_array_equal(streams.read_video(file)[0], expected)
    np.testing.assert_array_equal(next(streams.video_frames(file, "gray")), expected)


def test_a_gap_in_the_sound_is_silence(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for second in (0, 5):
            samples = np.full((1, 16_000), 8000, np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate = 16_000
            frame.pts = second * 16_000
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    sound = read_blocks(tmp_path / "a.mkv")
    assert len(sound) == 6 * 16_000
    assert not sound[16_000 : 5 * 16_000].any()
    assert sound[5 * 16_000 :].all()


def test_sound_in_a_video_is_heard_when_it_was_written(tmp_path):
    noise = np.random.default_rng(0).integers(-9000, 9000, 8000).astype(np.int16)
    sound = np.concatenate([np.zeros(16_000, np.int16), noise])
    streams.write_video(tmp_path / "a.mp4", np.zeros((37, 96, 96), np.uint8), sound)
    heard = streams.read_audio(tmp_path / "a.mp4")
    late = np.argmax(np.correlate(heard, noise.astype(np.float32), "valid")) - 16_000
    assert abs(late) <= 16  # a millisecond


def test_a_file_that_is_cut_off_is_read_to_its_end_and_then_refused(tmp_path):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (100, 96, 96), np.uint8)
    audio = rng.integers(-9000, 9000, 64_000).astype(np.int16)
    streams.write_video(tmp_path / "a.mp4", frames, audio)
    move_header_to_front(tmp_path / "a.mp4", tmp_path / "b.mp4")
    content = (tmp_path / "b.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(content[: len(content) // 2])
    refusal = r"b\.mp4 (is cut off: it ends after .* of 4|cannot be read)"
    for read in (streams.audio_blocks, streams.video_frames):
        pieces = []
        with pytest.raises(InputError, match=refusal):
            pieces.extend(read(tmp_path / "b.mp4"))
        assert pieces


def move_header_to_front(source, target):
    """Copies an mp4 file so that its start can be read without its end."""
    options = {"movflags": "faststart"}
    with av.open(str(source)) as old, av.open(str(target), "w", options=options) as new:
        copies = {stream: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = copies[packet.stream]
                new.mux(packet)


def write_tracks(path, loudnesses):
    """Writes a second of noise per audio track, as loud as its number says."""
    rng = np.random.default_rng(6)
    with av.open(str(path), "w") as container:
        outputs = [
            container.add_stream("pcm_s16le", rate=16_000, layout="mono") for _ in loudnesses
        ]
        for stream, loudness in zip(outputs, loudnesses, strict=True):
            samples = (loudness * rng.uniform(-1, 1, (1, 16_000))).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate = 16_000
            container.mux(stream.encode(frame))
    return path


def test_of_several_audio_tracks_the_first_that_is_not_silent_is_read(tmp_path):
    file = write_tracks(tmp_path / "x.mkv", [0, 3000, 9000])
    for read in (streams.read_audio, lambda *args: np.concatenate([*streams.audio_blocks(*args)])):
        peaks = [round(np.abs(read(file, track)).max() * 32768, -3) for track in (None, 1, 2, 3)]
        assert peaks == [3000, 0, 3000, 9000]
        with pytest.raises(InputError, match=r"x\.mkv has 3 audio tracks, there is no track 4"):
            read(file, 4)
    silent = write_tracks(tmp_path / "silent.mkv", [0, 0])
    assert not streams.read_audio(silent).any()
