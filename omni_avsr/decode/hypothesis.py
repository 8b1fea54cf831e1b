"""What was said in a clip and what was understood, with its errors."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from omni_avsr.decode.confidence import Judged, doubt_of
from omni_avsr.files import as_lines, write_text
from omni_avsr.tasks import CLEAN, Condition, Route, Row
from omni_avsr.text import Errors, aligned_words, normalise, word_errors


@dataclass(frozen=True)
class Hypothesis:
    """One clip decoded; both texts stand as they came and are normalised to be scored."""

    id: str
    reference: str
    hypothesis: str
    route: Route
    condition: Condition = CLEAN
    confidence: float | None = None  # geometric mean of the tokens' probabilities, 0..1
    normaliser: str = "lower"
    is_cut: bool = False  # whether the hypothesis reached its limit without an end
    probabilities: list[float | None] | None = None  # that each word is right, as far as known
    seconds: float = 0.0  # of the clip

    @property
    def scored(self) -> tuple[str, str]:
        """The reference and the hypothesis as they are scored."""
        reference = normalise(self.reference, self.normaliser)
        return reference, normalise(self.hypothesis, self.normaliser)

    @property
    def has_text(self) -> bool:
        """Whether the reference has words as it is scored; without any there is no WER."""
        return bool(normalise(self.reference, self.normaliser))

    @cached_property
    def errors(self) -> Errors:
        return word_errors(*self.scored)

    @property
    def judged(self) -> list[Judged]:
        """The probability of each word, and whether it is right.

        Words whose probability is not known are left out.
        """
        if not all(self.scored):
            return []
        right = [not word.mark for word in aligned_words(*self.scored) if word.mark != "D"]
        pairs = zip(self.sure, right, strict=True)
        return [(sure, is_right) for sure, is_right in pairs if sure is not None]

    @property
    def doubt(self) -> float:
        """The share of its words that are wrong, as far as the model can tell."""
        return doubt_of(self.probabilities)

    @property
    def sure(self) -> list[float | None]:
        """The probability of each word as it is scored.

        None are known if texts are scored by other words than were decoded.
        """
        words = len(self.scored[1].split())
        known = self.probabilities or []
        return known if len(known) == words else [None] * words

    def as_row(self) -> Row:
        """Its line of a hypothesis file."""
        return {
            "id": self.id,
            "reference": self.reference,
            "hypothesis": self.hypothesis,
            **self.route.as_row(),
            **self.condition.as_row(),
            "confidence": self.confidence,
            "cut": self.is_cut,
            "probabilities": self.probabilities,
            "audio_seconds": self.seconds,
            "errors": self.errors.errors,
            "words": self.errors.words,
        }


def worst(hypotheses: Iterable[Hypothesis], count: int = 5) -> list[Hypothesis]:
    """The hypotheses with the highest WER, of those that have a text and errors.

    More errors, and then the id, break ties.
    """
    wrong = [given for given in hypotheses if given.has_text and given.errors.errors]
    return sorted(wrong, key=lambda h: (-h.errors.wer, -h.errors.errors, h.id))[:count]


def write_hypotheses(path: Path, hypotheses: Iterable[Hypothesis]) -> None:
    """Writes one JSON object per line."""
    write_text(path, as_lines(hypothesis.as_row() for hypothesis in hypotheses))
