"""The whole system in one command.

A toy corpus is made, a model is trained on it, and every task is measured at every rate, in silence
and in babble.
"""

from collections.abc import Callable
from functools import partial

from omni_avsr.measure.evaluate import evaluate
from omni_avsr.measure.report import write_report
from omni_avsr.measure.results import Result
from omni_avsr.run import Progress
from omni_avsr.settings import DemoSettings, EvaluateSettings, TrainSettings
from omni_avsr.toy import toy_corpus
from omni_avsr.train.fit import fit

TITLE = "omni-avsr on the toy corpus"


def demo(settings: DemoSettings, progress: Progress, say: Callable[[str], None]) -> list[Result]:
    """Trains, decodes and reports in the run's folder, and returns the results."""
    training = TrainSettings(
        out=settings.out,
        seed=settings.seed,
        max_steps=settings.max_steps,
        toy_clips=settings.toy_clips,
    )
    say(f"Training {training.method} on the toy corpus")
    model = fit(training, progress, toy_corpus)

    say("Decoding clips of unseen speakers and sentences")
    measuring = EvaluateSettings(
        checkpoint=str(model),
        toy_clips=settings.toy_clips,
        seed=settings.seed,
        snr=("clean", f"{settings.snr:g}"),
        out=settings.out,
    )
    report = partial(write_report, settings.out, title=TITLE, notes=[_note(training)])
    return evaluate(measuring, progress, toy_corpus, report).results


def _note(training: TrainSettings) -> str:
    return (
        f"Trained from the shipped tiny towers on {training.toy_clips} clips of the toy corpus "
        f"({training.toy_world} world), seed {training.seed}, in {training.max_steps} steps; "
        "decoded greedily on clips whose sentences and speakers were not trained on."
    )
