"""How the workers of a run meet: each tells the chief who it is, at the address where TensorFlow
will listen afterwards, and the chief tells all whether they may begin.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

from medres.artefact.archive import versions
from medres.errors import TrainingError
from medres.training.distributed.cluster import Cluster
from medres.training.distributed.team import (
    ERROR,
    VALUE,
    Workers,
    keep_alive,
    receive,
    reported_error,
    send,
)

JOIN_SECONDS = 50.0  # until all workers are there
GREETING_BYTES = 1 << 20
GREETING_SECONDS = 5.0  # for a connected worker to say who it is
TWIN_SECONDS = 3.0  # for a second process with the same rank to come
CLOCK_SECONDS = 60.0  # by which the clocks of a worker and the chief may differ
PROTOCOL = "medres.workers/1"


def meet(cluster: Cluster, seconds: float = JOIN_SECONDS) -> Workers:
    """Wait until all workers are there and agree on addresses and versions.

    Raises TrainingError on every worker, with code missing_worker, duplicate_rank, port_in_use,
    other_version, other_clock or bad_cluster (other addresses).
    """
    deadline = time.monotonic() + seconds
    with _own_port(cluster) as listener:
        if cluster.rank == 0 and listener is not None:
            return _as_chief(cluster, listener, deadline)
        return _as_worker(cluster, listener is not None, deadline, seconds)


def greeting(cluster: Cluster, port_is_free: bool = True) -> dict[str, Any]:
    """What a worker tells the chief."""
    return {
        "protocol": PROTOCOL,
        "rank": cluster.rank,
        "addresses": list(cluster.addresses),
        "versions": versions(),
        "port_is_free": port_is_free,
        "time": time.time(),
    }


@contextlib.contextmanager
def _own_port(cluster: Cluster) -> Iterator[socket.socket | None]:
    """A listener at the port of this worker, which TensorFlow takes afterwards; None where another
    program has it.
    """
    _, port = cluster.host_and_port(cluster.rank)
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    try:
        listener = socket.create_server(
            ("", port),
            family=family,
            backlog=cluster.size + 8,
            dualstack_ipv6=family == socket.AF_INET6,
        )
    except OSError:
        yield None
        return
    with listener:
        yield listener


def _as_chief(cluster: Cluster, listener: socket.socket, deadline: float) -> Workers:
    own = greeting(cluster)
    lines: dict[int, socket.socket] = {}
    strangers: list[socket.socket] = []
    problem: dict[str, str] | None = None
    suspicion: dict[str, str] | None = None
    while problem is None and (suspicion or len(lines) < cluster.size - 1):
        listener.settimeout(max(0.0, deadline - time.monotonic()))
        try:
            line, _ = listener.accept()
        except (TimeoutError, BlockingIOError):
            problem = suspicion or _missing(cluster, lines)
            break
        other = _greeting_of(line)
        if other is None:
            line.close()
            continue
        problem = _problem(own, other, lines)
        if problem is None and not other["port_is_free"]:
            # Perhaps by a process that is the same worker and has not said so yet.
            suspicion = suspicion or _port_in_use(cluster, other["rank"])
            deadline = min(deadline, time.monotonic() + TWIN_SECONDS)
        if problem is None:
            keep_alive(line)
            lines[other["rank"]] = line
        else:
            strangers.append(line)
    if problem is None:
        for line in lines.values():
            send(line, VALUE, b"{}")
        return Workers(0, cluster.size, lines)
    content = json.dumps({"rank": None, **problem}).encode()
    for line in [*lines.values(), *strangers, *_late(listener)]:
        with contextlib.suppress(OSError), line:
            send(line, ERROR, content)
    raise reported_error(content)


def _late(listener: socket.socket) -> Iterator[socket.socket]:
    """Workers that come just after the chief has found a problem."""
    deadline = time.monotonic() + TWIN_SECONDS
    while True:
        listener.settimeout(max(0.0, deadline - time.monotonic()))
        try:
            line, _ = listener.accept()
        except (TimeoutError, BlockingIOError):
            return
        if _greeting_of(line) is None:
            line.close()
        else:
            yield line


def _greeting_of(line: socket.socket) -> dict[str, Any] | None:
    """What a worker said; None where it is no worker of medres."""
    line.settimeout(GREETING_SECONDS)
    try:
        _, content = receive(line, GREETING_BYTES)
        other = json.loads(content)
    except (OSError, EOFError, ValueError):
        return None
    finally:
        line.settimeout(None)
    known = isinstance(other, dict) and other.get("protocol") == PROTOCOL
    return other if known and isinstance(other.get("rank"), int) else None


def _problem(
    own: dict[str, Any], other: dict[str, Any], lines: dict[int, socket.socket]
) -> dict[str, str] | None:
    """Why a worker cannot take part."""
    rank, addresses = other["rank"], own["addresses"]
    if other["addresses"] != addresses:
        return {
            "code": "bad_cluster",
            "text": f"worker {rank} has another list of addresses than the chief: "
            f"{', '.join(map(str, other['addresses']))} instead of {', '.join(addresses)}. Give "
            f"all workers the same cluster",
        }
    if rank == 0 or rank in lines:
        return {
            "code": "duplicate_rank",
            "text": f"two processes are worker {rank}: give each its own index in TF_CONFIG",
        }
    for name, value in own["versions"].items():
        if other["versions"].get(name) != value:
            return {
                "code": "other_version",
                "text": f"worker {rank} has {name} {other['versions'].get(name)} and the chief "
                f"{value}: install the same environment on all workers",
            }
    now = time.time()
    ahead = float(other.get("time", now)) - now
    if abs(ahead) > CLOCK_SECONDS:
        return {
            "code": "other_clock",
            "text": f"the clock of worker {rank} is {abs(ahead):.0f} seconds "
            f"{'ahead of' if ahead > 0 else 'behind'} that of the chief, so that the "
            f"times in their logs do not fit together: set both by a time server (NTP). At most "
            f"{CLOCK_SECONDS:.0f} seconds are allowed",
        }
    return None


def _port_in_use(cluster: Cluster, rank: int) -> dict[str, str]:
    return {
        "code": "port_in_use",
        "text": f"worker {rank} cannot listen at {cluster.addresses[rank]}, since another program "
        f"does: end it, or choose another port",
    }


def _missing(cluster: Cluster, lines: dict[int, socket.socket]) -> dict[str, str]:
    ranks = [rank for rank in range(1, cluster.size) if rank not in lines]
    named = ", ".join(f"{rank} ({cluster.addresses[rank]})" for rank in ranks[:8])
    return {
        "code": "missing_worker",
        "text": f"of {cluster.size} workers, {len(ranks)} did not come: {named}. Start all workers "
        f"within {JOIN_SECONDS:.0f} seconds, and see their logs",
    }


def _as_worker(cluster: Cluster, port_is_free: bool, deadline: float, seconds: float) -> Workers:
    line = _connected(cluster, deadline)
    keep_alive(line)
    line.settimeout(seconds + GREETING_SECONDS)
    try:
        send(line, VALUE, json.dumps(greeting(cluster, port_is_free)).encode())
        kind, content = receive(line, GREETING_BYTES)
    except (OSError, EOFError):
        line.close()
        if not port_is_free:
            raise _in_use(cluster, cluster.rank) from None
        raise _in_use(cluster, 0) from None
    line.settimeout(None)
    if kind == ERROR:
        line.close()
        raise reported_error(content)
    return Workers(cluster.rank, cluster.size, {0: line})


def _connected(cluster: Cluster, deadline: float) -> socket.socket:
    while True:
        try:
            return socket.create_connection(cluster.host_and_port(0), timeout=GREETING_SECONDS)
        except OSError:
            if time.monotonic() > deadline:
                raise TrainingError(
                    f"the chief of this run does not answer at {cluster.addresses[0]}: start all "
                    f"workers, and check the address and the firewall",
                    code="missing_worker",
                ) from None
            time.sleep(0.2)


def _in_use(cluster: Cluster, rank: int) -> TrainingError:
    return TrainingError(
        f"another program answers at {cluster.addresses[rank]}, the address of worker {rank}: end "
        f"it (it may be an earlier run), or choose another port",
        code="port_in_use",
    )
