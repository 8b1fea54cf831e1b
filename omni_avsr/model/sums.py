"""Which adapters are summed on a route, by their names."""

from collections.abc import Iterable, Sequence

from omni_avsr.model.config import OmniAVSRConfig
from omni_avsr.tasks import Route


def adapter_names(factors: Iterable[str], route: Route) -> list[str]:
    """The adapters that are summed for a route, such as shared, avsr and a4v2."""
    scale = "".join(f"{modality[0]}{route.rate(modality)}" for modality in route.modalities)
    name_of = {"shared": "shared", "task": str(route.task), "scale": scale}
    return [name_of[factor] for factor in factors]


def all_sums(config: OmniAVSRConfig) -> list[list[str]]:
    """The adapters of each route of a model of this config, each set once."""
    sums: dict[tuple[str, ...], None] = {}
    for route in config.routes():
        sums[tuple(adapter_names(config.adapters, route))] = None
    return [list(names) for names in sums if names]


def all_adapter_names(config: OmniAVSRConfig) -> list[str]:
    """Every adapter that a model of this config has."""
    return list({name: None for names in all_sums(config) for name in names})


def name_of_sum(names: Sequence[str]) -> str:
    """What the sum of these adapters is called, such as shared-avsr."""
    return "-".join(names)
