"""Whisper as openai publishes it or as CTranslate2 saves it, to a folder of transformers' Whisper.

Sizes are read from the shapes of the weights.
"""

import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)
from transformers.models.whisper.configuration_whisper import (
    NON_SPEECH_TOKENS,
    NON_SPEECH_TOKENS_MULTI,
)
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from omni_avsr.convert.ctranslate2 import ModelFile, is_ctranslate2, read_ctranslate2
from omni_avsr.convert.folder import Renamed, fill, new_folder, refuse_overwrite
from omni_avsr.convert.weights import (
    Weights,
    count,
    naming,
    read_weights,
    refuse_unusable,
    require,
    shape_of,
)
from omni_avsr.errors import InputError

MODEL_FILE = "model.bin"  # in a folder of CTranslate2's
TOKENIZER_FILE = "tokenizer.json"  # beside it
KIND = "WhisperSpec"
Parts = tuple[tuple[str, str], ...]

# (what to replace, with what), in this order; transformers' names are on the right
OPENAI: Parts = (
    (".blocks.", ".layers."),
    (".attn_ln.", ".self_attn_layer_norm."),
    (".cross_attn_ln.", ".encoder_attn_layer_norm."),
    (".mlp_ln.", ".final_layer_norm."),
    (".mlp.0.", ".fc1."),
    (".mlp.2.", ".fc2."),
    (".attn.", ".self_attn."),
    (".cross_attn.", ".encoder_attn."),
    (".query.", ".q_proj."),
    (".key.", ".k_proj."),
    (".value.", ".v_proj."),
    (".out.", ".out_proj."),
    (".ln_post.", ".layer_norm."),
    ("decoder.ln.", "decoder.layer_norm."),
    (".token_embedding.", ".embed_tokens."),
    (".positional_embedding", ".embed_positions.weight"),
)
CTRANSLATE2: Parts = (
    ("/self_attention/layer_norm/", "/self_attn_layer_norm/"),
    ("/attention/layer_norm/", "/encoder_attn_layer_norm/"),
    ("/ffn/layer_norm/", "/final_layer_norm/"),
    ("/ffn/linear_0/", "/fc1/"),
    ("/ffn/linear_1/", "/fc2/"),
    ("/self_attention/linear_0.query/", "/self_attn/q_proj/"),
    ("/self_attention/linear_0.key/", "/self_attn/k_proj/"),
    ("/self_attention/linear_0.value/", "/self_attn/v_proj/"),
    ("/self_attention/linear_1/", "/self_attn/out_proj/"),
    ("/attention/linear_0/", "/encoder_attn/q_proj/"),
    ("/attention/linear_1.key/", "/encoder_attn/k_proj/"),
    ("/attention/linear_1.value/", "/encoder_attn/v_proj/"),
    ("/attention/linear_2/", "/encoder_attn/out_proj/"),
    ("layer_norm/gamma", "layer_norm/weight"),
    ("layer_norm/beta", "layer_norm/bias"),
    ("/embeddings/weight", "/embed_tokens/weight"),
    ("/position_encodings/encodings", "/embed_positions/weight"),
)
CTRANSLATE2_LAYER = re.compile(r"/layer_(\d+)/")
OUR_LAYER = re.compile(r"/layers/(\d+)/")
# Matrices that CTranslate2 saves as one, one below the other; the names of ours
FUSED = {
    "/self_attention/linear_0/": ("query", "key", "value"),
    "/attention/linear_1/": ("key", "value"),
}
PROJECTION = "decoder/projection/weight"  # is the token embeddings in every Whisper
EMBEDDINGS = "decoder/embeddings/weight"

# Whisper's vocabularies hold a text's tokens, some special ones, the languages, and timestamps.
VOCABULARIES = (51864, 51865, 51866)  # English; multilingual; with one language more
WITHOUT_LANGUAGES = 51765  # tokens of the English one that are no languages
ENGLISH_TEXT = 50256  # tokens of text in the English one; the multilingual ones have one more
SPACE = 220  # the token " "


@dataclass(frozen=True)
class _Whisper:
    """The weights of a file, and what their shapes do not show."""

    weights: Weights
    names: list[Renamed]
    encoder_heads: object
    decoder_heads: object

    def shape(self, name: str, dimensions: int) -> tuple[int, ...]:
        """The shape of the weight that has this name in transformers."""
        found = {str(new): old for old, new in self.names}
        require(found, [name])
        return shape_of(self.weights, found[name], dimensions)

    def layers(self, part: str) -> int:
        """How many layers the encoder or the decoder has."""
        return count([new for _, new in self.names if new], rf"{part}\.layers\.(\d+)\.")


