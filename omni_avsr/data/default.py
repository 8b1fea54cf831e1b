"""Which clips are used where no label file is given.

The toy corpus is, but the core does not know the toy world: callers of `fit` and `evaluate` pass
`omni_avsr.toy.toy_corpus`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from omni_avsr.errors import InputError
from omni_avsr.run import Progress
from omni_avsr.settings.shared import ToyOptions

# Makes the label file of each of the splits (train, valid, test)
MakeCorpus = Callable[[ToyOptions, Sequence[str], Progress], dict[str, Path]]


def no_corpus(options: ToyOptions, splits: Sequence[str], progress: Progress) -> dict[str, Path]:
    """Refuses: there is no default."""
    raise InputError(f"no label file for {', '.join(splits)} is given: name one")
