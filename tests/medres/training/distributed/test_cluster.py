from __future__ import annotations

import json
from typing import Any

import pytest
from helpers import raises_code

from medres.errors import TrainingError
from medres.training.distributed.cluster import Cluster, cluster_of, expanded_hosts

TWO = ["a:2222", "b:2222"]


def config(cluster: Any, kind: Any = "worker", index: Any = 0) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}


def test_tf_config_gives_the_workers_in_order_with_the_chief_first() -> None:
    assert cluster_of(config({"worker": TWO}, index=1)) == Cluster(("a:2222", "b:2222"), 1)
    roles = {"worker": TWO, "chief": ["c:1"]}
    assert cluster_of(config(roles, "worker", 0)) == Cluster(("c:1", "a:2222", "b:2222"), 1)
    assert cluster_of(config(roles, "chief", 0)).rank == 0
    assert Cluster(("[::1]:5", "b:2"), 0).host_and_port(0) == ("::1", 5)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"TF_CONFIG": ""},
        {"TF_CONFIG": "{}"},
        config({"worker": ["a:2222"]}),
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},  # a batch script
        {"SLURM_JOB_ID": "7", "SLURM_STEP_NUM_TASKS": "1"},
    ],
)
def test_a_process_without_others_trains_alone(environment: dict[str, str]) -> None:
    assert cluster_of(environment) is None


@pytest.mark.parametrize(
    "environment",
    [
        {"TF_CONFIG": "worker"},
        {"TF_CONFIG": "[1]"},
        config([]),
        config({"worker": []}),
        config({"worker": "a:1,b:1"}),
        config({"worker": ["a", "b:1"]}),
        config({"worker": ["a:1", "b:99999"]}),
        config({"worker": ["a:1", "a:1"]}),
        config({"worker": TWO}, index=2),
        config({"worker": TWO}, index=-1),
        config({"worker": TWO}, index=True),
        config({"worker": TWO}, index="1"),
        config({"worker": TWO}, kind="chief"),
        config({"worker": TWO}, kind=None),
        config({"worker": TWO, "ps": ["c:1"]}),
        {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"},
        {"SLURM_STEP_NUM_TASKS": "two"},
    ],
)
def test_wrong_settings_of_the_workers_are_refused(environment: dict[str, str]) -> None:
    with raises_code(TrainingError, "bad_cluster"):
        cluster_of(environment)


def slurm(**changes: str) -> dict[str, str]:
    return {
        "SLURM_STEP_NUM_TASKS": "5",
        "SLURM_STEP_NODELIST": "gpu[08-09,11]",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "1",
        "SLURM_JOB_ID": "1203",
        **changes,
    }


def test_slurm_gives_an_address_to_each_task() -> None:
    cluster = cluster_of(slurm())
    port = int(cluster.addresses[0].split(":")[1])
    assert cluster.rank == 3
    assert cluster.addresses == (
        f"gpu08:{port}",
        f"gpu08:{port + 1}",
        f"gpu09:{port}",
        f"gpu09:{port + 1}",
        f"gpu11:{port}",
    )
    assert cluster_of(slurm(SLURM_JOB_ID="1204")).addresses[0] != cluster.addresses[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"SLURM_PROCID": "5"},
        {"SLURM_STEP_NODELIST": "gpu[08-09]"},
        {"SLURM_STEP_TASKS_PER_NODE": "2(y2)"},
        {"SLURM_LOCALID": "0"},  # spread in turn: --distribution=cyclic
    ],
)
def test_variables_of_slurm_that_disagree_are_refused(changes: dict[str, str]) -> None:
    with raises_code(TrainingError, "bad_cluster"):
        cluster_of(slurm(**changes))


def test_host_lists_of_slurm() -> None:
    assert list(expanded_hosts("r[1-2]n[09-10],x")) == ["r1n09", "r1n10", "r2n09", "r2n10", "x"]
    assert list(expanded_hosts("a[1,3].lan,b")) == ["a1.lan", "a3.lan", "b"]
