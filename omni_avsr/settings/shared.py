"""Groups of options that several commands share."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omni_avsr.settings.base import COUNT, POSITIVE, Settings, option

WORLDS = ("grid", "open", "mixed")
LANGUAGES = ("en", "es", "fr", "it", "ru")  # of the open world; the others are English
MULTI = "multi"  # all languages in turn
TOWERS = ("audio", "video", "llm")
DTYPES = ("auto", "float32", "bfloat16", "float16")
BITS = ("8bit", "4bit")


@dataclass(frozen=True)
class SoundOptions(Settings):
    """Which sound of a file is heard."""

    audio_track: int | None = option(
        None,
        "Which audio track of the files, from 1.  [default: the first that is not silent]",
        bounds=COUNT,
    )


@dataclass(frozen=True)
class LabelOptions(SoundOptions):
    """How a label file is read."""

    root: Path | None = option(
        None,
        "Folder that the file's paths start from.  [default: as its format has it]",
        must_exist=True,
    )
    format: str | None = option(
        None, "The label file's format, if it is not detected correctly.  [default: detected]"
    )
    tokens: Path | None = option(
        None,
        "For label files of token ids: a list of pieces and ids, or Auto-AVSR's .model beside it.",
        must_exist=True,
    )


@dataclass(frozen=True)
class ToyOptions(Settings):
    """Which toy corpus is used where no label file is given."""

    toy_world: str = option("grid", "World of the toy corpus: grid, open or mixed.", WORLDS)
    toy_language: str = option(
        "en", "Language of its open world; multi is all of them in turn.", (*LANGUAGES, MULTI)
    )
    toy_clips: int = option(
        1600, "Its training clips; there are an eighth as many test clips.", bounds=COUNT
    )


@dataclass(frozen=True)
class DetectorOptions(Settings):
    """What finds faces in raw video."""

    detector: Path | None = option(
        None,
        "The face detector's file, YuNet as ONNX.  [default: found or downloaded]",
        must_exist=True,
    )
    download: bool = option(True, "Whether the detector may be downloaded.")


@dataclass(frozen=True)
class FaceOptions(DetectorOptions):
    """How the mouth is found in raw video."""

    face: int | None = option(
        None, "Which face: 1 is the one seen longest.  [default: the one that speaks]", bounds=COUNT
    )


@dataclass(frozen=True)
class PrecisionOptions(Settings):
    """The type that the frozen towers are kept in."""

    dtype: str = option(
        "auto",
        "Type of the frozen towers: float32, bfloat16, float16, or auto, which is bfloat16 on a "
        "GPU that has it, else float32.",
        DTYPES,
    )
    quantize: str | None = option(
        None,
        "Keep the LLM's layers in 8bit or 4bit; needs `pip install 'omni-avsr[quantize]'`.  "
        "[default: as --dtype says]",
        BITS,
    )


@dataclass(frozen=True)
class CheckpointOptions(PrecisionOptions):
    """Which model decodes, where, and how."""

    checkpoint: str | None = option(
        None,
        "A run, a model's folder or hub id, tiny or tiny-multi.  [default: the newest run in "
        "runs/, or tiny]",
    )
    tower: tuple[str, ...] | None = option(
        None, "Where moved towers are now, such as video=FOLDER,llm=FOLDER.  [default: as recorded]"
    )
    beams: int = option(1, "Width of the beam search; 1 is greedy.", bounds=COUNT)
    max_new_tokens: int | None = option(
        None,
        "Longest transcript of a clip, in tokens.  [default: 16, and 20 per second]",
        bounds=COUNT,
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps.")
    engine_url: str | None = option(
        None,
        "Address of the vLLM server that runs the LLM, greedily; see `omni-avsr export vllm`.",
    )

    @property
    def towers(self) -> dict[str, str]:
        """The new place of each moved tower, by its kind."""
        pairs = [given.split("=", 1) for given in self.tower or ()]
        return {kind.strip(): place.strip() for kind, place in pairs}

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        for given in self.tower or ():
            kind, _, place = given.partition("=")
            if kind.strip() not in TOWERS or not place.strip():
                yield f"tower {given!r} is not KIND=FOLDER, where KIND is {', '.join(TOWERS)}"
        if self.engine_url and self.beams > 1:
            yield f"an engine decodes greedily: leave out beams {self.beams} (--beams)"


@dataclass(frozen=True)
class RateOptions(Settings):
    """One token rate per modality."""

    audio_rate: int | None = option(
        None,
        "Audio frames (50 per second) per token, such as 4.  [default: the first trained]",
        bounds=COUNT,
    )
    video_rate: int | None = option(
        None,
        "Video frames (25 per second) per token, such as 2.  [default: the first trained]",
        bounds=COUNT,
    )
    rates: str | None = option(
        None,
        "auto decodes at the coarsest rates, and what is in doubt at the finest, too.",
        ("auto",),
    )
    budget: float | None = option(
        None,
        "With auto: tokens of the LLM per second of speech, on average at most.  [default: as "
        "many as are worth it]",
        bounds=POSITIVE,
    )

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if self.rates and (self.audio_rate or self.video_rate):
            yield "rates auto chooses the rates: leave audio_rate and video_rate out"
        if self.budget and not self.is_auto:
            yield "a budget is for auto: add rates auto"

    @property
    def is_auto(self) -> bool:
        """Whether the model chooses."""
        return self.rates is not None
