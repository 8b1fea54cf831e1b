"""Runs tasks in fresh Python processes.

This is not multiprocessing, whose workers import the caller's script again, and torch with it.
"""

import itertools
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from omni_avsr.errors import InputError

Task = TypeVar("Task")
Answer = TypeVar("Answer")

_PROGRAM = """
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
from omni_avsr.errors import InputError
work, task = pickle.load(sys.stdin.buffer)
try:
    answer = work(task)
except InputError as error:  # to be raised by the caller
    answer = error
except OSError as error:  # such as a full disk
    answer = InputError(str(error))
pickle.dump(answer, sys.stdout.buffer)
"""


def in_fresh_processes(
    work: Callable[[Task], Answer], tasks: Iterable[Task], processes: int
) -> Iterator[Answer]:
    """Yields work(task) of each task in order; each runs in an interpreter of its own.

    At most `processes` tasks are started ahead, because their answers wait in memory.
    """
    todo = iter(tasks)
    started: deque[Future[Answer]] = deque()
    with ThreadPoolExecutor(processes) as pool:
        while True:
            free = processes - len(started)
            for task in itertools.islice(todo, free):
                started.append(pool.submit(_in_fresh_process, work, task))
            if not started:
                return
            yield started.popleft().result()


def _in_fresh_process(work: Callable[[Task], Answer], task: Task) -> Answer:
    given = pickle.dumps(sys.path) + pickle.dumps((work, task))
    command = [sys.executable, "-c", _PROGRAM]
    run = subprocess.run(command, input=given, capture_output=True, check=False)
    if run.returncode:
        output = run.stderr.decode(errors="replace")
        raise RuntimeError(f"a process of the toy corpus failed on {task}:\n{output}")
    answer = pickle.loads(run.stdout)
    if isinstance(answer, InputError):
        raise answer
    return answer
