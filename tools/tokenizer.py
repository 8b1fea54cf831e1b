"""The tokenizer that the tiny language models share."""

import io
from collections.abc import Sequence
from pathlib import Path

import sentencepiece
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from omni_avsr.errors import InputError
from omni_avsr.model.config import PROMPTS
from tools.terminal import console

VOCABULARY = 512
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789'.,?!-"
SPECIAL = {  # ids 0 to 3
    "unk_token": "<unk>",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "pad_token": "<pad>",
}
PROMPT_REPEATS = 200  # in the training text, so that prompts take few pieces


def new_tokenizer(texts: Sequence[str], folder: Path) -> None:
    """Writes a sentencepiece model, and the same as a fast tokenizer that also lowers the case."""
    prompts = [prompt.lower() for prompt in PROMPTS.values()]
    lines = [*dict.fromkeys(texts), *prompts * PROMPT_REPEATS]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="unigram",
        vocab_size=VOCABULARY,
        hard_vocab_limit=False,
        byte_fallback=False,
        required_chars=CHARACTERS,
        character_coverage=1.0,
        normalization_rule_name="identity",
        input_sentence_size=50_000,
        shuffle_input_sentence=False,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=3,
        minloglevel=2,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    fast_tokenizer(pieces).save_pretrained(folder)
    _check(AutoTokenizer.from_pretrained(folder), pieces, lines)


def fast_tokenizer(
    pieces: sentencepiece.SentencePieceProcessor,
) -> PreTrainedTokenizerFast:
    """Returns a tokenizer of these pieces that lowers the case."""
    vocabulary = []
    for piece_id in range(pieces.get_piece_size()):
        vocabulary.append((pieces.id_to_piece(piece_id), pieces.get_score(piece_id)))
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
        **SPECIAL,
    )


def _check(
    tokenizer: PreTrainedTokenizerBase,
    pieces: sentencepiece.SentencePieceProcessor,
    lines: Sequence[str],
) -> None:
    """Refuses a tokenizer that loses something of the texts."""
    ids = tokenizer(list(lines), add_special_tokens=False)["input_ids"]
    decoded = tokenizer.batch_decode(ids)
    lost = [line for line, back in zip(lines, decoded, strict=True) if back != line]
    if lost:
        raise InputError(f"{len(lost)} sentences do not survive the tokenizer, such as {lost[0]!r}")
    unknown = tokenizer.unk_token_id
    letters = tokenizer(CHARACTERS, add_special_tokens=False)["input_ids"]
    if any(unknown in row for row in [*ids, letters]):
        raise InputError(f"the tokenizer does not know every character of {CHARACTERS}")
    same = sum(row == pieces.encode(line) for row, line in zip(ids, lines, strict=True))
    console.print(
        f"tokenizer: {len(tokenizer)} pieces; {same} of {len(lines)} sentences are cut as "
        "sentencepiece cuts them"
    )
