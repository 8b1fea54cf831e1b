"""The whole system in one command: a corpus, a training run, every task at every rate in silence and in babble."""

from collections.abc import Callable

from omni_avsr.decode import decode as decoding
from omni_avsr.measure.report import publish
from omni_avsr.measure.results import Row
from omni_avsr.run import Report
from omni_avsr.settings import DemoSettings, EvaluateSettings, TrainSettings
from omni_avsr.train.fit import fit

NOTE = (
    "Trained from the shipped tiny towers on {clips} clips of the toy corpus ({world} world), seed {seed}, in {steps} "
    "steps; decoded greedily on clips whose sentences and speakers were not trained on."
)


def demo(settings: DemoSettings, report: Report, say: Callable[[str], None]) -> list[Row]:
    """Trains, decodes and reports; returns the results rows."""
    training = TrainSettings(
        out=settings.out, seed=settings.seed, max_steps=settings.max_steps, toy_clips=settings.toy_clips
    )
    say("Training omni-avsr-st on the toy corpus")
    folder = fit(training, report)
    say("Decoding clips of unseen speakers and sentences")
    snr = f"clean,{settings.snr:g}"
    grid = EvaluateSettings(checkpoint=str(folder), toy_clips=settings.toy_clips, seed=settings.seed, snr=snr)
    rows, hypotheses = decoding.evaluate(grid, report)
    note = NOTE.format(clips=training.toy_clips, world=training.toy_world, seed=settings.seed, steps=settings.max_steps)
    publish(settings.out, rows, hypotheses, "omni-avsr on the toy corpus", [note])
    return rows
