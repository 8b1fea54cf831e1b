"""Trains in two processes, of which the second fails in its third step.

python -m tests.support.broken_training SETTINGS
"""

import json
import sys

from torch import Tensor

from omni_avsr.settings import TrainSettings
from omni_avsr.train.batches import TrainingBatch
from omni_avsr.train.fit import fit
from omni_avsr.train.step import Training

MESSAGE = "the second process is broken"
TRAINING_STEP = Training.training_step


def broken_step(self: Training, batch: TrainingBatch, step: int) -> Tensor | None:
    """A training step that fails in one of the processes."""
    if step == 2 and self.global_rank == 1:
        raise RuntimeError(MESSAGE)
    return TRAINING_STEP(self, batch, step)


if __name__ == "__main__":
    Training.training_step = broken_step
    fit(TrainSettings(**json.loads(sys.argv[1])))
