"""Figures of the server, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from omni_avsr.decode.transcripts import Transcript
from omni_avsr.serve.engine import Engine

SECONDS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """What was served, and what is."""

    def __init__(self, engine: Engine):
        every = self.registry = CollectorRegistry()
        self.requests = Counter("omni_avsr_requests", "Transcripts that were sent.", registry=every)
        self.speech = Counter(
            "omni_avsr_speech_seconds", "Seconds of speech in them.", registry=every
        )
        self.latency = Histogram(
            "omni_avsr_latency_seconds",
            "From request to transcript.",
            buckets=SECONDS,
            registry=every,
        )
        queued = Gauge("omni_avsr_queued_windows", "Windows that wait.", registry=every)
        queued.set_function(lambda: engine.queued)
        running = Gauge("omni_avsr_running_windows", "Windows being decoded.", registry=every)
        running.set_function(lambda: engine.running)
        batches = Gauge(
            "omni_avsr_batch_size", "Windows in a step, mean of the last thousand.", registry=every
        )
        batches.set_function(lambda: _mean(list(engine.batch_sizes)))

    def note(self, transcript: Transcript, seconds: float) -> None:
        """Counts a transcript."""
        self.requests.inc()
        self.speech.inc(sum(segment.end - segment.start for segment in transcript.segments))
        self.latency.observe(seconds)

    def text(self) -> str:
        """All figures in Prometheus's own format."""
        return generate_latest(self.registry).decode()


def _mean(values: list[int]) -> float:
    return sum(values) / len(values) if values else 0.0
