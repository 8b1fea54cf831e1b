"""Runs a function in new processes, as torchrun starts them.

They are forked from a server that has imported the library, because importing takes seconds.
"""

import multiprocessing
import os
import socket
import time
import traceback
from collections.abc import Callable
from multiprocessing.queues import SimpleQueue

import torch

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["omni_avsr.train.fit", "tests.support.towers"])
LONGEST = 120  # seconds until processes that hang are killed


class Group:
    """Processes that run the same function; several of them know their rank."""

    def __init__(self, count: int, function: Callable[..., object], *given: object):
        self.errors = SERVER.SimpleQueue()
        self.processes = []
        port = _free_port()
        for rank in range(count):
            environment = _as_torchrun(rank, count, port) if count > 1 else {}
            process = SERVER.Process(
                target=_run, args=(environment, self.errors, function, given), daemon=True
            )
            process.start()
            self.processes.append(process)

    def wait(self) -> list[int | None]:
        """The exit codes, once all processes have ended; raises if one of them has failed."""
        deadline = time.monotonic() + LONGEST
        try:
            for process in self.processes:
                process.join(max(0.0, deadline - time.monotonic()))
        finally:
            self.kill()
        assert self.errors.empty(), self.errors.get()
        return [process.exitcode for process in self.processes]

    def kill(self) -> None:
        """Ends the processes that still run, with a SIGKILL."""
        for process in self.processes:
            process.kill()
            process.join()


def _run(
    environment: dict[str, str],
    errors: SimpleQueue,
    function: Callable[..., object],
    given: tuple[object, ...],
) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    try:
        function(*given)
    except BaseException:
        errors.put(traceback.format_exc())
        raise


def _as_torchrun(rank: int, count: int, port: int) -> dict[str, str]:
    """The variables that torchrun sets on one machine."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "tests",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
