"""Fits what makes the probabilities of words hold, on validation clips."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from omni_avsr.data.default import MakeCorpus, no_corpus
from omni_avsr.data.noise import make_noise
from omni_avsr.decode.confidence import (
    calibrated,
    calibration_error,
    fitted,
    probabilities,
    rows_of,
)
from omni_avsr.decode.decode import DecodedClip, Decoder, decode, load_decoder
from omni_avsr.decode.elastic import ladders
from omni_avsr.decode.hypothesis import Hypothesis
from omni_avsr.errors import InputError
from omni_avsr.files import write_text
from omni_avsr.measure.elastic import Climbs
from omni_avsr.measure.evaluate import labels_of, passes_of
from omni_avsr.run import Progress, no_progress
from omni_avsr.settings import CalibrateSettings
from omni_avsr.tasks import Route, Task

FEWEST = 100  # words that a task needs
WORTH = 0.001  # errors per word that a ladder may make more than if all clips climbed


@dataclass(frozen=True)
class Calibration:
    """What was fitted for a task, and how far its probabilities are off before and after."""

    task: Task
    words: int
    weights: list[float]
    before: float
    after: float


def calibrate(
    settings: CalibrateSettings, progress: Progress = no_progress, corpus: MakeCorpus = no_corpus
) -> list[Calibration]:
    """What `omni-avsr calibrate` does: decodes the clips, fits, and writes into the config."""
    decoder = load_decoder(settings)
    config = Path(decoder.name) / "config.json"
    _refuse(decoder, config)
    decoder.model.config.calibration = {}  # what the language model says is to be weighed
    decoded = _decoded(decoder, settings, progress, corpus)
    found = []
    for task in dict.fromkeys(route.task for route in decoded):
        of_task = [clips for route, clips in decoded.items() if route.task is task]
        found.append(_fitted(task, list(chain.from_iterable(of_task))))
    weights = {str(own.task): own.weights for own in found}
    known = json.loads(config.read_text(encoding="utf-8"))
    known |= {"calibration": weights, "ladders": _ladders(decoded, weights)}
    write_text(config, json.dumps(known, indent=2, sort_keys=True) + "\n")
    return found


def _refuse(decoder: Decoder, config: Path) -> None:
    """Refuses models that cannot be calibrated."""
    if decoder.model.aligner is None:
        raise InputError(
            f"{decoder.name} cannot tell when words are said, which their probabilities need: "
            "`omni-avsr train --aligner only --from` it"
        )
    if not config.is_file():
        raise InputError(f"{decoder.name} is no folder, and what is fitted goes into its config")


def _decoded(
    decoder: Decoder, settings: CalibrateSettings, progress: Progress, corpus: MakeCorpus
) -> dict[Route, list[DecodedClip]]:
    """The clips on each route, in all conditions one after another."""
    model = decoder.model.config
    routes = model.routes(settings.audio_rates, settings.video_rates, settings.tasks)
    clips = labels_of(settings, "valid", progress, corpus).clips
    decoded: dict[Route, list[DecodedClip]] = {}
    for condition, own_routes in passes_of(settings.conditions, routes):
        noise = make_noise(condition, clips, settings.seed)
        found = decode(decoder, clips, own_routes, settings, noise, progress)
        for route, of_route in found.items():
            decoded.setdefault(route, []).extend(of_route)
    return decoded


def _ladders(
    decoded: Mapping[Route, Sequence[DecodedClip]], weights: Mapping[str, Sequence[float]]
) -> dict[str, float]:
    """The doubt that is too much for each ladder's cheap route, in any condition."""
    hypotheses: dict[Route, list[Hypothesis]] = {}
    for route, clips in decoded.items():
        for clip in clips:
            sure = probabilities(clip.evidence or [], weights[route.task])
            own = replace(clip.hypothesis, probabilities=sure)
            hypotheses.setdefault(route, []).append(own)
    doubts = {}
    for ladder in ladders(list(decoded)):
        of_conditions = []
        for condition in {own.condition for own in hypotheses[ladder.cheap]}:
            pair = []
            for route in (ladder.cheap, ladder.better):
                pair.append([own for own in hypotheses[route] if own.condition == condition])
            of_conditions.append(Climbs.of(*pair).doubt_worth(WORTH))
        doubts[ladder.key] = round(min(of_conditions), 4)
    return doubts


def _fitted(task: Task, clips: Sequence[DecodedClip]) -> Calibration:
    rows: list[np.ndarray] = []
    right: list[bool] = []
    before = []
    for clip in clips:
        judged = clip.hypothesis.judged
        known = [own for own in clip.evidence or () if own is not None]
        if judged:
            rows.append(rows_of(known))
            right += [is_right for _, is_right in judged]
            before += judged
    if len(right) < FEWEST:
        raise InputError(f"{len(right)} words of {task} were decoded, {FEWEST} are needed")
    all_rows = np.concatenate(rows)
    weights = fitted(all_rows, np.array(right, float))
    after = list(zip(calibrated(all_rows, weights).tolist(), right, strict=True))
    return Calibration(
        task=task,
        words=len(right),
        weights=[round(weight, 4) for weight in weights.tolist()],
        before=calibration_error(before),
        after=calibration_error(after),
    )