@dataclass(frozen=True)
class _Tokens:
    """The ids of the special tokens, which follow from the size of the vocabulary."""

    size: int

    @property
    def multilingual(self) -> bool:
        return self.size > VOCABULARIES[0]

    @property
    def end(self) -> int:
        return ENGLISH_TEXT + self.multilingual

    @property
    def start(self) -> int:
        return self.end + 1

    @property
    def languages(self) -> dict[str, int]:
        known = self.size - WITHOUT_LANGUAGES - self.multilingual
        first = self.start + 1
        codes = list(LANGUAGES)[:known]
        return {f"<|{code}|>": first + place for place, code in enumerate(codes)}

    @property
    def tasks(self) -> dict[str, int]:
        translate = self.start + 1 + len(self.languages)
        return {"translate": translate, "transcribe": translate + 1}

    @property
    def after_tasks(self) -> list[int]:
        """Start of a language model's text, start of a prompt, no speech."""
        first = self.tasks["transcribe"] + 1
        return [first, first + 1, first + 2]

    @property
    def no_timestamps(self) -> int:
        return self.after_tasks[-1] + 1

    @property
    def never_written(self) -> list[int]:
        """What is no speech: signs such as brackets, and all special tokens but the end."""
        signs = NON_SPEECH_TOKENS_MULTI if self.multilingual else NON_SPEECH_TOKENS
        text = [sign for sign in signs if sign < self.end]
        return [*text, self.start, *self.tasks.values(), *self.after_tasks]


def convert_whisper(source: Path, out: Path) -> list[Renamed]:
    """Writes a folder of transformers' Whisper from a folder of CTranslate2's or openai's file.

    Returns the weights' old and new names.
    """
    refuse_overwrite(out)
    file = source / MODEL_FILE if source.is_dir() else source
    if not file.exists():
        raise InputError(f"{source} holds no {MODEL_FILE}, a folder of CTranslate2's expected")
    of_ctranslate2 = is_ctranslate2(file)
    whisper = _read_ctranslate2(file) if of_ctranslate2 else _read_openai(file)
    with naming(file):
        model = WhisperForConditionalGeneration(_config(whisper))
        name_in_file = _ctranslate2_name if of_ctranslate2 else _openai_name
        fill(model.model, whisper.weights, whisper.names, name_in_file)
    model.to(_dtype(whisper.weights))  # type: ignore[arg-type]  # the wrapper has no types
    with new_folder(out) as folder:
        _save(model, folder, source / TOKENIZER_FILE)
    return whisper.names


def _read_openai(file: Path) -> _Whisper:
    content = read_weights(file)
    sizes = content.extra.get("dims")
    if not isinstance(sizes, dict):
        raise InputError(f"{file} holds no 'dims', a file of openai's Whisper expected")
    names = [Renamed(name, _replaced(name, OPENAI)) for name in content.weights]
    return _Whisper(content.weights, names, sizes.get("n_audio_head"), sizes.get("n_text_head"))


def _openai_name(name: str) -> str:
    return _restored(name, OPENAI)


def _read_ctranslate2(file: Path) -> _Whisper:
    content = read_ctranslate2(file)
    with naming(file):
        if content.kind != KIND:
            raise InputError(f"it holds a model of the kind {content.kind}, {KIND} expected")
        refuse_unusable(content.weights)
        weights = _with_aliases(content)
        names = []
        for name in weights:
            names.append(Renamed(name, None if _not_needed(name, weights) else _our_name(name)))
    heads = content.settings.get
    return _Whisper(weights, names, heads("encoder/num_heads"), heads("decoder/num_heads"))


def _with_aliases(content: ModelFile) -> Weights:
    """The weights under all their names, the fused ones one by one.

    The output's are the embeddings and left out, as transformers' are.
    """
    weights = dict(content.weights)
    for alias, name in content.aliases.items():
        if name in weights and (alias, name) != (PROJECTION, EMBEDDINGS):
            weights[alias] = weights[name]
    for name in list(weights):
        for layer, parts in FUSED.items():
            if layer in name:
                weights.update(_unfused(name, weights.pop(name), layer, parts))
    return weights


