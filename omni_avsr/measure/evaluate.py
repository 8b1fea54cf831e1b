"""Word error rates of a label file: on one route, or on every route in every noise.

What is decoded goes into a journal beside the hypotheses, so that an interrupted evaluation is
resumed. results.json is written last and marks the evaluation as finished.
"""

import glob
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from omni_avsr.data import manifest
from omni_avsr.data.default import MakeCorpus, no_corpus
from omni_avsr.data.noise import make_noise
from omni_avsr.decode.decode import DecodedClip, Decoder, decode, load_decoder
from omni_avsr.decode.elastic import Climb, chosen_climb
from omni_avsr.decode.hypothesis import Hypothesis, write_hypotheses
from omni_avsr.errors import InputError
from omni_avsr.files import Journal, known_rows, locked
from omni_avsr.measure.results import Result, result_of, unmark, write_results
from omni_avsr.run import Progress, no_progress
from omni_avsr.settings import DecodeSettings, DecodingOptions, EvaluateSettings
from omni_avsr.tasks import CLEAN, Condition, Route
from omni_avsr.text import normalise

HYPOTHESES = "hypotheses.jsonl"
PLACE = (
    "out",
    "device",
    "max_frames",
    "workers",
    "shard",
)  # settings that do not change what is decoded


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

    With settings.out the hypotheses are written to that file. A shard only keeps them beside it.
    """
    if settings.out:
        _refuse_output(settings.out, settings.data)
    decoder = load_decoder(settings)
    config = decoder.model.config
    climb = chosen_climb(config, settings.task, settings)
    labels = labels_of(settings, "test", progress, corpus)
    with _journal(settings.out, settings, decoder, labels) as journal:
        if climb:
            evaluation = _climb(decoder, labels, climb, settings, progress, journal)
        else:
            route = config.choose(settings.task, settings.audio_rate, settings.video_rate)
            if settings.merge:
                merged = decoder.model.merge(route)
                decoder = Decoder(merged, decoder.processor, decoder.name)
            passes = [(settings.condition, [route])]
            only = _places(len(labels.clips), settings.shard)
            evaluation = _measure(decoder, labels, passes, settings, progress, journal, only)
        if settings.shard:
            return evaluation
        if settings.out:
            write_hypotheses(settings.out, evaluation.hypotheses)
        journal.remove()
        for part in _parts(settings.out):
            part.unlink()
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
    passes = passes_of(settings.conditions, routes)
    labels = labels_of(settings, "test", progress, corpus)
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
    only: Collection[int] | None = None,
) -> Evaluation:
    """Decodes the clips, or only those at some places, in each condition on its routes."""
    clips = labels.clips
    results: list[Result] = []
    hypotheses: list[Hypothesis] = []
    unreadable = 0
    noises = [make_noise(condition, clips, settings.seed) for condition, _ in passes]
    for noise, (_, routes) in zip(noises, passes, strict=True):
        decoded = decode(decoder, clips, routes, settings, noise, progress, journal, only)
        for found in decoded.values():
            _refuse_none(found, labels, only)
            hypotheses += [clip.hypothesis for clip in found]
            unreadable = len(clips if only is None else only) - len(found)
            results += _results(found, decoder, labels, settings)
    return Evaluation(results, hypotheses, unreadable)


def _climb(
    decoder: Decoder,
    labels: Labels,
    climb: Climb,
    settings: DecodeSettings,
    progress: Progress,
    journal: Journal,
) -> Evaluation:
    """Decodes the clips on the cheap route, and those in doubt on the better one, too."""
    clips, ladder = labels.clips, climb.ladder
    noise = make_noise(settings.condition, clips, settings.seed)
    given = settings, noise, progress, journal
    only = _places(len(clips), settings.shard)
    cheap = decode(decoder, clips, [ladder.cheap], *given, only=only)[ladder.cheap]
    _refuse_none(cheap, labels, only)
    places = climb.of(
        [clip.hypothesis.doubt for clip in cheap], [clip.hypothesis.seconds for clip in cheap]
    )
    doubted = [cheap[place].index for place in places]
    better = decode(decoder, clips, [ladder.better], *given, only=doubted)[ladder.better]
    surest = {clip.index: clip for clip in cheap}
    for clip in better:
        first = surest[clip.index]
        is_surer = clip.hypothesis.doubt <= first.hypothesis.doubt
        chosen = clip if is_surer else first
        spent = first.decode_seconds + clip.decode_seconds
        surest[clip.index] = replace(chosen, decode_seconds=spent)
    hypotheses = [clip.hypothesis for clip in surest.values()]
    # Only the last route stands in the result
    found = []
    for clip in surest.values():
        found.append(replace(clip, hypothesis=replace(clip.hypothesis, route=ladder.better)))
    climbed = sum(clip.hypothesis.seconds for clip in better)
    share = climbed / max(1e-9, sum(hypothesis.seconds for hypothesis in hypotheses))
    facts = {"begun": str(ladder.cheap), "doubted": share}
    results = _results(found, decoder, labels, settings, **facts)
    wanted = clips if only is None else only
    return Evaluation(results, hypotheses, len(wanted) - len(found))


def _places(clips: int, shard: str | None) -> range | None:
    """The places of the clips of a part such as 3/8; None for all."""
    if shard is None:
        return None
    index, count = map(int, shard.split("/"))
    return range(index - 1, clips, count)


def _parts(out: Path | None) -> list[Path]:
    """What shards have kept beside a file."""
    return sorted(out.parent.glob(f"{glob.escape(out.name)}.part-*-of-*")) if out else []


def _results(
    found: Sequence[DecodedClip],
    decoder: Decoder,
    labels: Labels,
    settings: DecodingOptions,
    **facts: Any,
) -> list[Result]:
    """The result of these clips, if any has a text."""
    hypotheses = [clip.hypothesis for clip in found]
    if not any(hypothesis.has_text for hypothesis in hypotheses):
        return []
    result = result_of(
        hypotheses,
        audio_seconds=sum(hypothesis.seconds for hypothesis in hypotheses),
        decode_seconds=sum(clip.decode_seconds for clip in found),
        unreadable=len(labels.clips) - len(found),
        beams=settings.beams,
        seed=settings.seed,
        checkpoint=decoder.name,
        manifest=str(labels.file),
        dtype=decoder.dtype,
        quantize=settings.quantize,
        **facts,
    )
    return [result]


def _refuse_none(
    found: Sequence[DecodedClip], labels: Labels, only: Collection[int] | None
) -> None:
    """Refuses clips of which none could be read; a shard may have none."""
    wanted = labels.clips if only is None else only
    if wanted and not found:
        raise InputError(f"none of the {len(labels.clips)} clips of {labels.file} could be read")


def passes_of(
    conditions: Sequence[Condition], routes: Sequence[Route]
) -> list[tuple[Condition, Sequence[Route]]]:
    """The routes of each condition; noise leaves out VSR, which does not hear it."""
    passes: list[tuple[Condition, Sequence[Route]]] = []
    for condition in conditions:
        hearing = [route for route in routes if route.task.hears]
        affected = routes if condition == CLEAN else hearing
        if affected:
            passes.append((condition, affected))
    if not passes:
        raise InputError("VSR does not hear noise, nothing else is asked for: add clean to --snr")
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


def labels_of(
    settings: DecodingOptions, split: str, progress: Progress, corpus: MakeCorpus
) -> Labels:
    """The label file that is chosen, or this split of the toy corpus."""
    if settings.data:
        clips = manifest.read(
            settings.data, settings.root, settings.format, settings.tokens, settings.audio_track
        )
        return Labels(settings.data, clips)
    file = corpus(settings, (split,), progress)[split]
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
    shard = getattr(settings, "shard", None)
    part = f".part-{shard.replace('/', '-of-')}" if shard else ""
    name = f"{out.name}{part or '.part'}"
    with locked(out.parent, f".{out.name}{part}.lock"):
        journal = Journal(out.with_name(name), work)
        if not shard:
            for other in _parts(out):
                journal.rows += known_rows(other, work)
        yield journal
