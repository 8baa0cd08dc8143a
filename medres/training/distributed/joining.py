"""A process joins the workers of its run before TensorFlow starts, and leaves them with its error.

The workers of a process, and the strategy over them, stay for its lifetime: TensorFlow can form a
cluster once in a process.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import tensorflow as tf

from data_pipelines.cache.positions import damage_of
from medres.errors import TrainingError
from medres.training.distributed.cluster import Cluster, cluster_of
from medres.training.distributed.meeting import JOIN_SECONDS, meet
from medres.training.distributed.team import Reported, Team, Workers, lost

REPORT_SECONDS = 20.0  # for the error of another worker, after a collective was cut off
LEGACY = "TF_USE_LEGACY_KERAS"
CUT_OFF = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


@dataclass(frozen=True)
class Membership:
    """The workers of a run, and the strategy over their devices; None: that of this machine."""

    team: Team
    strategy: tf.distribute.Strategy | None


ALONE = Membership(Team(), None)
_joined: dict[str, Membership] = {}


@contextlib.contextmanager
def membership(environment: Mapping[str, str] | None = None) -> Iterator[Membership]:
    """The workers that the environment names (see `cluster_of`), or this process alone.

    Where this process fails, the others are told; where another one fails or is lost, this one
    raises its error (Reported). A shard that TensorFlow finds damaged is CacheError (code damaged).
    Raises TrainingError with codes bad_cluster, missing_worker,
    duplicate_rank, port_in_use, other_version and strategy_too_late.
    """
    member = join(os.environ if environment is None else environment)
    team = member.team
    team.begin()
    try:
        yield member
    except BaseException as error:
        failure = damage_of(error) or _of_another(team, error)
        team.failed(failure or error)
        if failure is None or failure is error:
            raise
        raise failure from error


def _of_another(team: Team, error: BaseException) -> Reported | None:
    """The error with which another worker has ended, where that is the cause of this one."""
    if isinstance(error, Reported):
        return error
    if not isinstance(team, Workers) or not isinstance(error, (*CUT_OFF, tf.errors.InternalError)):
        return None
    reported = team.reported(REPORT_SECONDS)
    if reported is None and (team.has_lost or isinstance(error, CUT_OFF)):
        return lost("a worker")
    return reported


def join(environment: Mapping[str, str]) -> Membership:
    """Meet the other workers at the first call of a process; see `membership`."""
    if environment.get("TF_CONFIG"):
        os.environ.pop(LEGACY, None)  # Ray Train sets it; medres needs Keras 3
    cluster = cluster_of(environment)
    if cluster is None:
        return ALONE
    key = f"{cluster.rank} of {','.join(cluster.addresses)}"
    if key not in _joined:
        if _joined or _has_started():
            raise TrainingError(
                "TensorFlow has started in this process before it could join the other workers: "
                "call medres.train before anything that computes, and give a backbone of your own "
                "as a .keras file",
                code="strategy_too_late",
            )
        workers = meet(cluster, float(environment.get("MEDRES_JOIN_SECONDS", JOIN_SECONDS)))
        try:
            _joined[key] = Membership(workers, _strategy(cluster))
        except (RuntimeError, tf.errors.OpError) as error:
            failure = TrainingError(
                f"TensorFlow could not connect the workers ({type(error).__name__}): are other "
                f"programs at the ports of {', '.join(cluster.addresses[:4])}?",
                code="port_in_use",
            )
            workers.failed(failure)
            raise failure from error
    return _joined[key]


def refuse_workers(what: str, environment: Mapping[str, str] | None = None) -> None:
    """Raise TrainingError (code one_process) where several processes were started for something
    that starts processes itself.
    """
    if cluster_of(os.environ if environment is None else environment) is not None:
        raise TrainingError(
            f"{what} starts a process for each model: start it once, without srun or TF_CONFIG",
            code="one_process",
        )


def _has_started() -> bool:
    from tensorflow.python.eager import context

    return context.context()._context_handle is not None


def _strategy(cluster: Cluster) -> tf.distribute.Strategy:
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.addresses)}),
        task_type="worker",
        task_id=cluster.rank,
        num_accelerators={"GPU": len(tf.config.list_physical_devices("GPU"))},
        rpc_layer="grpc",
    )
    return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
