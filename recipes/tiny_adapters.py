"""Stage 3 of recipes/tiny_towers.py: the shipped omni-avsr-st on the tiny towers; and the package of all stages."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoTokenizer

from omni_avsr.model import OmniAVSR, OmniAVSRProcessor
from omni_avsr.model.towers import checksum

from .tiny_corpus import Corpus, Noise, console
from .tiny_encoders import FOLDERS
from .tiny_lm import SIZES, Rows, affordable, reading_loss, show, word_errors
from .tiny_loop import Plan, train

NAME = "omni-avsr-st"
TOWERS = {**FOLDERS, "llm": "tiny-m"}
RATES = [(4, 2), (16, 5)]
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
BUDGET = 15_000_000  # bytes of the whole folder
RESULTS = "results.json"


def adapt(corpus: Corpus, held_out: dict[str, Corpus], plan: Plan, out: Path) -> dict[str, Any]:
    """Trains the adapters and projectors, writes their folder, and returns their word error rates."""
    torch.manual_seed(plan.seed)
    towers: dict[str, Any] = {kind: out.resolve() / folder for kind, folder in TOWERS.items()}
    model = OmniAVSR.from_towers(
        **towers,
        method=NAME,
        audio_rates=[4, 16],
        video_rates=[2, 5],
        lora_rank=16,
        lora_alpha=32.0,
        lora_targets=LINEAR,
        video_lora_rank=0,
        projector_width=256,
    ).to(corpus.device)
    processor = OmniAVSRProcessor(AutoTokenizer.from_pretrained(out / TOWERS["llm"]), model.config)
    rows = Rows.of(processor, corpus.texts)
    modules: dict[str, nn.Module] = {"model": model}
    losses = reading_loss({NAME: model}, rows, plan.seed)
    row: dict[str, Any] = train(plan, modules, losses, affordable(corpus, model, plan), Noise())
    save(model, out)
    loaded = OmniAVSR.from_pretrained(out / NAME).to(corpus.device)  # as it ships: in half precision
    row["wer"] = [line for n, c in held_out.items() for line in word_errors(loaded, processor, n, c, RATES)]
    row["parameters"] = sum(p.numel() for p in model.parameters() if p.requires_grad)
    show(NAME, row)
    return row


def save(model: OmniAVSR, out: Path) -> None:
    """Writes the adapters in half precision, with the towers by the names of the folders beside them."""
    folder = out / NAME
    model.save_pretrained(folder)
    for path in folder.rglob("*.safetensors"):
        save_file({name: _half(weight) for name, weight in load_file(path).items()}, path, {"format": "pt"})
    for path in folder.rglob("adapter_config.json"):
        _edit(path, base_model_name_or_path=None)
    for path in folder.rglob("README.md"):  # PEFT's empty model cards
        path.unlink()
    known = {k: {"name": f"../{f}", "revision": None, "sha256": checksum(out / f)} for k, f in TOWERS.items()}
    _edit(folder / "config.json", towers=known)


def _half(weight: Tensor) -> Tensor:
    return weight.half() if weight.is_floating_point() else weight


def _edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values, indent=2, sort_keys=True) + "\n")


def package(out: Path, smoke: Corpus) -> None:
    """Writes the card and the checksums, after loading every folder and decoding; refuses what is too large."""
    for size in SIZES:
        OmniAVSR.from_towers(audio=out / FOLDERS["audio"], llm=out / size, tasks=["asr"])
    model, processor = OmniAVSR.from_pretrained(out / NAME), OmniAVSRProcessor.from_pretrained(out / NAME)
    model.to(smoke.device)
    console.print(f"loads and decodes: {word_errors(model, processor, 'smoke', smoke, [(4, 2)])}")
    (out / "README.md").write_text(card(json.loads((out / RESULTS).read_text()), out))
    files = sorted(path for path in out.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    for path in files:
        path.chmod(0o644)  # safetensors writes for its owner alone
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(out)}\n" for path in files]
    (out / "SHA256SUMS").write_text("".join(sums))
    total = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    console.print(f"{out}: {len(files) + 1} files, {total / 1e6:.2f} MB")
    if total >= BUDGET:
        raise ValueError(f"{out} holds {total} bytes, under {BUDGET} expected: make SIZES smaller")


def card(results: dict[str, Any], out: Path) -> str:
    """The model card, its figures from the results of the stages."""
    spent = ("steps", "batch", "seconds")
    sizes = [
        [name, f"{row['parameters']:,}", f"{_bytes(out / name) / 1e6:.2f}", *(row[key] for key in spent)]
        for name, row in results.items()
        if "parameters" in row
    ]
    keys = ("known", "unknown", "known_0dB", "unknown_0dB")
    frames = [
        [name, *(f"{100 * row[key]:.1f} %" if key in row else "" for key in keys)]
        for name, row in results.items()
        if "known" in row
    ]
    return CARD.format(
        towers=_table(["folder", "parameters", "MB", "steps", "batch", "seconds"], sizes),
        frames=_table(["folder", "known voices", "unknown voices", "known, 0 dB", "unknown, 0 dB"], frames),
        reading=_wers({size: results[size]["wer"] for size in SIZES}),
        shipped=_wers({NAME: results[NAME]["wer"]}),
        **results["corpus"],
    )


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def _wers(models: dict[str, list[dict[str, Any]]]) -> str:
    rows = [(name, row) for name, table in models.items() for row in table]
    columns = list(dict.fromkeys(f"{row['set']}, {row['noise']}" for _, row in rows))
    cells: dict[tuple[str, str], dict[str, float]] = {}
    for name, row in rows:
        where = name, f"{row['task'].upper()} ({', '.join(map(str, row['rates']))})"
        cells.setdefault(where, {})[f"{row['set']}, {row['noise']}"] = row["wer"]
    lines = [[*where, *(row[column] for column in columns)] for where, row in cells.items()]
    return _table(["model", "task (rates)", *columns], lines)


def _table(head: list[str], rows: list[list[Any]]) -> str:
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in [head, ["---"] * len(head), *rows])


CARD = """# Tiny towers

