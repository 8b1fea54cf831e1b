"""Keeps libraries quiet."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from omni_avsr.run import silence_libraries


@contextmanager
def silent_libraries() -> Iterator[None]:
    """Turns off the messages of libraries for a while."""
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    had_bars = transformers_logging.is_progress_bar_enabled()
    lightning = logging.getLogger("lightning.pytorch")
    level = lightning.level
    try:
        with warnings.catch_warnings():
            silence_libraries()
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_bars:
            transformers_logging.enable_progress_bar()
        lightning.setLevel(level)
