"""Reads an upload in a process of its own, so that a hostile file takes nobody else with it."""

import multiprocessing
import resource
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from omni_avsr.decode.contents import windows_of
from omni_avsr.decode.windows import Window
from omni_avsr.errors import InputError
from omni_avsr.media import streams
from omni_avsr.media.faces import NoDetector
from omni_avsr.settings import TranscribeSettings
from omni_avsr.tasks import Task

MEMORY = 4 << 30  # bytes that a reader can take at most
BROKEN = "the file broke what reads it: it is damaged, or much too large"

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])  # processes start at once


class Reader:
    """The windows of an upload as they are read."""

    def __init__(
        self, file: Path, tasks: Sequence[Task], settings: TranscribeSettings, longest: float
    ):
        self.windows, theirs = CONTEXT.Pipe(duplex=False)
        given = theirs, file, list(tasks), settings, longest
        self.process = CONTEXT.Process(target=_read, args=given, daemon=True)
        self.process.start()
        theirs.close()

    def __iter__(self) -> Iterator[Window]:
        """The windows; an InputError, if there is one, comes after those that can be read."""
        while True:
            try:
                window = self.windows.recv()
            except EOFError:
                raise InputError(BROKEN) from None
            if window is None:
                return
            if isinstance(window, str):
                raise InputError(window)
            yield window

    def close(self) -> None:
        """Ends the process, whatever it does.

        The pipe is left to whoever still reads it: its descriptor may soon be another file's.
        """
        self.process.kill()
        self.process.join()


def _read(
    windows: Connection,
    file: Path,
    tasks: Sequence[Task],
    settings: TranscribeSettings,
    longest: float,
) -> None:
    """Sends the windows of a file, and at last None or a sentence on what is wrong with it."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with suppress(BrokenPipeError):  # nobody wants them any more
        windows.send(_sent(windows, file, tasks, settings, longest))


def _sent(
    windows: Connection,
    file: Path,
    tasks: Sequence[Task],
    settings: TranscribeSettings,
    longest: float,
) -> str | None:
    problem = None
    too_long = f"the file is longer than the {longest:g} seconds that are allowed"
    try:
        if streams.probe(file).seconds > longest:
            return too_long
        for window in _windows(file, tasks, settings):
            if isinstance(window, NoDetector):
                problem = f"only heard, as lips cannot be read: {window}"
                continue
            if window.end > longest:  # its header says otherwise
                return too_long
            windows.send(window)
    except InputError as error:
        return str(error).replace(str(file), "the file")
    except MemoryError:
        return BROKEN
    return problem


def _windows(
    file: Path, tasks: Sequence[Task], settings: TranscribeSettings
) -> Iterator[Window | NoDetector]:
    """The windows of a file; of one whose faces cannot be found, those of its sound, and why."""
    try:
        yield from windows_of(file, tasks, settings)
    except NoDetector as error:
        if settings.task != "auto" or Task.ASR not in tasks:
            raise
        yield from windows_of(file, [Task.ASR], settings)
        yield error
