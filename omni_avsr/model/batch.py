"""What the model takes: media, their features, and a batch of one route."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from torch import Tensor

from omni_avsr.tasks import Route

T = TypeVar("T", bound="_OnDevice")


class _OnDevice:
    """A frozen dataclass of tensors that can be moved to a device as a whole.

    Ids, masks and lengths stay on the CPU: shapes follow from them, and the CPU would have to wait
    until a GPU has come as far.
    """

    def to(self: T, device: torch.device | str) -> T:
        """The same on another device."""
        # A GPU copies from pinned memory while the CPU goes on; a CPU would read too early
        on_gpu = torch.device(device).type == "cuda"

        def move(tensor: Tensor) -> Tensor:
            if not tensor.is_floating_point():
                return tensor
            return tensor.to(device, non_blocking=on_gpu)

        return self._with(move)

    def pin_memory(self: T) -> T:
        """The same in memory that a GPU copies from while the CPU goes on."""
        return self._with(Tensor.pin_memory)

    def _with(self: T, change: Callable[[Tensor], Tensor]) -> T:
        """The same with each tensor changed."""
        changed = {}
        for own in fields(self):  # type: ignore[arg-type]
            value = getattr(self, own.name)
            if isinstance(value, Tensor):
                value = change(value)
            elif isinstance(value, _OnDevice):
                value = value._with(change)
            changed[own.name] = value
        return type(self)(**changed)


@dataclass(frozen=True)
class Media(_OnDevice):
    """Sounds and mouth videos of some clips, padded with zeros, and their true lengths.

    What is not wanted is None. Lengths that are None mean that every row is full.
    """

    audio: Tensor | None = None  # (B, S) waveforms at 16 kHz
    audio_lengths: Tensor | None = None  # (B,) in samples
    video: Tensor | None = None  # (B, T, 88, 88) normalised grey mouths
    video_lengths: Tensor | None = None  # (B,) in frames


@dataclass(frozen=True)
class Features(_OnDevice):
    """What the encoders make of media, and its true lengths in encoder frames."""

    audio: Tensor | None = None  # (B, T, D)
    audio_lengths: Tensor | None = None  # (B,)
    video: Tensor | None = None  # (B, T, D)
    video_lengths: Tensor | None = None  # (B,)

    @property
    def modalities(self) -> tuple[str, ...]:
        """What there is of audio and video."""
        return tuple(name for name in ("audio", "video") if getattr(self, name) is not None)

    def of(self, modality: str) -> tuple[Tensor, Tensor]:
        """The features (B, T, D) and lengths (B,) of a modality."""
        values = getattr(self, modality)
        lengths = getattr(self, f"{modality}_lengths")
        assert values is not None, f"there are no {modality} features"
        return values, lengths

    @property
    def clips(self) -> int:
        """How many clips there are."""
        values, _ = self.of(self.modalities[0])
        return len(values)

    def only(self, modalities: Iterable[str]) -> "Features":
        """Those of some modalities."""
        fields = {}
        for modality in modalities:
            fields[modality], fields[f"{modality}_lengths"] = self.of(modality)
        return Features(**fields)

    def of_clips(self, first: int, last: int) -> "Features":
        """Those of some clips, without what pads them to the others."""
        fields = {}
        for modality in self.modalities:
            values, lengths = self.of(modality)
            own = lengths[first:last]
            fields[modality] = values[first:last, : int(own.max())]
            fields[f"{modality}_lengths"] = own
        return Features(**fields)


@dataclass(frozen=True)
class Batch(_OnDevice):
    """Token sequences of one route, and the media or features that fill their placeholders.

    With labels it is padded on the right, for a loss; without, on the left, for decoding.
    """

    route: Route
    input_ids: Tensor  # (B, L)
    attention_mask: Tensor  # (B, L)
    labels: Tensor | None = None  # (B, L); -100 where nothing is to be learned
    media: Media | None = None
    features: Features | None = None
