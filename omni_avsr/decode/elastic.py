"""Two routes instead of one: what a cheap route leaves in doubt is decoded on a better one, too.

Of both transcripts the surer one stays. How much doubt is too much is fitted on validation clips,
and kept in the config.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from omni_avsr.errors import InputError
from omni_avsr.model import OmniAVSRConfig
from omni_avsr.settings.shared import RateOptions
from omni_avsr.tasks import Route, Task

AUTO = "auto"


@dataclass(frozen=True)
class Ladder:
    """A cheap route and a better one, and the doubt from which on a clip climbs."""

    cheap: Route
    better: Route
    doubt: float = 0.0

    def __str__(self) -> str:
        better = self.better.rates if self.better.task is self.cheap.task else str(self.better)
        return f"{self.cheap}, in doubt {better}"

    @property
    def key(self) -> str:
        """Its name in the config: avsr-a16-v5>avsr-a4-v2."""
        return f"{self.cheap.key}>{self.better.key}"

    def tokens_per_second(self, share: float) -> float:
        """Tokens of the LLM for a second of speech, if so much of it climbs."""
        return self.cheap.tokens_per_second + share * self.better.tokens_per_second


@dataclass
class Climb:
    """Decides what climbs, within a budget of tokens per second if there is one."""

    ladder: Ladder
    budget: float | None = None
    credit: float = 0.0  # seconds of speech that may still climb

    def of(self, doubts: Sequence[float], seconds: Sequence[float]) -> list[int]:
        """Which clips climb of those that come next, by their place: first the most doubtful."""
        self.credit += self._share * sum(seconds)
        chosen = []
        for place in sorted(range(len(doubts)), key=lambda place: -doubts[place]):
            if doubts[place] > self.ladder.doubt and seconds[place] <= self.credit:
                self.credit -= seconds[place]
                chosen.append(place)
        return sorted(chosen)

    @property
    def _share(self) -> float:
        """How much of the speech can climb."""
        if self.budget is None:
            return 1.0
        left = self.budget - self.ladder.cheap.tokens_per_second
        return min(1.0, left / self.ladder.better.tokens_per_second)


def coarsest(routes: Iterable[Route], task: Task) -> Route:
    """The route of a task with the fewest tokens."""
    own = [route for route in routes if route.task is task]
    return min(own, key=lambda route: route.tokens_per_second)


def finest(routes: Iterable[Route], task: Task) -> Route:
    """The route of a task with the most tokens."""
    own = [route for route in routes if route.task is task]
    return max(own, key=lambda route: route.tokens_per_second)


def ladders(routes: Sequence[Route]) -> list[Ladder]:
    """All of these routes: from coarse to fine rates, and from hearing to seeing, too."""
    tasks = list(dict.fromkeys(route.task for route in routes))
    found = [Ladder(coarsest(routes, task), finest(routes, task)) for task in tasks]
    if Task.ASR in tasks and Task.AVSR in tasks:
        better = finest(routes, Task.AVSR)
        found += [Ladder(finest(routes, Task.ASR), better)]
        found += [Ladder(coarsest(routes, Task.ASR), better)]
    different = [ladder for ladder in found if ladder.cheap != ladder.better]
    return list(dict.fromkeys(different))


def chosen_climb(config: OmniAVSRConfig, task: str, options: RateOptions) -> Climb | None:
    """What these options ask for; None if that is one route."""
    if AUTO not in (task, options.rates):
        return None
    first, last = (Task.ASR, Task.AVSR) if task == AUTO else (Task(task), Task(task))
    rates = options.audio_rate, options.video_rate
    cheap, better = config.choose(first, *rates), config.choose(last, *rates)
    if options.rates == AUTO:
        routes = config.routes()
        cheap, better = coarsest(routes, first), finest(routes, last)
    if cheap == better:  # the only rate
        return None
    key = Ladder(cheap, better).key
    if key not in config.ladders:
        raise InputError(f"this model cannot tell when to doubt {cheap}: `omni-avsr calibrate` it")
    least = cheap.tokens_per_second
    if options.budget is not None and options.budget < least:
        raise InputError(
            f"--budget {options.budget:g} is less than the {least:.1f} tokens per second of {cheap}"
        )
    return Climb(Ladder(cheap, better, config.ladders[key]), options.budget)
