"""The options of `omni-avsr serve`."""

from dataclasses import dataclass

from omni_avsr.settings.base import COUNT, POSITIVE, option
from omni_avsr.settings.shared import CheckpointOptions, DetectorOptions


@dataclass(frozen=True)
class ServeSettings(CheckpointOptions, DetectorOptions):
    """The options of `omni-avsr serve`."""

    host: str = option("127.0.0.1", "The address to listen at; 0.0.0.0 is all of this machine's.")
    port: int = option(8000, "The port to listen at.", bounds=COUNT)
    api_key: str | None = option(None, "What clients have to send as their key.")
    workers: int | None = option(
        None,
        "Uploads that are begun to be read at a time.  [default: all cores but one]",
        bounds=COUNT,
    )
    max_requests: int = option(
        32, "Requests that are taken at a time; others are sent away.", bounds=COUNT
    )
    max_upload_mb: int = option(200, "Largest upload.", bounds=COUNT)
    max_seconds: float = option(7200.0, "Longest upload.", bounds=POSITIVE)
    timeout: float = option(3600.0, "Seconds after which a request is given up.", bounds=POSITIVE)
