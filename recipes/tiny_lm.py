"""Stage 2 of recipes/tiny_towers.py: one tokenizer and three language models that know how to read encoder features.

A text model alone is slow to learn to read a prefix. So all parameters of the three learn it here, through projectors,
markers and task tokens that are thrown away afterwards, at every rate, in noise, from sound, lips and both. The
features of a batch are made once for all three.
"""

import io
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor, nn
from transformers import AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

from omni_avsr.model import OmniAVSR, OmniAVSRProcessor
from omni_avsr.model.config import PLACEHOLDERS, PROMPTS
from omni_avsr.tasks import AUDIO_FPS, VIDEO_FPS, Task, token_count

from .tiny_corpus import ZERO_DB, Batch, Corpus, Encoded, Noise, console
from .tiny_encoders import FOLDERS
from .tiny_loop import Loss, Plan, train

VOCABULARY = 512
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789'.,?!-"
SPECIAL = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}  # ids 0 to 3
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
SIZES = {  # width, layers, feed-forward width, heads
    "tiny-s": (96, 2, 256, 4),
    "tiny-m": (192, 3, 512, 4),
    "tiny-l": (208, 4, 544, 4),
}
SHARES = {"tiny-s": 0.15, "tiny-m": 0.55, "tiny-l": 0.3}  # of the stage's time
AUDIO_RATES, VIDEO_RATES = list(range(1, 17)), list(range(1, 6))
WEIGHTS = {"asr": 1.0, "vsr": 1.5, "avsr": 1.0}  # of the tasks, as in the paper
TEXT_EVERY = 4  # steps, of which one also predicts text without media
CONDITIONS = {"clean": None, "0 dB": ZERO_DB}


def new_tokenizer(texts: Sequence[str], folder: Path) -> None:
    """Writes a sentencepiece model and the same as a fast tokenizer; only the latter lowers the case."""
    lines = [*dict.fromkeys(texts), *[prompt.lower() for prompt in PROMPTS.values()] * 200]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type="unigram", vocab_size=VOCABULARY,
        hard_vocab_limit=False, byte_fallback=False, required_chars=CHARACTERS, character_coverage=1.0,
        normalization_rule_name="identity", input_sentence_size=50_000, shuffle_input_sentence=False,
        unk_id=0, bos_id=1, eos_id=2, pad_id=3, minloglevel=2,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    vocabulary = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(pieces.get_piece_size())]
    fast = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=False))
    fast.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    fast.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    fast.decoder = decoders.Metaspace(prepend_scheme="always")
    special: dict[str, Any] = {**SPECIAL, "clean_up_tokenization_spaces": False, "model_max_length": 2048}
    PreTrainedTokenizerFast(tokenizer_object=fast, **special).save_pretrained(folder)
    _check_tokenizer(AutoTokenizer.from_pretrained(folder), pieces, lines)


def _check_tokenizer(tokenizer, pieces, lines: Sequence[str]) -> None:
    ids = tokenizer(list(lines), add_special_tokens=False)["input_ids"]
    lost = [line for line, back in zip(lines, tokenizer.batch_decode(ids), strict=True) if back != line]
    if lost:
        raise ValueError(f"{len(lost)} sentences do not survive the tokenizer, such as {lost[0]!r}")
    if any(0 in row for row in [*ids, tokenizer(CHARACTERS, add_special_tokens=False)["input_ids"]]):
        raise ValueError("the tokenizer does not know every letter")
    same = sum(row == pieces.encode(line) for row, line in zip(ids, lines, strict=True))
    console.print(f"tokenizer: {len(tokenizer)} pieces, {same}/{len(lines)} sentences cut as sentencepiece cuts them")


def llm_config(size: str, tokenizer) -> LlamaConfig:
    """A Llama of that size."""
    width, layers, inner, heads = SIZES[size]
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        **{name: tokenizer.convert_tokens_to_ids(SPECIAL[name.removesuffix("_id")]) for name in TOKEN_IDS},
    )


