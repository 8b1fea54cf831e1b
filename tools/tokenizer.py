"""The tokenizers of the tiny language models."""

import io
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import sentencepiece
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from omni_avsr.errors import InputError
from omni_avsr.model.config import PROMPTS
from tools.terminal import console

CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789'.,?!-"
SPECIAL = {  # ids 0 to 3
    "unk_token": "<unk>",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "pad_token": "<pad>",
}
PROMPT_REPEATS = 200  # in the training text, so that prompts take few pieces
SPACE = "▁"  # how sentencepiece writes the space before a word


def new_tokenizer(texts: Sequence[str], size: int, folder: Path) -> None:
    """Writes a sentencepiece model, and the same as a fast tokenizer that also lowers the case.

    Most words are one piece, as they are in the vocabularies of real language models.
    """
    prompts = [prompt.lower() for prompt in PROMPTS.values()]
    lines = [*dict.fromkeys(texts), *prompts * PROMPT_REPEATS]
    characters = "".join(sorted({*CHARACTERS, *"".join(lines)} - {" "}))
    model = io.BytesIO()
    with tempfile.NamedTemporaryFile("w", suffix=".tsv", encoding="utf-8") as seeds:
        seeds.write(_seeds(lines, characters))
        seeds.flush()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="unigram",
            seed_sentencepieces_file=seeds.name,
            vocab_size=size,
            hard_vocab_limit=False,
            byte_fallback=False,
            required_chars=characters,
            character_coverage=1.0,
            normalization_rule_name="identity",
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
    _check(AutoTokenizer.from_pretrained(folder), pieces, lines, characters)


def _seeds(lines: Sequence[str], characters: str) -> str:
    """Returns the pieces to choose from and how often each occurs: whole words and characters.

    By itself, sentencepiece would prefer pieces of several words, and then cut them at the spaces.
    """
    counts: Counter[str] = Counter(dict.fromkeys([SPACE, *characters], 1))
    for line in lines:
        for word in line.split():
            counts[SPACE + word] += 1
            counts.update(word)
    return "".join(f"{piece}\t{count}\n" for piece, count in counts.most_common())


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
    characters: str,
) -> None:
    """Refuses a tokenizer that loses something of the texts."""
    ids = tokenizer(list(lines), add_special_tokens=False)["input_ids"]
    decoded = tokenizer.batch_decode(ids)
    lost = [line for line, back in zip(lines, decoded, strict=True) if back != line]
    if lost:
        raise InputError(f"{len(lost)} sentences do not survive the tokenizer, such as {lost[0]!r}")
    unknown = tokenizer.unk_token_id
    letters = tokenizer(characters, add_special_tokens=False)["input_ids"]
    if any(unknown in row for row in [*ids, letters]):
        raise InputError(f"the tokenizer does not know every character of {characters}")
    words = sum(len(line.split()) for line in lines)
    same = sum(row == pieces.encode(line) for row, line in zip(ids, lines, strict=True))
    console.print(
        f"tokenizer: {len(tokenizer)} pieces, {sum(map(len, ids)) / words:.2f} for a word; {same} "
        f"of {len(lines)} sentences are cut as sentencepiece cuts them"
    )
