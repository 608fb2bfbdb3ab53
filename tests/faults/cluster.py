"""A SLURM cluster of this one machine, without GPUs, accounting or systemd."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")
PATH = f"{os.environ['PATH']}:/usr/sbin"  # where Debian has the daemons
HOME = Path("/etc/slurm")  # jobs look for the settings there alone
SETTINGS = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmctldPort={port}
SlurmdPort={next_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=600
KillWait=60
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=16000
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def require_slurm() -> None:
    """Skip, and say why, where a cluster cannot be brought up."""
    missing = [name for name in PROGRAMS if not shutil.which(name, path=PATH)]
    if missing:
        pytest.skip(
            f"SLURM is not installed ({', '.join(missing)}): apt-get install slurm-wlm munge"
        )
    if os.geteuid():
        pytest.skip("bringing up SLURM needs root")
    if (HOME / "slurm.conf").exists():
        pytest.skip(f"{HOME / 'slurm.conf'} belongs to a cluster that is there already")
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="the extra `cluster` is missing")


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """A cluster of two CPUs; its daemons end with the block."""
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        port, next_port = one.getsockname()[1], other.getsockname()[1]
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key, conf = folder / "munge.key", folder / "slurm.conf"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    host = socket.gethostname().partition(".")[0]
    conf.write_text(SETTINGS.format(host=host, folder=folder, port=port, next_port=next_port))
    HOME.mkdir(exist_ok=True)
    if not (HOME / "slurm.conf").exists():
        (HOME / "slurm.conf").unlink(missing_ok=True)  # a link that a killed test has left
    (HOME / "slurm.conf").symlink_to(conf)
    munge = [f"--{name}={folder}/munge.{name.split('-')[0]}" for name in
             ("key-file", "socket", "pid-file", "log-file", "seed-file")]  # fmt: skip
    with ExitStack() as stack:
        stack.callback((HOME / "slurm.conf").unlink)
        for words in (["munged", "--foreground", "--force", *munge], ["slurmctld", "-D", "-c"],
                      ["slurmd", "-D", "-N", host]):  # fmt: skip
            log = stack.enter_context((folder / f"{words[0]}.log").open("w"))
            program = shutil.which(words[0], path=PATH)
            process = subprocess.Popen([program, *words[1:]], stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            time.sleep(1)
        deadline = time.monotonic() + 60
        while "idle" not in ask("sinfo", "--noheader", "--format=%T"):
            assert time.monotonic() < deadline, (folder / "slurmctld.log").read_text()
            time.sleep(0.5)
        stack.callback(time.sleep, 2)
        stack.callback(ask, "scancel", "--user=root")  # on this cluster, these are the test's alone
        yield


def ask(*words: str) -> str:
    """What a client of the cluster prints."""
    return subprocess.run(words, capture_output=True, text=True).stdout
