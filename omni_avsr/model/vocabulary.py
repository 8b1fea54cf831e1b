"""The tokens that the LLM's vocabulary gains: markers, task tokens and placeholders."""

from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from omni_avsr.errors import InputError
from omni_avsr.methods import ConfigFields
from omni_avsr.model.config import MARKERS, PLACEHOLDERS, OmniAVSRConfig


def special_token_names(task_tokens: dict[str, str]) -> list[str]:
    """The new tokens, each once; the placeholders come last, as they need no embedding."""
    given = [token for token in task_tokens.values() if token]
    return list(dict.fromkeys([*MARKERS, *given, *PLACEHOLDERS.values()]))


def add_special_tokens(
    names: list[str], tokenizer: PreTrainedTokenizerBase | None, vocab_size: int
) -> dict[str, int]:
    """Adds the names that the tokenizer lacks and returns the ids of all.

    Without a tokenizer the ids follow the vocabulary.
    """
    if tokenizer is None:
        return {name: vocab_size + place for place, name in enumerate(names)}
    known = tokenizer.get_vocab()
    new = [name for name in names if name not in known]
    tokenizer.add_tokens(new, special_tokens=True)
    ids = {}
    for name in names:
        found = tokenizer.convert_tokens_to_ids(name)
        assert isinstance(found, int), f"{name} is not one token"
        ids[name] = found
    return ids


def token_settings(
    tokenizer: PreTrainedTokenizerBase | None,
    llm_config: PreTrainedConfig,
    task_tokens: dict[str, str],
) -> ConfigFields:
    """The fields of OmniAVSRConfig that hold token ids; the pad token is eos if there is none."""
    known: Any = llm_config if tokenizer is None else tokenizer
    if known.eos_token_id is None:
        family = llm_config.model_type
        raise InputError(f"this {family} has no eos token, so no transcript would end")
    if tokenizer is not None:
        _refuse_tokens_without_embedding(tokenizer, llm_config.vocab_size)
    names = special_token_names(task_tokens)
    pad = known.pad_token_id
    return {
        "special_tokens": add_special_tokens(names, tokenizer, llm_config.vocab_size),
        "bos_token_id": known.bos_token_id,
        "eos_token_id": known.eos_token_id,
        "pad_token_id": known.eos_token_id if pad is None else pad,
    }


def _refuse_tokens_without_embedding(tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Special tokens, such as an added pad, may lack an embedding; others are parts of texts."""
    added = tokenizer.added_tokens_decoder
    special = {i for i, token in added.items() if token.special}
    last = max(set(tokenizer.get_vocab().values()) - special)
    if last >= rows:
        raise InputError(
            f"the tokenizer has a token {last}, the LLM embeddings of {rows} tokens: "
            "is it the tokenizer of this LLM?"
        )


def embedded_ids(config: OmniAVSRConfig) -> list[int]:
    """The ids of the special tokens that have an embedding, in ascending order."""
    placeholders = PLACEHOLDERS.values()
    return sorted(i for name, i in config.special_tokens.items() if name not in placeholders)