def _unfused(name: str, fused: Tensor, layer: str, parts: tuple[str, ...]) -> Weights:
    """The parts of a weight (parts * D, ...) or bias (parts * D,)."""
    if not fused.ndim or len(fused) % len(parts):
        raise InputError(
            f"{name} has shape {tuple(fused.shape)}, rows for {', '.join(parts)} expected"
        )
    found = {}
    for part, weight in zip(parts, fused.chunk(len(parts)), strict=True):
        found[name.replace(layer, f"{layer[:-1]}.{part}/")] = weight
    return found


def _not_needed(name: str, weights: Weights) -> bool:
    """Whether a weight is the bias of keys, which Whisper does not have, and thus zero."""
    return name.endswith(".key/bias") and not weights[name].any()


def _our_name(name: str) -> str:
    name = CTRANSLATE2_LAYER.sub(r"/layers/\1/", name)
    return _replaced(name, CTRANSLATE2).replace("/", ".")


def _ctranslate2_name(name: str) -> str:
    name = OUR_LAYER.sub(r"/layer_\1/", name.replace(".", "/"))
    return _restored(name, CTRANSLATE2)


def _replaced(name: str, parts: Parts) -> str:
    for old, new in parts:
        name = name.replace(old, new)
    return name


def _restored(name: str, parts: Parts) -> str:
    """What _replaced makes such a name of."""
    for old, new in reversed(parts):
        name = name.replace(new, old)
    return name


def _config(whisper: _Whisper) -> WhisperConfig:
    width, mels, _ = whisper.shape("encoder.conv1.weight", 3)
    vocabulary, _ = whisper.shape("decoder.embed_tokens.weight", 2)
    if vocabulary not in VOCABULARIES:
        known = ", ".join(map(str, VOCABULARIES))
        raise InputError(f"a vocabulary of {vocabulary} tokens, Whisper's have {known}")
    tokens = _Tokens(vocabulary)
    return WhisperConfig(
        d_model=width,
        num_mel_bins=mels,
        encoder_layers=whisper.layers("encoder"),
        decoder_layers=whisper.layers("decoder"),
        encoder_attention_heads=_heads(whisper.encoder_heads, width),
        decoder_attention_heads=_heads(whisper.decoder_heads, width),
        encoder_ffn_dim=whisper.shape("encoder.layers.0.fc1.bias", 1)[0],
        decoder_ffn_dim=whisper.shape("decoder.layers.0.fc1.bias", 1)[0],
        max_source_positions=whisper.shape("encoder.embed_positions.weight", 2)[0],
        max_target_positions=whisper.shape("decoder.embed_positions.weight", 2)[0],
        vocab_size=vocabulary,
        decoder_start_token_id=tokens.start,
        bos_token_id=tokens.end,
        eos_token_id=tokens.end,
        pad_token_id=tokens.end,
        begin_suppress_tokens=[SPACE, tokens.end],
    )


def _heads(given: object, width: int) -> int:
    if type(given) is not int or given < 1 or width % given:
        raise InputError(
            f"the file says that it has {given!r} heads, a divisor of {width} expected"
        )
    return given


def _dtype(weights: Weights) -> torch.dtype:
    """The type that most weights have."""
    types = Counter(weight.dtype for weight in weights.values())
    ((dtype, _),) = types.most_common(1)
    return dtype


def _save(model: WhisperForConditionalGeneration, folder: Path, tokenizer_file: Path) -> None:
    """Writes the model and, as far as they are known, what transformers' pipelines need with it."""
    config = model.config
    model.generation_config = _generation_config(config)
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=config.num_mel_bins).save_pretrained(folder)
    if tokenizer_file.is_file():
        shutil.copy(tokenizer_file, folder)


def _generation_config(config: WhisperConfig) -> GenerationConfig:
    tokens = _Tokens(config.vocab_size)
    options = {}
    if tokens.multilingual:
        options = {"lang_to_id": tokens.languages, "task_to_id": tokens.tasks}
    return GenerationConfig(
        bos_token_id=tokens.end,
        eos_token_id=tokens.end,
        pad_token_id=tokens.end,
        decoder_start_token_id=tokens.start,
        is_multilingual=tokens.multilingual,
        no_timestamps_token_id=tokens.no_timestamps,
        prev_sot_token_id=tokens.after_tasks[1],
        suppress_tokens=tokens.never_written,
        begin_suppress_tokens=[SPACE, tokens.end],
        max_length=config.max_target_positions,
        return_timestamps=False,
        **options,
    )
