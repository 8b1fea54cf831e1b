"""What `omni-avsr live` does: plays a file and shows captions as they settle."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.live import Live as Screen
from rich.text import Text

from omni_avsr.choice import chosen_model
from omni_avsr.cli.terminal import name_model, note
from omni_avsr.decode.live import Caption, Live, played
from omni_avsr.errors import InputError
from omni_avsr.media.devices import Pieces, recorded
from omni_avsr.settings import LiveSettings


def run(settings: LiveSettings, file: Path | None) -> None:
    """Shows the captions of a file, or of what is said here, until it ends."""
    if settings.records == (file is not None):
        raise InputError("name a file to play, or --mic or --camera to record")
    model = chosen_model(settings.checkpoint)
    name_model(model)
    live = Live(**{**vars(settings), "checkpoint": model, "task": settings.recorded_task})
    captions = _captions(live, settings, file)
    if settings.format == "jsonl":
        for caption in captions:
            print(json.dumps(asdict(caption), ensure_ascii=False), flush=True)
    else:
        _show(captions)


def _captions(live: Live, settings: LiveSettings, file: Path | None) -> Iterator[Caption]:
    """The captions of a file or a recording; Ctrl-C ends a recording."""
    problem = None
    try:
        for sound, pictures in _pieces(live, settings, file):
            yield from live.feed(sound, pictures)
    except KeyboardInterrupt:
        if not settings.records:
            raise
    except InputError as error:  # of a damaged file, after all that can be read
        problem = error
    yield from live.finish()
    for text in live.notes:
        note(f"{file or 'the recording'}: {text}")
    if problem:
        raise problem


def _pieces(live: Live, settings: LiveSettings, file: Path | None) -> Pieces:
    """What is recorded, or a file as fast as it plays, unless it is to be fast."""
    if file is None:
        yield from recorded(settings.mic, settings.camera)
        return
    started = time.monotonic()
    for piece in played(file, settings.audio_track):
        yield piece
        if not settings.fast:
            time.sleep(max(0.0, started + live.until - time.monotonic()))


def _show(captions: Iterator[Caption]) -> None:
    """Prints a line for each stretch of speech; a terminal shows the words while they come."""
    console = Console(soft_wrap=True, emoji=False, highlight=False)
    words: list[str] = []
    begin = 0.0
    with Screen(console=console, auto_refresh=False, transient=True) as screen:
        for caption in captions:
            if caption.words and not words:
                begin = caption.words[0].start
            words += [word.word for word in caption.words]
            line = Text(" ".join(words))
            if caption.ended:
                console.print(Text.assemble((f"{_clock(begin)}  ", "dim"), line))
                words = []
                line = Text()
            elif caption.tentative:
                line.append(" " + " ".join(word.word for word in caption.tentative), "dim")
            if console.is_terminal:
                screen.update(line, refresh=True)


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}"