Towers of an audio-visual language model for tests, demos and lessons: a Whisper-shaped ear, an AV-HuBERT-shaped eye,
three Llama-shaped language models with one tokenizer, and a trained `omni-avsr-st` on the ear, the eye and `tiny-m`.
Half precision; `SHA256SUMS` holds the checksums. They know the toy corpus of omni-avsr and nothing else. Apache-2.0;
no weight and no recording of anybody is in them.

{towers}

## Data

{clips} clips of the toy corpus ({hours} hours; world `{world}`, seed {seed}): sentences of two grammars, half
six-word commands with letters, half open ones of over 500 words, said by espeak-ng in several voices, with a drawn
mouth. Figures below are on {held_out} clips a set: sentences that training never saw, and in `grid` and `open`
speakers that it never saw either.

## Training

- Ear and eye: the phoneme of every frame, cross-entropy through a head that is thrown away. Babble of six other clips
  at -5 to 20 dB on 65 % of the clips, hidden stretches, mirrored and shifted crops, other light.
- Language models: all parameters, on features of the frozen ear and eye through projectors that are thrown away, all
  three tasks at audio rates 1 to 16 and video rates 1 to 5, and some plain text.
- `omni-avsr-st`: LoRA of rank 16 on all linear layers, shared and per task, and projectors for the rates 4, 16 and 2,
  5.

AdamW with warm-up and cosine, clipped at 1, bf16. To reproduce: `python -m recipes.tiny_towers --help`.

## Figures

Frames whose phoneme is named, {held_out} clips:

{frames}

Word error rate in %, greedy; babble of six other test clips at 0 dB. The language models as they came out of their
own training, with its projectors:

{reading}

The shipped adapters, from these files:

{shipped}

## Limits

Synthetic voices and drawn lips: on recordings of people they say nonsense. One language, {words} words, sentences of
two grammars, clips of at most 16 seconds. The figures are of one seed.
"""
