"""Recordings whose content is known, and what damages them."""

import random
from fractions import Fraction

import av
import numpy as np

MILLISECOND = Fraction(1, 1000)
BRIGHTNESS = 8  # grey levels per tenth of a second
BURST = 2000  # bytes


def tenths(time):
    return int(time * 10 + 1e-6)


def add_frames(container, times, size=(48, 64)):
    stream = container.add_stream("mpeg4", rate=1000)
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p"
    stream.time_base = stream.codec_context.time_base = MILLISECOND
    for time in times:
        image = np.full(size, BRIGHTNESS * tenths(time), np.uint8)
        frame = av.VideoFrame.from_ndarray(image, format="gray")
        frame.pts = round(time * 1000)
        frame.time_base = MILLISECOND
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def copy_interleaved(source, target, options=None):
    """Copies the packets to another container, sound and picture of a time side by side."""
    with av.open(str(source)) as old, av.open(str(target), "w", options=options or {}) as new:
        copies = {stream: new.add_stream_from_template(stream) for stream in old.streams}
        packets = [packet for packet in old.demux() if packet.dts is not None]
        packets.sort(key=lambda packet: packet.dts * packet.time_base)
        for packet in packets:
            packet.stream = copies[packet.stream]
            new.mux(packet)


def with_bursts(content, seed, bursts, begin=0.2, end=0.8):
    """The content with bursts of random bytes."""
    chance = random.Random(seed)
    data = bytearray(content)
    for _ in range(bursts):
        place = int(len(data) * chance.uniform(begin, end))
        data[place : place + BURST] = chance.randbytes(BURST)
    return bytes(data)