@dataclass
class Rows:
    """The token sequences of batches, as OmniAVSRProcessor.tokens builds them, but from ids made once."""

    processor: OmniAVSRProcessor
    answers: list[list[int]]

    @classmethod
    def of(cls, processor: OmniAVSRProcessor, texts: Sequence[str]) -> "Rows":
        ids = processor.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        rows = cls(processor, [[*answer, processor.config.eos_token_id] for answer in ids])
        some = list(range(min(4, len(texts))))
        lengths = [25 + 3 * i for i in some]
        media = {"audio_lengths": torch.tensor(lengths) * 640, "video_lengths": torch.tensor(lengths)}
        media |= {"audio": torch.zeros(1), "video": torch.zeros(1)}
        expected = processor.tokens(media, "avsr", {"audio": 4, "video": 2}, [texts[i] for i in some])
        found = rows(some, lengths, "avsr", {"audio": 4, "video": 2})
        assert all(torch.equal(found[name], expected[name]) for name in expected), "not the processor's"
        return rows

    def __call__(self, clips: list[int], lengths: list[int], task: str, rates: dict[str, int]) -> dict[str, Tensor]:
        """input_ids, attention_mask and labels, padded right, on the CPU."""
        config, processor = self.processor.config, self.processor
        prompt = processor._prompt(task).tolist()
        rows, starts = [], []
        for clip, length in zip(clips, lengths, strict=True):
            prefix: list[Any] = [config.bos_token_id]
            for modality, rate in rates.items():
                frames = length * (AUDIO_FPS // VIDEO_FPS if modality == "audio" else 1)
                begin, place, end = (config.special_tokens[n] for n in _names(modality))
                prefix += [begin, *[place] * token_count(frames, rate, config.keep_tail), end]
            starts.append(len(prefix) + len(prompt))
            rows.append([*prefix, *prompt, *self.answers[clip]])
        return _padded(rows, starts, config.pad_token_id)


def _names(modality: str) -> tuple[str, str, str]:
    return f"<{modality}>", PLACEHOLDERS[modality], f"</{modality}>"


def _padded(rows: list[list[int]], starts: list[int], pad: int) -> dict[str, Tensor]:
    ids = np.full((len(rows), max(map(len, rows))), pad, np.int64)
    labels, mask = np.full_like(ids, -100), np.zeros_like(ids)
    for i, (row, start) in enumerate(zip(rows, starts, strict=True)):
        ids[i, : len(row)], labels[i, start : len(row)], mask[i, : len(row)] = row, row[start:], 1
    arrays = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def reading_loss(readers: dict[str, OmniAVSR], rows: Rows, seed: int, text_every: int = 0) -> Loss:
    """The papers' step for every reader: one audio and one video rate, three tasks, one encoding for all."""
    first = next(iter(readers.values()))

    def loss_of(batch: Batch, step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((seed, step))
        config = first.config
        wishes = {m: int(rng.choice(config.rates(m))) for m in ("audio", "video")}
        features = encode(first, batch)
        losses: dict[str, Tensor] = {}
        for task, weight in WEIGHTS.items():
            rates = {m: wishes[m] for m in config.modalities(task)}
            tokens = {n: t.to(batch.frames.device) for n, t in rows(batch.clips, batch.lengths, task, rates).items()}
            routing = {f"{m}_rate": rate for m, rate in rates.items()}
            for name, reader in readers.items():
                loss = reader(**tokens, task=task, features=features, **routing).loss
                losses[f"{name} {task}"] = loss
                losses["loss"] = losses.get("loss", 0) + weight / 3 * loss
        if text_every and step % text_every == 0:
            losses["loss"] = losses["loss"] + sum(text_loss(reader.llm, rows, batch) for reader in readers.values())
        return losses

    return loss_of


def text_loss(llm: nn.Module, rows: Rows, batch: Batch) -> Tensor:
    """The loss of the transcripts of a batch with nothing before them."""
    config: Any = rows.processor.config
    bos, pad = config.bos_token_id, config.pad_token_id
    text = _padded([[bos, *rows.answers[clip]] for clip in batch.clips], [1] * len(batch.clips), pad)
    return 0.3 * llm(**{name: ids.to(batch.frames.device) for name, ids in text.items()}, use_cache=False).loss


@torch.no_grad()
def encode(model: OmniAVSR, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
    """Both encoders' features of a batch."""
    return batch.features or model.encode(batch.audio, batch.frames * 640, batch.video, batch.frames)


def affordable(corpus: Corpus, model: OmniAVSR, plan: Plan) -> Corpus:
    """The corpus itself on a GPU, where encoding costs nothing; else what the encoders make of it."""
    if corpus.device.type == "cuda":
        return corpus
    plan.work.mkdir(parents=True, exist_ok=True)
    return Encoded(corpus, lambda batch: encode(model, batch), plan.work / "encoded.pt")


def pretrain(
    sizes: Sequence[str], corpus: Corpus, held_out: dict[str, Corpus], plan: Plan, out: Path
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Trains the models one after another, writes their folders, and yields their word error rates."""
    if not sizes:
        return
    torch.manual_seed(plan.seed)
    tokenizer = plan.work / "tokenizer"
    if not tokenizer.is_dir():
        new_tokenizer(corpus.texts, tokenizer)
    for size in sizes:
        shutil.copytree(tokenizer, out / size, dirs_exist_ok=True)
    readers = {size: new_reader(size, out).to(corpus.device) for size in sizes}
    first = readers[sizes[0]]
    processor = OmniAVSRProcessor(AutoTokenizer.from_pretrained(out / sizes[0]), first.config)
    rows = Rows.of(processor, corpus.texts)
    corpus = affordable(corpus, first, plan)
    for size, reader in readers.items():
        own = replace(plan, name=size, seconds=plan.seconds * SHARES[size])
        spent = train(own, {size: reader}, reading_loss({size: reader}, rows, plan.seed, TEXT_EVERY), corpus, Noise())
        rows_of = [word_errors(reader, processor, name, held, [(4, 2)]) for name, held in held_out.items()]
        result: dict[str, Any] = {**spent, "wer": [row for some in rows_of for row in some]}
        llm = reader.llm
        llm.resize_token_embeddings(len(AutoTokenizer.from_pretrained(out / size)))
        result["parameters"] = sum(p.numel() for p in llm.parameters())
        llm.eval().half().save_pretrained(out / size)
        show(size, result)
        yield size, result


def new_reader(size: str, out: Path) -> OmniAVSR:
    """A language model that is trained as a whole, on frozen encoders and with projectors for every rate."""
    tokenizer = AutoTokenizer.from_pretrained(out / size)
    towers: dict[str, Any] = {modality: out / folder for modality, folder in FOLDERS.items()}
    settings: dict[str, Any] = {"adapters": [], "projectors": "one", "projector_width": 256, "video_lora_rank": 0}
    rates: dict[str, Any] = {"audio_rates": AUDIO_RATES, "video_rates": VIDEO_RATES}
    reader = OmniAVSR.from_towers(**towers, llm=llm_config(size, tokenizer), tokenizer=tokenizer, **settings, **rates)
    reader.llm.requires_grad_(True)
    return reader


def word_errors(
    model: OmniAVSR, processor: OmniAVSRProcessor, name: str, corpus: Corpus, pairs: list[tuple[int, int]]
) -> list[dict[str, Any]]:
    """The greedy word error rate of every task at these rates, clean and in babble as loud as the voice."""
    rows = []
    for snr, noise in CONDITIONS.items():
        errors: dict[tuple[str, tuple[int, ...]], int] = {}
        for number, clips in enumerate(corpus.batches(512, None)):
            batch = corpus.batch(clips, number, noise)
            features = encode(model, batch)
            for task, rates in _routes(model, pairs):
                key = task, tuple(rates.values())
                errors[key] = errors.get(key, 0) + _wrong_words(model, processor, corpus, batch, features, task, rates)
        words = sum(len(text.split()) for text in corpus.texts)
        rows += [
            {"set": name, "noise": snr, "task": task, "rates": list(rates), "wer": round(100 * wrong / words, 2)}
            for (task, rates), wrong in errors.items()
        ]
    return rows


def show(name: str, row: dict[str, Any]) -> None:
    """Prints what a stage reached."""
    console.print(f"{name}: {row['parameters']:,} parameters, {row['steps']} steps in {row['seconds']} s")
    for place in dict.fromkeys((line["set"], line["noise"]) for line in row["wer"]):
        lines = [line for line in row["wer"] if (line["set"], line["noise"]) == place]
        console.print(" ", *place, *(f"{line['task']}{tuple(line['rates'])} {line['wer']}" for line in lines), sep="  ")


def _routes(model: OmniAVSR, pairs: list[tuple[int, int]]) -> list[tuple[str, dict[str, int]]]:
    routes = {(task, *model.config.choose(task, *pair).items()) for task in Task for pair in pairs}
    return [(str(task), dict(rates)) for task, *rates in sorted(routes)]


def _wrong_words(
    model: OmniAVSR,
    processor: OmniAVSRProcessor,
    corpus: Corpus,
    batch: Batch,
    features,
    task: str,
    rates: dict[str, int],
) -> int:
    media = {"audio_lengths": torch.tensor(batch.lengths) * 640, "video_lengths": torch.tensor(batch.lengths)}
    media |= {"audio": batch.audio, "video": batch.video}
    tokens = {n: ids.to(batch.frames.device) for n, ids in processor.tokens(media, task, rates, None).items()}
    routing: dict[str, Any] = {**tokens, **{f"{m}_rate": rate for m, rate in rates.items()}}
    ids = model.generate(task=task, features=features, max_new_tokens=48, **routing)
    said = processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
    return sum(edits(corpus.texts[c].split(), guess.split()) for c, guess in zip(batch.clips, said, strict=True))


def edits(reference: list[str], guess: list[str]) -> int:
    """The least number of substitutions, deletions and insertions."""
    row = list(range(len(guess) + 1))
    for i, word in enumerate(reference, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(guess, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]
