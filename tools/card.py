"""The model card of the tiny towers, written from the results of the stages."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from omni_avsr.tasks import Condition, Route
from tools.adapters import NAME
from tools.encoders import FOLDERS
from tools.language_models import SIZES
from tools.loop import Result

Results = Mapping[str, Result]  # of each stage
ACCURACIES = {
    "known": "known voices",
    "unknown": "unknown voices",
    "known_0dB": "known, 0 dB",
    "unknown_0dB": "unknown, 0 dB",
}


def card(results: Results, out: Path) -> str:
    """Returns the text of README.md."""
    return TEMPLATE.format(
        towers=_tower_table(results, out),
        frames=_frame_table(results),
        reading=_wer_table(results, SIZES),
        shipped=_wer_table(results, [NAME]),
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
        cells = []
        for key in ACCURACIES:
            accuracy = results[name].get(key)
            cells.append("" if accuracy is None else f"{100 * accuracy:.1f} %")
        rows.append([name, *cells])
    return _table(["folder", *ACCURACIES.values()], rows)


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
        rows.append([model, route, *(wers[column] for column in columns)])
    return _table(["model", "task (rates)", *columns], rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    rule = ["---"] * len(head)
    lines = []
    for row in [head, rule, *rows]:
        lines.append(f"| {' | '.join(map(str, row))} |")
    return "\n".join(lines)


TEMPLATE = """# Tiny towers

Small towers of an audio-visual language model, for tests, demos and lessons: an audio encoder like
Whisper, a video encoder like AV-HuBERT, three language models like Llama with one tokenizer, and a
trained `omni-avsr-st` on both encoders and `tiny-m`. The weights are in half precision, and
`SHA256SUMS` has the checksums. The models only know the toy corpus of omni-avsr. They were trained
from random weights and without recordings of people. License: Apache-2.0.

{towers}

## Data

{clips} clips of the toy corpus ({hours} hours; world `{world}`, seed {seed}).
The sentences come from two grammars: half are six-word commands with letters, half are open
sentences from over 500 words. espeak-ng says them in several voices, and a drawn mouth moves with
them. The figures below are measured on {held_out} clips per set, whose sentences were never seen in
training. In `grid` and `open` the speakers were never seen either.

## Training

- Encoders: the phoneme of every frame, with cross-entropy through a head that is thrown away. 65 %
  of the clips have babble of six other clips at -5 to 20 dB. Stretches of clips are hidden, crops
  are shifted and mirrored, and the light changes.
- Language models: all parameters are trained, on features of the frozen encoders and through
  projectors that are thrown away. They learn all three tasks at audio rates 1 to 16 and video rates
  1 to 5, and some plain text.
- `omni-avsr-st`: LoRA of rank 16 on all linear layers, shared and per task, and projectors for the
  audio rates 4 and 16 and the video rates 2 and 5.

AdamW with warm-up and cosine decay, gradients clipped at 1, bf16. To reproduce:
`python -m tools.tiny_towers --help`.

## Figures

Share of frames whose phoneme is named, on {held_out} clips:

{frames}

Word error rate in %, with greedy decoding; babble is that of six other clips of the set. The
language models after their own training, with its projectors:

{reading}

The shipped adapters, loaded from these files:

{shipped}

## Limits

Voices are synthetic and lips are drawn, so the models do not understand recordings of people. They
know one language, {words} words, sentences of two grammars, and clips of at most 16 seconds. The
figures are those of one seed.
"""
