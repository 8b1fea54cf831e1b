"""When each character of a text is said: a CTC head on each encoder, and forced alignment.

The heads name the character of every frame of the encoders. They do not see the language model or
its rates, so that times are as exact at one token per second as at 25.
"""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omni_avsr.model.batch import Features
from omni_avsr.model.compress import length_mask, sent
from omni_avsr.tasks import AUDIO_FPS, FRAME_RATES

HIDDEN = 128  # numbers between the two layers of a head
CONTEXT = 5  # frames that the first layer sees
BLANK = 0  # the class of frames without a character
WEIGHTS = {"audio": 1.0, "video": 0.5}  # of what the voice and the lips say together

Span = tuple[int, int]  # the first frame of a character, and the one after its last


class Place(NamedTuple):
    """Where a character of a text is in a clip."""

    first: int  # frame
    end: int  # the frame after its last
    log_prob: float  # in the frame that names it most clearly


def characters_of(texts: Iterable[str]) -> str:
    """The letters, marks and digits of texts, in lower case: what can be heard or seen of them."""
    found = {character for text in texts for character in text.lower()}
    return "".join(sorted(one for one in found if unicodedata.category(one)[0] in "LMN"))


class Aligner(nn.Module):
    """Finds the characters of a text in the features of sound, of lips, or of both."""

    def __init__(self, widths: Mapping[str, int], characters: str):
        """Builds new heads for encoders of these widths, which tell these characters apart."""
        super().__init__()
        self.characters = characters
        heads = {name: _Head(width, 1 + len(characters)) for name, width in widths.items()}
        self.heads = nn.ModuleDict(heads)

    @torch.no_grad()
    def learn_from(self, other: "Aligner") -> None:
        """Takes over what another one for the same encoders knows."""
        shared = [one for one in self.characters if one in other.characters]
        own = [BLANK, *self.classes_of("".join(shared))]
        known = [BLANK, *other.classes_of("".join(shared))]
        for name, head in self.heads.items():
            weights = head.state_dict()
            for key, weight in other.heads[name].state_dict().items():
                if key.startswith("classes."):
                    weights[key][own] = weight[known]
                else:
                    weights[key].copy_(weight)

    def classes_of(self, text: str) -> list[int]:
        """The classes of a text's characters, in any case; unknown ones are left out."""
        places = map(self.characters.find, text.lower())
        return [1 + place for place in places if place >= 0]

    def loss(self, features: Features, texts: Sequence[str]) -> Tensor:
        """The CTC loss of all texts, mean over the heads, which alone learn from it.

        A text that does not fit into its frames counts 0.
        """
        rows = [self.classes_of(text) for text in texts]
        classes = torch.tensor([one for row in rows for one in row], dtype=torch.long)
        sizes = [len(row) for row in rows]
        losses = []
        for modality in features.modalities:
            values, lengths = features.of(modality)
            named = self.heads[modality](values.detach(), lengths).transpose(0, 1)
            loss = F.ctc_loss(
                named,
                sent(classes, named.device),
                lengths.tolist(),  # type: ignore[arg-type]  # numbers will do
                sizes,  # type: ignore[arg-type]
                reduction="sum",
                zero_infinity=True,
            )
            losses.append(loss)
        return torch.stack(losses).mean()

    @torch.no_grad()
    def named(self, features: Features) -> list[np.ndarray]:
        """The log-probabilities (T, classes) of each clip's frames, of which 50 are a second."""
        clips: list[list[Tensor]] = [[] for _ in range(features.clips)]
        for modality in features.modalities:
            values, lengths = features.of(modality)
            named = WEIGHTS[modality] * self.heads[modality](values, lengths).cpu()
            for parts, frames, length in zip(clips, named, lengths.tolist(), strict=True):
                copies = AUDIO_FPS // FRAME_RATES[modality]
                parts.append(frames[:length].repeat_interleave(copies, 0))
        together = []
        for parts in clips:
            shortest = min(map(len, parts))
            together.append(np.sum([part[:shortest].numpy() for part in parts], 0))
        return together

    def heard(self, named: np.ndarray, text: str) -> float:
        """How many characters frames name, for one of a text: 0 where nobody speaks, else about 1.

        It is 1 for a text of which no character is known.
        """
        expected = len(self.classes_of(text))
        best = named.argmax(1)
        begins = np.diff(best, prepend=BLANK) != 0
        return float((begins & (best != BLANK)).sum() / expected) if expected else 1.0

    def places(self, named: np.ndarray, words: Sequence[str]) -> dict[int, list[Place]]:
        """Where the characters of each word are that can be placed, by the word's number."""
        classes = [self.classes_of(word) for word in words]
        found = spans(named, [one for own in classes for one in own])
        if found is None:
            return {}
        log_probs = named - np.logaddexp.reduce(named, 1, keepdims=True)
        characters = iter(found)
        places: dict[int, list[Place]] = {}
        for number, own in enumerate(classes):
            for one in own:
                first, end = next(characters)
                clearest = float(log_probs[first:end, one].max())
                places.setdefault(number, []).append(Place(first, end, clearest))
        return places


class _Head(nn.Module):
    """Names the character, or none, of every frame of an encoder."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.context = nn.Conv1d(width, HIDDEN, CONTEXT, padding=CONTEXT // 2)
        self.classes = nn.Linear(HIDDEN, classes)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """The log-probability of each class in each frame: (B, T, D) -> (B, T, classes)."""
        normed = self.norm(features.to(self.norm.weight.dtype))
        padding = sent(~length_mask(lengths, features.shape[1]), features.device)
        normed = normed.masked_fill(padding[..., None], 0)  # a clip does not see what it is with
        hidden = F.gelu(self.context(normed.transpose(1, 2)).transpose(1, 2))
        return self.classes(hidden).float().log_softmax(-1)


def spans(log_probs: np.ndarray, classes: Sequence[int]) -> list[Span] | None:
    """The frames of each character on the likeliest path through (T, classes).

    None if the characters do not fit into the frames.
    """
    states = np.full(2 * len(classes) + 1, BLANK)  # a blank before and after each character
    states[1::2] = classes
    # Two different characters can follow each other without a blank
    skips = np.zeros(len(states), bool)
    skips[3::2] = states[3::2] != states[1:-2:2]
    frames = log_probs[:, states]
    best = np.full(len(states), -np.inf)
    best[:2] = frames[0, :2]
    taken = np.zeros(frames.shape, np.int8)  # how many states a path has advanced
    for number in range(1, len(frames)):
        ways = np.full((3, len(states)), -np.inf)
        ways[0] = best
        ways[1, 1:] = best[:-1]
        ways[2, 2:] = np.where(skips[2:], best[:-2], -np.inf)
        taken[number] = ways.argmax(0)
        best = ways.max(0) + frames[number]
    state = len(states) - 1
    if len(states) > 1 and best[-2] > best[-1]:
        state -= 1
    if not np.isfinite(best[state]):
        return None
    return _spans_of(_path(taken, state), len(classes))


def _path(taken: np.ndarray, state: int) -> list[int]:
    """The state in each frame of the path that ends in this state."""
    path = [state]
    for advanced in taken[:0:-1]:
        path.append(path[-1] - int(advanced[path[-1]]))
    return path[::-1]


def _spans_of(path: Sequence[int], characters: int) -> list[Span]:
    """The frames of each character; blanks are the even states."""
    first = [0] * characters
    end = [0] * characters
    for frame, state in enumerate(path):
        if state % 2:
            if not end[state // 2]:
                first[state // 2] = frame
            end[state // 2] = frame + 1
    return list(zip(first, end, strict=True))
