"""Every claim of recipes/claims.py trains small models for a step, and is judged.

python -m tests.stress.claims
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import typer

from omni_avsr.run import silence_libraries
from recipes import claims

EIGHT = 8


def main() -> None:
    """Prints each claim with its verdict, or fails with the first that cannot be judged."""
    silence_libraries()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        small = {
            "toy_clips": 32,
            "valid_clips": 1,
            "logger": "none",
            "feature_cache": Path(folder) / "features",
        }
        for name, settings in claims.MODELS.items():
            claims.MODELS[name] = replace(settings, **small)
        lab = claims.Lab(Path(folder) / "runs", steps=1, seeds=[1])
        for claim_of in claims.CLAIMS:
            claim = claim_of(lab)
            assert claim.lines, f"{claim.text}: nothing was measured"
            assert claim.verdicts, f"{claim.text}: nothing was judged"
            print(f"{claim.verdict}: {claim.text}")
        assert len(claims.CLAIMS) == EIGHT
        trained = list(Path(folder).rglob("run.json"))
        assert len(trained) == len(claims.MODELS), f"{len(trained)} models were trained"
    print(f"{len(trained)} models in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    typer.run(main)
