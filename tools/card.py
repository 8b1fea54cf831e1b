"""The model card of the tiny towers, written from the results of the stages."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from omni_avsr.tasks import Condition, Route
from tools.adapters import MODELS
from tools.corpus import SETS
from tools.encoders import FOLDERS
from tools.language_models import SIZES
from tools.loop import Result

Results = Mapping[str, Result]  # of each stage


def card(results: Results, out: Path) -> str:
    """Returns the text of README.md."""
    return TEMPLATE.format(
        towers=_tower_table(results, out),
        frames=_frame_table(results),
        reading=_wer_table(results, SIZES),
        shipped=_wer_table(results, MODELS),
        **results["corpus"],
    )


def _tower_table(results: Results, out: Path) -> str:
    rows = []
    for name, result in results.items():
        if "parameters" in result:
            size = sum(path.stat().st_size for path in (out / name).rglob("*.safetensors"))
            taken = [result[key] for key in ("steps", "batch", "seconds")]
            rows.append([name, f"{result['parameters']:,}", f"{size / 1e6:.2f}", *taken])
    return _table(["folder", "parameters", "MB", "steps", "batch", "seconds"], rows)


def _frame_table(results: Results) -> str:
    rows = []
    for name in FOLDERS.values():
        for condition, ending in {"clean": "", "babble 0 dB": "_0dB"}.items():
            keys = [f"{of}{ending}" for of in SETS]
            if keys[0] in results[name]:  # the video encoder hears no babble
                shares = [f"{100 * results[name][key]:.1f}" for key in keys]
                rows.append([name, condition, *shares])
    return _table(["folder", "sound", *SETS], rows)


def _wer_table(results: Results, models: Iterable[str]) -> str:
    """Returns a row for each model and route, and a column for each set and condition."""
    columns: dict[str, None] = {}
    cells: dict[tuple[str, Route], dict[str, float]] = {}
    for model in models:
        for row in results[model]["wer"]:
            column = f"{row['set']}, {Condition.from_row(row)}"
            columns[column] = None
            cells.setdefault((model, Route.from_row(row)), {})[column] = row["wer"]
    rows = []
    for (model, route), wers in cells.items():
        rows.append([model, route, *(wers.get(column, "") for column in columns)])
    return _table(["model", "task (rates)", *columns], rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    rule = ["---"] * len(head)
    lines = []
    for row in [head, rule, *rows]:
        lines.append(f"| {' | '.join(map(str, row))} |")
    return "\n".join(lines)


TEMPLATE = """# Tiny towers

Small towers of an audio-visual language model, for tests, demos and lessons: an audio encoder like
Whisper, a video encoder like AV-HuBERT, and four language models like Llama: `tiny-s`, `tiny-m` and
`tiny-l` with one English tokenizer, and `tiny-multi`, which knows English, Spanish, French, Italian
and Russian. Beside them are two trained models: `omni-avsr-st` on `tiny-m`, and
`omni-avsr-st-multi` on `tiny-multi`. The weights are in half precision, and `SHA256SUMS` has the
checksums. The models only know the toy corpus of omni-avsr. They were trained from random weights
and without recordings of people. License: Apache-2.0.

{towers}

## Data

The encoders were trained on {clips} clips of the toy corpus, half of them English, and the language
models on {read} others, two thirds of them English (seed {seed}). The sentences come from grammars:
`grid` is six-word commands with letters, and `open` and the other languages are open sentences from
about 500 words each. espeak-ng says them in many voices, the open ones at 0.8 to 1.4 times a
voice's usual rate and with pauses, and a drawn mouth moves with them. The figures below are
measured on {held_out} clips per set, whose sentences and speakers were never met in training.

## Training

- Audio encoder: the phoneme of every frame, with cross-entropy through a head that is thrown away.
  65 % of the clips have babble of six other clips at -5 to 20 dB, and stretches are hidden.
- Video encoder: its front end learns the lip parameters and the phoneme of single frames, those of
  a fifth of the clips; crops are shifted and mirrored, and the light changes. Then it is frozen,
  and the transformer behind it learns the phoneme of every frame.
- Language models: all parameters are trained, on features of the frozen encoders and through
  projectors that are thrown away. They learn ASR first and then all three tasks, at audio rates 2
  to 16 and video rates 1 to 5, and every fourth step other sentences of the grammars as plain text.
  A tenth of the features' numbers and short stretches of them are hidden.
- `omni-avsr-st`: LoRA of rank 16 (8 in `-multi`) on all linear layers, shared and per task,
  projectors for the audio rates 4 and 16 and the video rates 2 and 5, and the aligner that finds
  when words are said.

AdamW with warm-up and cosine decay, gradients clipped at 1, bf16. To reproduce:
`python -m tools.tiny_towers --help`.

## Figures

Share of frames whose phoneme is named, in %:

{frames}

Word error rate in %, with greedy decoding; babble is that of six other clips of the set. The
language models after their own training, with its projectors:

{reading}

The shipped adapters, loaded from these files:

{shipped}

## Limits

Voices are synthetic and lips are drawn, so the models do not understand recordings of people. They
know the sentences of a few grammars, and clips of at most 16 seconds. The figures are those of one
seed.
"""
