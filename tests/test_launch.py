"""The launch scripts, with another srun, scontrol and python."""

import os
import subprocess

import pytest
from support import ROOT


def test_launch_scripts_parse():
    for script in sorted((ROOT / "launch").glob("*")):
        if script.suffix in (".sh", ".sbatch"):
            subprocess.run(["bash", "-n", str(script)], check=True)


def launched(tmp_path, script, *, status, seconds):
    """A job whose srun ends with a status: the job's own, and what it called."""
    for name, ends in (("srun", status), ("scontrol", 0)):
        program = tmp_path / name
        program.write_text(
            f'#!/usr/bin/env bash\necho {name} "$@" >>"$CALLS"\nexit {ends}\n'
        )
        program.chmod(0o755)
    calls = tmp_path / "calls"
    done = subprocess.run(
        ["bash", str(ROOT / "launch" / script), "THIS", "--a b"],
        env=os.environ
        | {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "CALLS": str(calls),
            "PYTHON": "python",
            # bash counts on from here.
            "SECONDS": str(seconds),
            "SLURM_JOB_ID": "70",
            "SLURM_ARRAY_JOB_ID": "70",
            "SLURM_ARRAY_TASK_ID": "3",
            "SLURM_ARRAY_TASK_COUNT": "8",
        },
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return done.returncode, calls.read_text().splitlines()


@pytest.mark.parametrize(
    ("script", "command", "job"),
    [
        (
            "slurm.sbatch",
            "srun --kill-on-bad-exit=1 python -m memejax.main --config=THIS "
            "--distributed --a b",
            "70",
        ),
        (
            "table_array.sbatch",
            "srun python -m memejax.reproduce THIS --shard=3/8 --a b",
            "70_3",
        ),
    ],
    ids=["run", "table"],
)
@pytest.mark.parametrize("status", [0, 1, 137, 143])
def test_a_job_comes_back_after_sigterm_alone(tmp_path, script, command, job, status):
    ended, calls = launched(tmp_path, script, status=status, seconds=3600)
    assert ended == status
    again = [f"scontrol requeue {job}"] if status == 143 else []
    assert calls == [command, *again]


def test_a_job_whose_processes_fail_at_their_start_does_not_come_back(tmp_path):
    """srun ends the others by SIGTERM, and says no more than that."""
    ended, calls = launched(tmp_path, "slurm.sbatch", status=143, seconds=0)
    assert ended == 143 and len(calls) == 1
