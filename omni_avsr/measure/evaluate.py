"""Word error rates of a label file: on one route, or on every route in every noise.

What is decoded goes into a journal beside the hypotheses, so that an interrupted evaluation is
resumed. results.json is written last and marks the evaluation as finished.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from omni_avsr.data import manifest
from omni_avsr.data.default import MakeCorpus, no_corpus
from omni_avsr.data.noise import make_noise
from omni_avsr.decode.decode import Decoder, decode, load_decoder
from omni_avsr.decode.hypothesis import Hypothesis, write_hypotheses
from omni_avsr.errors import InputError
from omni_avsr.files import Journal, locked
from omni_avsr.measure.results import Result, result_of, unmark, write_results
from omni_avsr.run import Progress, no_progress
from omni_avsr.settings import DecodeSettings, DecodingOptions, EvaluateSettings
from omni_avsr.tasks import CLEAN, Condition, Route
from omni_avsr.text import normalise

HYPOTHESES = "hypotheses.jsonl"
PLACE = ("out", "device", "max_frames", "workers")  # settings that do not change what is decoded


@dataclass(frozen=True)
class Labels:
    """A label file and its clips."""

    file: Path
    clips: list[manifest.Clip]


@dataclass(frozen=True)
class Evaluation:
    """What was measured."""

    results: list[Result]  # none if no clip has a text
    hypotheses: list[Hypothesis]
    unreadable: int = 0  # clips of the label file that could not be read


def decode_file(
    settings: DecodeSettings, progress: Progress = no_progress, corpus: MakeCorpus = no_corpus
) -> Evaluation:
    """What `omni-avsr decode` does: one route in one condition.

    With settings.out the hypotheses are written to that file.
    """
    if settings.out:
        _refuse_output(settings.out, settings.data)
    decoder = load_decoder(settings)
    route = decoder.model.config.choose(settings.task, settings.audio_rate, settings.video_rate)
    if settings.merge:
        decoder = Decoder(decoder.model.merge(route), decoder.processor, decoder.name)
    labels = _labels(settings, progress, corpus)
    with _journal(settings.out, settings, decoder, labels) as journal:
        passes = [(settings.condition, [route])]
        evaluation = _measure(decoder, labels, passes, settings, progress, journal)
        if settings.out:
            write_hypotheses(settings.out, evaluation.hypotheses)
        journal.remove()
    return evaluation


def evaluate(
    settings: EvaluateSettings,
    progress: Progress = no_progress,
    corpus: MakeCorpus = no_corpus,
    write_report: Callable[[Evaluation], None] | None = None,
) -> Evaluation:
    """What `omni-avsr evaluate` does: every task, at every rate, in every noise.

    Writes hypotheses.jsonl, a report if one is given, and results.json into settings.out.
    """
    hypotheses = settings.out / HYPOTHESES
    _refuse_output(hypotheses, settings.data)
    decoder = load_decoder(settings)
    routes = decoder.model.config.routes(settings.audio_rates, settings.video_rates, settings.tasks)
    passes = _passes(settings.conditions, routes)
    if not passes:
        raise InputError("VSR does not hear noise, nothing else is asked for: add clean to --snr")
    labels = _labels(settings, progress, corpus)
    _refuse_textless(labels.file, [clip.text for clip in labels.clips], settings.normaliser)
    with _journal(hypotheses, settings, decoder, labels) as journal:
        evaluation = _measure(decoder, labels, passes, settings, progress, journal)
        decoded = [hypothesis.reference for hypothesis in evaluation.hypotheses]
        _refuse_textless(labels.file, decoded, settings.normaliser)
        unmark(settings.out)
        write_hypotheses(hypotheses, evaluation.hypotheses)
        if write_report:
            write_report(evaluation)
        write_results(settings.out, evaluation.results)
        journal.remove()
    return evaluation


def _measure(
    decoder: Decoder,
    labels: Labels,
    passes: Sequence[tuple[Condition, Sequence[Route]]],
    settings: DecodingOptions,
    progress: Progress,
    journal: Journal,
) -> Evaluation:
    """Decodes the clips in each condition on its routes."""
    clips, file = labels.clips, labels.file
    results: list[Result] = []
    hypotheses: list[Hypothesis] = []
    unreadable = 0
    noises = [make_noise(condition, clips, settings.seed) for condition, _ in passes]
    for noise, (_, routes) in zip(noises, passes, strict=True):
        decoded = decode(decoder, clips, routes, settings, noise, progress, journal)
        for found in decoded.values():
            if not found:
                raise InputError(f"none of the {len(clips)} clips of {file} could be read")
            own = [clip.hypothesis for clip in found]
            hypotheses += own
            unreadable = len(clips) - len(found)
            if not any(hypothesis.has_text for hypothesis in own):
                continue
            result = result_of(
                own,
                audio_seconds=sum(clip.audio_seconds for clip in found),
                decode_seconds=sum(clip.decode_seconds for clip in found),
                unreadable=unreadable,
                beams=settings.beams,
                seed=settings.seed,
                checkpoint=decoder.name,
                manifest=str(file),
                dtype=decoder.dtype,
                quantize=settings.quantize,
            )
            results.append(result)
    return Evaluation(results, hypotheses, unreadable)


def _passes(
    conditions: Sequence[Condition], routes: Sequence[Route]
) -> list[tuple[Condition, Sequence[Route]]]:
    """The routes of each condition; noise leaves out VSR, which does not hear it."""
    passes: list[tuple[Condition, Sequence[Route]]] = []
    for condition in conditions:
        hearing = [route for route in routes if route.task.hears]
        affected = routes if condition == CLEAN else hearing
        if affected:
            passes.append((condition, affected))
    return passes


def _refuse_output(file: Path, data: Path | None) -> None:
    """Refuses a file of hypotheses that cannot be written, or would replace the label file."""
    if file.is_dir():
        raise InputError(f"--out {file} is a folder: name a file")
    for folder in file.parents:
        if folder.exists() and not folder.is_dir():
            raise InputError(f"--out: {folder} is a file, a folder is needed: choose another --out")
    if data and data.exists() and file.exists() and file.samefile(data):
        raise InputError(f"--out {file} is the label file: choose another --out")


def _refuse_textless(file: Path, texts: Sequence[str], normaliser: str) -> None:
    """Refuses to measure clips of which none has words to be scored."""
    if not any(normalise(text, normaliser) for text in texts):
        raise InputError(
            f"no readable clip of {file} has a text: there is nothing to score; "
            "`omni-avsr decode --out FILE` transcribes the clips"
        )


def _labels(settings: DecodingOptions, progress: Progress, corpus: MakeCorpus) -> Labels:
    if settings.data:
        clips = manifest.read(
            settings.data, settings.root, settings.format, settings.tokens, settings.audio_track
        )
        return Labels(settings.data, clips)
    file = corpus(settings, ("test",), progress)["test"]
    return Labels(file, manifest.read(file))


@contextmanager
def _journal(
    out: Path | None, settings: DecodingOptions, decoder: Decoder, labels: Labels
) -> Iterator[Journal]:
    """The journal beside a file of hypotheses, which is locked; an empty one without a file."""
    if out is None:
        yield Journal()
        return
    work = {name: value for name, value in asdict(settings).items() if name not in PLACE}
    config = Path(decoder.name) / "config.json"
    work["checkpoint"] = decoder.name
    work["dtype"] = decoder.dtype  # auto depends on the device
    work["trained"] = config.stat().st_mtime_ns if config.is_file() else None
    work["clips"] = [
        (clip.id, clip.text, str(clip.audio), str(clip.video)) for clip in labels.clips
    ]
    with locked(out.parent, f".{out.name}.lock"):
        yield Journal(out.with_name(f"{out.name}.part"), work)
