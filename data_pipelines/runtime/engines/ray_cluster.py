"""A Ray cluster as what runs the tasks of an engine. Needs the extra `ray`."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from data_pipelines.errors import EngineError
from data_pipelines.runtime.engines.distributed import Job, TaskLost, run_task

CONNECT_S = 10.0


@contextlib.contextmanager
def connected(address: str | None = None) -> Iterator[RayCluster]:
    """A connection to a cluster for the time of the block; that of the caller is kept, if there is
    one. address: see `opened_engine`. Raises EngineError (no_ray, unreachable, other_version).
    """
    address = address or os.environ.get("RAY_ADDRESS") or None
    _require_listener(address)
    try:
        import ray
    except ImportError:
        raise EngineError(
            'The engine ray needs the package ray: run pip install "medres[ray]".', code="no_ray"
        ) from None
    if ray.is_initialized():
        yield RayCluster()
        return
    try:
        _start(address)
    except (ConnectionError, TimeoutError, ValueError, OSError) as error:
        raise EngineError(
            f"There is no Ray cluster at {address or 'this machine'} ({type(error).__name__}). "
            f"Check with `ray status` that it runs, and that --address is right.",
            code="unreachable",
        ) from None
    except RuntimeError:  # what ray.init raises for other versions than its own
        raise EngineError(
            f"The Ray cluster {address or 'of this machine'} refuses this process. Install the "
            f"same versions of Ray and of Python on every machine.",
            code="other_version",
        ) from None
    try:
        yield RayCluster()
    finally:
        ray.shutdown()


def _start(address: str | None) -> None:
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        quiet["include_dashboard"] = False
    ray.init(address=address, **quiet)


class RayCluster:
    """The cluster to which this process is connected. Each task takes one processor. Ray itself
    repeats nothing: how often a task may be lost is counted in one place.
    """

    def __init__(self) -> None:
        import ray

        self._ray = ray
        self._submit = ray.remote(num_cpus=1, max_retries=0)(run_task)

    @property
    def slots(self) -> int:
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def share(self, value: Job) -> Any:
        return self._ray.put(value)

    def submit(self, job: Any, parts: Sequence[Any]) -> Any:
        return self._submit.remote(job, parts)

    def wait(self, handles: Sequence[Any]) -> Sequence[Any]:
        finished, _ = self._ray.wait(list(handles), num_returns=1, fetch_local=False)
        return finished

    def result(self, handle: Any) -> Any:
        lost = self._ray.exceptions
        try:
            return self._ray.get(handle)
        except (
            lost.WorkerCrashedError,
            lost.NodeDiedError,
            lost.ObjectLostError,
            lost.OutOfMemoryError,
            lost.LocalRayletDiedError,
        ) as error:
            raise TaskLost(type(error).__name__) from None
        except (lost.RayError, ImportError) as error:
            # The message may quote a patient's data.
            cause = getattr(error, "cause", None) or error
            raise EngineError(
                f"A task failed with {type(cause).__name__}. Check that the same medres is "
                f"installed on every machine of the cluster.",
                code="engine_failed",
            ) from None

    def cancel(self, handles: Sequence[Any]) -> None:
        for handle in handles:
            with contextlib.suppress(self._ray.exceptions.RayError, ValueError, TypeError):
                self._ray.cancel(handle, force=True)


def _require_listener(address: str | None) -> None:
    """Raise EngineError (unreachable) where nothing listens at HOST:PORT: Ray waits much longer."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        socket.create_connection((host, int(port)), CONNECT_S).close()
    except OSError as error:
        raise EngineError(
            f"Nothing answers at {host}:{port} ({type(error).__name__}). Check --address, the "
            f"firewall, and with `ray status` that the cluster runs.",
            code="unreachable",
        ) from None
