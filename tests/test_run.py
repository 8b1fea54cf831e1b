"""Which process of a run is the first, and a run's record."""

import os

import pytest

from omni_avsr.errors import InputError
from omni_avsr.run import is_first_process, read_run

TORCHRUN = {"RANK": "0", "LOCAL_RANK": "0"}
SRUN = {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0"}
SHELL = {**SRUN, "SLURM_JOB_NAME": "bash"}


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        pytest.param({}, True, id="one process"),
        pytest.param(TORCHRUN, True, id="torchrun"),
        pytest.param({"RANK": "2", "LOCAL_RANK": "0"}, False, id="its second machine"),
        pytest.param({"RANK": "1", "LOCAL_RANK": "1"}, False, id="its second process"),
        pytest.param({"LOCAL_RANK": "1", "NODE_RANK": "0"}, False, id="started by Lightning"),
        pytest.param({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False, id="on a second machine"),
        pytest.param(SRUN, True, id="srun"),
        pytest.param({**SRUN, "SLURM_PROCID": "1"}, False, id="its second task"),
        pytest.param({**SRUN, **TORCHRUN, "SLURM_PROCID": "1"}, True, id="torchrun in srun"),
        pytest.param({**SHELL, "LOCAL_RANK": "1"}, False, id="by Lightning in a shell of SLURM"),
    ],
)
def test_the_rank_of_a_process_is_told_as_its_launcher_tells_it(monkeypatch, variables, first):
    for name in {*TORCHRUN, *SRUN, "NODE_RANK"} & os.environ.keys():
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() is first


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null"])
def test_a_damaged_record_of_a_run_is_refused(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=r"run\.json is not the record of a run: "):
        read_run(tmp_path)
