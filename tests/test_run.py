"""Which process of a run is the first, which GPU is a process's own, and a run's record."""

import os

import pytest

from omni_avsr.errors import InputError
from omni_avsr.run import is_first_process, local_rank, read_run

TORCHRUN = {"RANK": "0", "LOCAL_RANK": "0"}
SRUN = {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
SHELL = {**SRUN, "SLURM_JOB_NAME": "bash"}


@pytest.mark.parametrize(
    ("variables", "first", "local"),
    [
        pytest.param({}, True, 0, id="one process"),
        pytest.param(TORCHRUN, True, 0, id="torchrun"),
        pytest.param({"RANK": "2", "LOCAL_RANK": "0"}, False, 0, id="its second machine"),
        pytest.param({"RANK": "1", "LOCAL_RANK": "1"}, False, 1, id="its second process"),
        pytest.param({"LOCAL_RANK": "1", "NODE_RANK": "0"}, False, 1, id="started by Lightning"),
        pytest.param({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False, 0, id="on a second machine"),
        pytest.param(SRUN, True, 0, id="srun"),
        pytest.param({**SRUN, "SLURM_PROCID": "2"}, False, 0, id="its second machine under srun"),
        pytest.param(
            {**SRUN, "SLURM_PROCID": "1", "SLURM_LOCALID": "1"}, False, 1, id="its second task"
        ),
        pytest.param({**SRUN, **TORCHRUN, "SLURM_PROCID": "1"}, True, 0, id="torchrun in srun"),
        pytest.param({**SHELL, "LOCAL_RANK": "1"}, False, 1, id="by Lightning in a shell of SLURM"),
    ],
)
def test_the_rank_of_a_process_is_told_as_its_launcher_tells_it(
    monkeypatch, variables, first, local
):
    for name in {*TORCHRUN, *SRUN, "NODE_RANK"} & os.environ.keys():
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() is first
    assert local_rank() == local


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null"])
def test_a_damaged_record_of_a_run_is_refused(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=r"run\.json is not the record of a run: "):
        read_run(tmp_path)
