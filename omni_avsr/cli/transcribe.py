"""What `omni-avsr transcribe` does.

Everything that can be wrong with its files and with --out is found before torch is imported.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from omni_avsr.choice import chosen_model
from omni_avsr.cli.imports import quick_imports
from omni_avsr.cli.terminal import Bars, complain, name_model, note
from omni_avsr.decode.inputs import announced_seconds, expand
from omni_avsr.decode.outputs import Writer
from omni_avsr.decode.transcripts import Transcript, Update
from omni_avsr.errors import InputError
from omni_avsr.files import Journal, locked
from omni_avsr.run import silence_libraries
from omni_avsr.settings import TranscribeSettings
from omni_avsr.tasks import VERSION, Row

# Settings that change no text
NO_TEXT = {"format", "out", "highlight", "device", "max_frames", "download"}


def run(settings: TranscribeSettings, paths: Sequence[Path]) -> int:
    """Transcribes the files and those of the folders; returns the exit code."""
    files = expand(paths)
    several = len(files) > 1 or any(path.is_dir() for path in paths)
    writer = Writer(settings.formats, settings.out, files, several, settings.highlight)
    if settings.shard:
        if not writer.into_folder:
            raise InputError("--shard needs --out FOLDER, to which each part adds its files")
        index, count = map(int, settings.shard.split("/"))
        files = files[index - 1 :: count]
    _check_detector(settings)
    seconds = _lengths(files)
    failed: list[Transcript] = []
    useless = len(files) - len(seconds)  # files of which nothing is transcribed
    if seconds:
        model = chosen_model(settings.checkpoint)
        name_model(model)
        with quick_imports():
            from omni_avsr.decode.transcribe import Transcriber

            silence_libraries()
        transcriber = Transcriber(**{**vars(settings), "checkpoint": model})
        with _journal(settings, paths, writer, model) as journal:
            with writer:
                failed = _write(transcriber.follow(list(seconds), journal), writer, seconds)
            useless += sum(not transcript.segments for transcript in failed)
            if not useless:
                journal.remove()
    if useless == len(files):
        return 2
    return 1 if useless or failed else 0


def _check_detector(settings: TranscribeSettings) -> None:
    """Refuses a --detector that is no face detector."""
    if settings.detector:
        from omni_avsr.media.faces import yunet

        yunet(settings.detector)


def _lengths(files: Iterable[Path]) -> dict[Path, float]:
    """The announced seconds of each file that can be read; the others are reported."""
    seconds = {}
    for file in files:
        try:
            seconds[file] = announced_seconds(file)
        except (InputError, OSError) as error:
            complain(str(error))
    return seconds


def _write(
    updates: Iterable[Update], writer: Writer, seconds: dict[Path, float]
) -> list[Transcript]:
    """Writes the updates and shows how far they have come; returns the transcripts with errors."""
    total = 1 + int(sum(seconds.values()))
    bars = Bars()
    bars("Transcribing", 0, total)
    ended = 0.0  # seconds of the files that have ended
    segments = cut = 0
    failed: list[Transcript] = []
    noted: set[str] = set()
    for update in updates:
        writer.write(update)
        transcript, segment = update.transcript, update.segment
        for text in set(transcript.notes) - noted:
            note(f"{transcript.file}: {text}")
            noted.add(text)
        if segment is None:
            ended += seconds[transcript.file]
            if transcript.error:
                failed.append(transcript)
                complain(transcript.error)
        else:
            segments += 1
            cut += segment.is_cut
        reached = min(segment.end, seconds[transcript.file]) if segment else 0.0
        bars("Transcribing", int(ended + reached), total)
    bars("Transcribing", total, total)
    if cut:
        note(
            f"{cut} of {segments} segments are cut: they reached the limit of tokens, which "
            "--max-new-tokens sets; JSON says which"
        )
    return failed


@contextmanager
def _journal(
    settings: TranscribeSettings, paths: Sequence[Path], writer: Writer, model: str
) -> Iterator[Journal]:
    """The journal beside what is written, which is locked; an empty one for the terminal."""
    work: Row = {key: value for key, value in vars(settings).items() if key not in NO_TEXT}
    config = Path(model) / "config.json"
    work["checkpoint"] = model
    work["trained"] = config.stat().st_mtime_ns if config.is_file() else None
    work["version"] = VERSION
    work["files"] = list(map(str, paths))
    digest = hashlib.sha256(json.dumps(work, default=str).encode()).hexdigest()
    file = writer.unfinished_file(digest[:8])
    if file is None:
        yield Journal()
        return
    with locked(file.parent, f".{file.name}.lock"):
        yield Journal(file, work)
