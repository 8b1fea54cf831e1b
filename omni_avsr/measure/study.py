"""Studies of several models: each is trained once and measured once.

What has finished is neither trained nor measured again, and what was interrupted is resumed.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from omni_avsr.measure.evaluate import evaluate
from omni_avsr.measure.report import write_report
from omni_avsr.measure.results import Result, is_measured, read_results
from omni_avsr.run import Progress, is_trained, no_progress
from omni_avsr.settings import EvaluateSettings, TrainSettings
from omni_avsr.toy import toy_corpus
from omni_avsr.train.fit import fit
from omni_avsr.train.resume import refuse_other_settings


def train_and_measure(
    training: TrainSettings, measuring: EvaluateSettings, progress: Progress = no_progress
) -> list[Result]:
    """The results of a run on its test clips."""
    train_once(training, progress)
    title = f"{training.method}, seed {training.seed}"
    return measure_once(of_run(training, measuring), title, progress)


def train_once(settings: TrainSettings, progress: Progress = no_progress) -> None:
    """Trains a run, unless it has finished; refuses one that has other settings."""
    if is_trained(settings.out):
        refuse_other_settings(settings.out, settings)
    else:
        fit(settings, progress, toy_corpus)


def of_run(
    training: TrainSettings, measuring: EvaluateSettings, folder: str = "evaluation"
) -> EvaluateSettings:
    """The settings that evaluate a run on its test clips, in a folder of the run."""
    return replace(
        measuring,
        checkpoint=str(training.out),
        data=training.test,
        root=training.root,
        format=training.format,
        tokens=training.tokens,
        toy_world=training.toy_world,
        toy_language=training.toy_language,
        toy_clips=training.toy_clips,
        dtype=training.dtype,
        quantize=training.quantize,
        workers=training.workers,
        out=training.out / folder,
    )


def measure_once(
    settings: EvaluateSettings, title: str, progress: Progress = no_progress
) -> list[Result]:
    """The results of an evaluation, which is done unless it has finished."""
    folder: Path = settings.out
    if is_measured(folder):
        return read_results(folder)
    report = partial(write_report, folder, title=title)
    return evaluate(settings, progress, toy_corpus, report).results
