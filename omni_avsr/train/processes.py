"""What the processes of a run tell each other."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from torch.distributed import (
    all_gather_object,
    broadcast_object_list,
    get_rank,
    get_world_size,
    is_initialized,
)

T = TypeVar("T")


def gathered(value: T) -> list[T]:
    """This value from every process."""
    if not is_initialized():
        return [value]
    values = [value] * get_world_size()
    all_gather_object(values, value)
    return values


def flattened(lists: Iterable[Iterable[T]]) -> list[T]:
    """The items of all lists."""
    return [item for items in lists for item in items]


def of_first(make: Callable[[], T]) -> T:
    """What the first process makes, in every process."""
    if not is_initialized():
        return make()
    made = [make() if rank() == 0 else None]
    broadcast_object_list(made)
    (value,) = made
    return value  # type: ignore[return-value]  # of the first process, never None in its place


def wait_for_first() -> None:
    """Waits until the first process is as far as this one."""
    of_first(lambda: None)


def rank() -> int:
    """The number of this process in its run."""
    return get_rank() if is_initialized() else 0


def processes() -> int:
    """How many processes there are."""
    return get_world_size() if is_initialized() else 1


def processes_of_machine(devices: str) -> int:
    """How many processes a machine will have with these --devices, before they have started."""
    return max(1, torch.cuda.device_count()) if devices == "auto" else int(devices)


def own_share(items: Sequence[T]) -> list[T]:
    """The items that are this process's, as processes take turns."""
    return list(items[rank() :: processes()])
