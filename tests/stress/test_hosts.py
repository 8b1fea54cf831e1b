"""Two machines train what one would: network namespaces with a cable between them stand for them.

pytest tests/stress
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MINUTES = 4  # until a group of processes that hangs is killed


@pytest.fixture
def hosts():
    """The names of two network namespaces with the addresses 10.77.0.1 and 10.77.0.2."""
    if not shutil.which("ip"):
        pytest.skip("no network namespaces here: there is no ip command")
    first, second = f"omni-{os.getpid()}-a", f"omni-{os.getpid()}-b"
    steps = [
        f"netns add {first}",
        f"netns add {second}",
        f"link add cable netns {first} type veth peer name cable netns {second}",
        f"-n {first} addr add 10.77.0.1/24 dev cable",
        f"-n {second} addr add 10.77.0.2/24 dev cable",
    ]
    for name in (first, second):
        steps.append(f"-n {name} link set lo up")
        steps.append(f"-n {name} link set cable up")
    try:
        for step in steps:
            done = subprocess.run(["ip", *step.split()], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no network namespaces here: ip {step}: {done.stderr.strip()}")
        yield first, second
    finally:
        for name in (first, second):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_hosts_have_the_gradients_of_one(tokenizer_file, hosts, strategy):
    runs = [start(hosts, number, str(tokenizer_file), strategy) for number in (1, 2)]
    try:
        for run in runs:
            output, errors = run.communicate(timeout=60 * MINUTES)
            assert output.count("the gradients are equal") == 1, errors
    finally:
        for run in runs:
            run.kill()


def start(hosts, number, *arguments):
    """Starts torchrun on one of the hosts."""
    command = [
        *("ip", "netns", "exec", hosts[number - 1]),
        *(sys.executable, "-m", "torch.distributed.run"),
        "--nnodes=2",
        "--nproc-per-node=1",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=10.77.0.1:29511",
        f"--rdzv-conf=is_host={int(number == 1)}",
        "--rdzv-id=test",
        f"--local-addr=10.77.0.{number}",
        *("--module", "tests.support.gradients", *arguments),
    ]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "GLOO_SOCKET_IFNAME": "cable", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
