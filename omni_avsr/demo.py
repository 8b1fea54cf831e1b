"""The whole system in one command: a corpus, a training run, every task at every rate in silence and in babble."""

from collections.abc import Callable
from pathlib import Path

from omni_avsr import decoding
from omni_avsr.evaluation import Row, write_hypotheses, write_results
from omni_avsr.report import write_report
from omni_avsr.run import Report
from omni_avsr.settings import DecodeSettings, DemoSettings, TrainSettings
from omni_avsr.tasks import Task
from omni_avsr.training import fit, routes

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
    model, processor, name = decoding.load(str(folder))
    decode = DecodeSettings(toy_clips=settings.toy_clips, seed=settings.seed)
    clips, file = decoding.clips_to_decode(decode, report)
    plan = routes(model.config, "all")
    rows, hypotheses = [], []
    for noise in (None, decoding.make_noise("babble", settings.snr, clips, settings.seed)):
        heard = [route for route in plan if noise is None or Task(route[0]).hears]  # babble does not touch the lips
        for decoded in decoding.decode(model, processor, clips, heard, decode, noise, report).values():
            rows.append(decoded.row(beams=1, seed=settings.seed, checkpoint=name, manifest=file))
            hypotheses += decoded.hypotheses
    out = Path(settings.out)
    write_results(out / "results.json", rows)
    write_hypotheses(out / "hypotheses.jsonl", hypotheses)
    facts = {
        "clips": training.toy_clips,
        "world": training.toy_world,
        "seed": settings.seed,
        "steps": settings.max_steps,
    }
    write_report(out / "report.html", rows, hypotheses, "omni-avsr on the toy corpus", [NOTE.format(**facts)])
    return rows
