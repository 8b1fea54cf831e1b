"""What may come as a label file or as media: made at random, and what must hold for whatever it is."""

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import av
from hypothesis import strategies as st

from omni_avsr.data import manifest
from omni_avsr.media import streams as media

WORDS = st.sampled_from(
    ["lrs3", "a/b.mp4", "/x/y.mp4", "../z", "25", "-3", "1e9", "", "0", "5 7", "{ROOT}/c", "ü", '"']
)
FIELD = WORDS | st.text(max_size=12)
LINE = st.one_of(
    st.lists(FIELD, min_size=1, max_size=7).map(",".join),
    st.lists(FIELD, min_size=1, max_size=7).map("\t".join),
    st.dictionaries(st.sampled_from(["id", "audio", "video", "frames", "text", "x"]), FIELD | st.integers()).map(
        lambda row: str(row).replace("'", '"')
    ),
    st.text(max_size=40),
)
LABELS = st.lists(LINE, max_size=6).map(lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass"))
MANIFEST = st.tuples(LABELS | st.binary(max_size=200), st.sampled_from([None, *manifest.FORMATS]))


def try_labels(file: Path, content: bytes, format: str | None) -> None:
    """A label file is read, or refused in one sentence."""
    file.write_bytes(content)
    with suppress(ValueError):
        clips = manifest.read(file, format=format)
        assert clips
        assert all(isinstance(clip.text, str) and clip.frames >= 0 for clip in clips)


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Bytes flipped, cut off, or blocks of them in another order."""
    data = bytearray(content)
    kind = chance.choice(["flipped", "cut", "reordered", "header"])
    if kind == "cut":
        return bytes(data[: chance.randrange(len(data))])
    if kind == "reordered":
        size = chance.randrange(1, len(data) // 2)
        a, b = (chance.randrange(len(data) - size) for _ in range(2))
        data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]
        return bytes(data)
    reach = 64 if kind == "header" else len(data)
    for _ in range(chance.choice([1, 4, 64])):
        data[chance.randrange(reach)] = chance.randrange(256)
    return bytes(data)


def try_media(file: Path) -> None:
    """A file is read as long as it says it is, or refused in one sentence."""
    for read in (media.probe, media.read_audio, read_video, _all(media.video_frames), _all(media.audio_blocks)):
        with suppress(ValueError):
            read(file)


def read_video(file: Path) -> None:
    """A video that is read has the frames that its header announces, but for those that an edit hides."""
    frames = media.read_video(file)
    with av.open(str(file), metadata_errors="replace") as container:
        hidden = sum(packet.is_discard for packet in container.demux(video=0))
        assert len(frames) + hidden >= container.streams.video[0].frames - media.FRAMES_MISSED


def _all(stream: Callable) -> Callable[[Path], None]:
    def read(file: Path) -> None:
        for _ in stream(file):
            pass

    return read
