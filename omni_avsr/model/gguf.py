"""A language model in a GGUF file, as llama.cpp runs it; its weights become plain numbers.

One file holds the config, the tokenizer and the weights, which are often quantised.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from struct import error as StructError
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GgufConfig, PreTrainedConfig

from omni_avsr.errors import InputError

SUFFIX = ".gguf"
EXTRA = "pip install 'omni-avsr[gguf]'"


def is_gguf(name: str | Path) -> bool:
    """Whether a tower's name is that of a GGUF file."""
    return str(name).lower().endswith(SUFFIX)


def where(name: str | Path) -> dict[str, Any]:
    """What from_pretrained takes to read a config, tokenizer or model from a file or folder."""
    if not is_gguf(name):
        return {"pretrained_model_name_or_path": name}
    file = Path(name)
    return {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}


def reading_options(name: str | Path, config: PreTrainedConfig) -> dict[str, Any]:
    """What from_pretrained takes besides for the weights of such a file, whose config is known."""
    if not is_gguf(name):
        return {}
    return {"config": config, "quantization_config": GgufConfig(dequantize=True)}


@contextmanager
def as_folder(file: str, config: PreTrainedConfig, dtype: torch.dtype | None) -> Iterator[str]:
    """A temporary folder with the weights as plain numbers, for what only reads folders."""
    with TemporaryDirectory() as folder:
        with readable(file):
            options = reading_options(file, config) | {"dtype": dtype or "auto"}
            llm = AutoModelForCausalLM.from_pretrained(**where(file), **options)
        llm.save_pretrained(folder)
        del llm  # before it is read again
        yield folder


@contextmanager
def readable(name: str | Path) -> Iterator[None]:
    """Raises InputError where a GGUF file, if it is one, cannot be read."""
    if not is_gguf(name):
        yield
        return
    if not Path(name).is_file():
        raise InputError(f"there is no file {name}")
    if find_spec("gguf") is None:
        raise InputError(f"an LLM in a GGUF file needs gguf: {EXTRA}")
    try:
        yield
    except (ValueError, LookupError, OverflowError, RuntimeError, StructError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"{name} cannot be read as an LLM in GGUF, it may be cut off or of a kind that "
            f"transformers does not know: {reason}"
        ) from None
