"""Who takes part in a training run: from TF_CONFIG (set by hand, or by Ray Train), or from the
variables that `srun` sets. Without either, the process trains alone.

`SlurmClusterResolver` of TensorFlow is not used: it calls nvidia-smi, and so fails on nodes without
a GPU (tensorflow#56894).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from medres.errors import TrainingError

ROLES = ("chief", "worker")  # in the order of ranks
FIRST_PORT, PORTS = 20000, 10000  # of Slurm jobs: a port is derived from the number of the job


@dataclass(frozen=True)
class Cluster:
    """addresses: "host:port" of each worker. rank: of this process; 0 is the chief."""

    addresses: tuple[str, ...]
    rank: int

    @property
    def size(self) -> int:
        return len(self.addresses)

    def host_and_port(self, rank: int) -> tuple[str, int]:
        host, _, port = self.addresses[rank].rpartition(":")
        return host.strip("[]"), int(port)


def cluster_of(environment: Mapping[str, str]) -> Cluster | None:
    """The cluster of this process, or None where it trains alone. Raises TrainingError (code
    bad_cluster).

    TF_CONFIG comes first. Slurm's variables count only in a step of several tasks, as `srun` starts
    them: a batch script, or one task, trains alone.
    """
    if environment.get("TF_CONFIG", "").strip():
        cluster = _from_tf_config(environment["TF_CONFIG"])
    elif _number(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        cluster = _from_slurm(environment)
    else:
        return None
    return cluster if cluster.size > 1 else None


def _from_tf_config(text: str) -> Cluster:
    try:
        config = json.loads(text)
    except ValueError:
        raise _bad("TF_CONFIG is not JSON") from None
    cluster, task = (_mapping(config, name) for name in ("cluster", "task"))
    if not cluster and not task:
        return Cluster(("localhost:0",), 0)
    if others := sorted(set(cluster) - set(ROLES)):
        raise _bad(f"TF_CONFIG names the role {others[0]!r}; medres knows chief and worker")
    addresses: list[str] = []
    for role in ROLES:
        named = cluster.get(role, [])
        if not isinstance(named, list) or not all(map(_is_address, named)):
            raise _bad(f"the addresses of {role} in TF_CONFIG are not a list of HOST:PORT")
        addresses += named
    if not addresses:
        raise _bad('TF_CONFIG has no worker: write {"cluster": {"worker": ["HOST:PORT", ...]}}')
    if len(set(addresses)) < len(addresses):
        raise _bad("TF_CONFIG names an address twice: each worker needs a port of its own")
    kind, index = task.get("type"), task.get("index")
    own = cluster.get(kind, []) if isinstance(kind, str) else []
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(own):
        raise _bad(
            f"the task of TF_CONFIG, type {kind!r} and index {index!r}, is not in its cluster"
        )
    return Cluster(tuple(addresses), addresses.index(own[index]))


def _mapping(config: Any, name: str) -> dict[str, Any]:
    value = config.get(name, {}) if isinstance(config, dict) else None
    if not isinstance(value, dict):
        raise _bad(f"TF_CONFIG has no object {name!r}")
    return value


def _is_address(text: Any) -> bool:
    match = re.fullmatch(r"([\w.-]+|\[[0-9a-fA-F:.]+\]):(\d{1,5})", str(text))
    return match is not None and 0 < int(match[2]) < 65536


def _from_slurm(environment: Mapping[str, str]) -> Cluster:
    """One address per task, in the order of ranks. Tasks are numbered node by node, as srun does
    unless --distribution says otherwise.
    """
    names = ("SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE", "SLURM_PROCID", "SLURM_JOB_ID")
    if missing := [name for name in names if not environment.get(name)]:
        raise _bad(f"Slurm started several tasks, but {missing[0]} is not set: start with srun")
    nodes = list(expanded_hosts(environment["SLURM_STEP_NODELIST"]))
    tasks = list(expanded_counts(environment["SLURM_STEP_TASKS_PER_NODE"]))
    if len(nodes) != len(tasks):
        raise _bad(f"Slurm names {len(nodes)} nodes, and tasks of {len(tasks)} nodes")
    job = _number(environment["SLURM_JOB_ID"]) + _number(environment.get("SLURM_STEP_ID", "0"))
    base = FIRST_PORT + job * 100 % PORTS
    addresses = [
        f"{node}:{base + local}"
        for node, count in zip(nodes, tasks, strict=True)
        for local in range(count)
    ]
    rank = _number(environment["SLURM_PROCID"])
    if not 0 <= rank < len(addresses):
        raise _bad(f"SLURM_PROCID is {rank}, and the step has {len(addresses)} tasks")
    if _number(environment.get("SLURM_LOCALID", "0")) != int(addresses[rank].split(":")[1]) - base:
        raise _bad(
            "Slurm spread the tasks over the nodes in turn: add --distribution=block to srun"
        )
    return Cluster(tuple(addresses), rank)


def expanded_hosts(text: str) -> Iterator[str]:
    """The names in a host list of Slurm. Raises TrainingError (code bad_cluster).

    >>> list(expanded_hosts("login,gpu[08-10,12]"))
    ['login', 'gpu08', 'gpu09', 'gpu10', 'gpu12']
    """
    for part in re.findall(r"(?:[^,\[\]]|\[[^\[\]]*\])+", text):
        yield from _expanded(part)


def _expanded(part: str) -> Iterator[str]:
    match = re.fullmatch(r"([^\[]*)\[([^\]]*)\](.*)", part)
    if match is None:
        yield part
        return
    for span in match[2].split(","):
        first, _, last = span.partition("-")
        low, high = _number(first), _number(last or first)
        for number in range(low, high + 1):
            yield from (f"{match[1]}{number:0{len(first)}d}{end}" for end in _expanded(match[3]))


def expanded_counts(text: str) -> Iterator[int]:
    """The numbers of tasks of each node as Slurm writes them.

    >>> list(expanded_counts("2(x3),1"))
    [2, 2, 2, 1]
    """
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if match is None:
            raise _bad(f"{text[:40]!r} is no list of tasks per node as Slurm writes it")
        yield from [int(match[1])] * int(match[2] or 1)


def _number(text: str) -> int:
    if not re.fullmatch(r"\d{1,12}", text.strip()):
        raise _bad(f"a variable of Slurm should be a number, received {text[:40]!r}")
    return int(text)


def _bad(problem: str) -> TrainingError:
    return TrainingError(f"the workers of this run: {problem}", code="bad_cluster")
