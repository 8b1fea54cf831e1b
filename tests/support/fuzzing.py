"""Random label files and damaged media, and what must hold for all of them."""

import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import av
from hypothesis import strategies as st

from omni_avsr.data import manifest
from omni_avsr.errors import InputError
from omni_avsr.media import streams

HEADER = 64  # bytes
WORDS = st.sampled_from(
    [
        "lrs3",
        "a/b.mp4",
        "/x/y.mp4",
        "../z",
        "25",
        "-3",
        "1e9",
        "9" * 5000,  # more digits than Python turns into a number
        "",
        "0",
        "5 7",
        "{ROOT}/c",
        "ü",
        '"',
    ]
)
FIELD = WORDS | st.text(max_size=12)
FIELDS = st.lists(FIELD, min_size=1, max_size=7)
ROW = st.dictionaries(
    st.sampled_from(["id", "audio", "video", "frames", "text", "track", "x"]), FIELD | st.integers()
)
LINE = st.one_of(
    FIELDS.map(",".join),
    FIELDS.map("\t".join),
    ROW.map(lambda row: str(row).replace("'", '"')),
    st.text(max_size=40),
)
LABELS = st.lists(LINE, max_size=6).map(
    lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass")
)
MANIFEST = st.tuples(LABELS | st.binary(max_size=200), st.sampled_from([None, *manifest.FORMATS]))


def try_labels(file: Path, content: bytes, format: str | None) -> None:
    """A label file is read, or refused with an InputError."""
    file.write_bytes(content)
    with suppress(InputError):
        clips = manifest.read(file, format=format)
        assert clips
        for clip in clips:
            assert isinstance(clip.text, str)
            assert clip.frames >= 0


def damaged(content: bytes, chance: random.Random) -> bytes:
    """The content with some bytes changed, its end cut off, or two blocks swapped."""
    kind = chance.choice(["flipped", "cut", "reordered", "header"])
    if kind == "cut":
        return content[: chance.randrange(len(content))]
    if kind == "reordered":
        return _with_blocks_swapped(content, chance)
    return _with_bytes_changed(content, HEADER if kind == "header" else len(content), chance)


def _with_blocks_swapped(content: bytes, chance: random.Random) -> bytes:
    size = chance.randrange(1, len(content) // 2)
    first = chance.randrange(len(content) - size)
    second = chance.randrange(len(content) - size)
    data = bytearray(content)
    data[first : first + size] = content[second : second + size]
    data[second : second + size] = content[first : first + size]
    return bytes(data)


def _with_bytes_changed(content: bytes, reach: int, chance: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(chance.choice([1, 4, 64])):
        data[chance.randrange(reach)] = chance.randrange(256)
    return bytes(data)


def try_media(file: Path) -> None:
    """A file is read at the length that it announces, or refused with an InputError."""
    readers = (
        streams.probe,
        streams.read_audio,
        read_video,
        exhausting(streams.video_frames),
        exhausting(streams.audio_blocks),
    )
    for read in readers:
        with suppress(InputError):
            read(file)


def read_video(file: Path) -> None:
    """A video that is read has the frames that its header announces, except hidden ones."""
    frames = streams.read_video(file)
    with av.open(str(file), metadata_errors="replace") as container:
        announced = container.streams.video[0].frames
        hidden = sum(packet.is_discard for packet in container.demux(video=0))  # by an edit
    assert len(frames) + hidden >= announced - streams.FRAMES_MISSED


def exhausting(stream: Callable[[Path], Iterable]) -> Callable[[Path], None]:
    """A function that reads all that a stream gives."""

    def read(file: Path) -> None:
        for _ in stream(file):
            pass

    return read
