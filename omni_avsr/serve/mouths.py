"""The mouths that the model has seen, as a picture that a page can show."""

import base64

import cv2
import numpy as np

from omni_avsr.decode.windows import Window
from omni_avsr.tasks import MOUTH_SIZE, VIDEO_FPS, Row

QUALITY = 70  # of the JPEG, in percent
LONGEST = 60 * VIDEO_FPS  # frames of a picture


def seen_in(window: Window) -> Row | None:
    """The mouths of a window, a second a row, and where in the video each of them was.

    The places are middles and sides in pixels; a mouth clip has none. After a minute no more are
    shown.
    """
    if window.video is None:
        return None
    mouths = window.video[:LONGEST]
    seconds = -(-len(mouths) // VIDEO_FPS)
    cells = np.zeros((seconds * VIDEO_FPS, MOUTH_SIZE, MOUTH_SIZE), np.uint8)
    cells[: len(mouths)] = mouths
    rows = cells.reshape(seconds, VIDEO_FPS, MOUTH_SIZE, MOUTH_SIZE).swapaxes(1, 2)
    sheet = rows.reshape(seconds * MOUTH_SIZE, VIDEO_FPS * MOUTH_SIZE)
    _, content = cv2.imencode(".jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    picture = base64.b64encode(content.tobytes()).decode()
    squares = [] if window.squares is None else window.squares.round(1).tolist()
    return {
        "picture": f"data:image/jpeg;base64,{picture}",
        "frames": len(mouths),
        "squares": squares[: len(mouths)],
    }
