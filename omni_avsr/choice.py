"""Which model a checkpoint names, found out before it is loaded."""

import json
from pathlib import Path

from omni_avsr.run import is_trained

TINY = "tiny"  # a small model that ships with the package, as do towers whose names begin with it
SHIPPED_MODELS = {TINY: "omni-avsr-st", f"{TINY}-multi": "omni-avsr-st-multi"}  # and their folders


def chosen_model(checkpoint: str | None) -> str:
    """The folder or hub id of the model that decodes: by default the newest run's, or else tiny."""
    return str(model_of(checkpoint or newest_model(Path("runs")) or TINY))


def model_of(checkpoint: str | Path) -> str | Path:
    """The folder of a run's model; any other folder or hub id unchanged."""
    inside = Path(checkpoint) / "model"
    return inside if (inside / "config.json").is_file() else checkpoint


def newest_model(runs: Path) -> Path | None:
    """The model of the run in a folder of runs that finished last."""
    finished = [file.parent for file in runs.glob("**/run.json") if is_trained(file.parent)]
    models = [run / "model" for run in finished if (run / "model" / "config.json").is_file()]
    return max(models, key=lambda folder: (folder / "config.json").stat().st_mtime, default=None)


def is_toy(model: str) -> bool:
    """Whether a model knows the toy world only: its encoders are those of the package."""
    config = Path(model) / "config.json"
    if not config.is_file():
        return model in SHIPPED_MODELS
    try:
        towers = json.loads(config.read_text(encoding="utf-8"))["towers"]
        names = [towers[kind]["name"] for kind in ("audio", "video") if towers.get(kind)]
    except (ValueError, KeyError, TypeError, AttributeError):
        return False  # loading it reports what is wrong with it
    return any(Path(name).name.startswith(f"{TINY}-") for name in names)
