"""An engine by its name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

from data_pipelines.errors import InputError
from data_pipelines.runtime.engines.distributed import DistributedEngine
from data_pipelines.runtime.engines.engine import LOCAL, Engine

EngineName = Literal["local", "ray"]


@contextlib.contextmanager
def opened_engine(name: EngineName = "local", address: str | None = None) -> Iterator[Engine]:
    """The engine of a name, for the time of the block.

    address: of a running Ray cluster: "auto", HOST:PORT or ray://HOST:PORT. None takes that of the
        environment (RAY_ADDRESS), else starts a cluster on this machine.
    Raises InputError (codes engine, address) and EngineError (codes no_ray, unreachable,
    other_version, engine_failed).
    """
    if name == "local":
        if address is not None:
            raise InputError(
                "An address is given, but the local engine has none. Add --engine ray, or leave "
                "the address out.",
                code="address",
            )
        yield LOCAL
        return
    if name != "ray":
        raise InputError(f"engine {name!r}: choose local or ray.", code="engine")
    from data_pipelines.runtime.engines.ray_cluster import connected

    with connected(address) as cluster:
        yield DistributedEngine(cluster)
