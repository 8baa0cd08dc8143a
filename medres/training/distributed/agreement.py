"""Before the first step, all workers must have the same data and the same settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medres.training.config.options import flattened
from medres.training.distributed.team import Reported, Team

DATA = "data_sha256"
MAX_NAMED = 4


def require_agreement(team: Team, settings: Mapping[str, Any]) -> None:
    """Raise TrainingError on every worker where one has other data (code other_data) or other
    settings (code other_settings) than the chief.

    settings: config.json, without what is chosen for the machine.
    """
    facts = {name: str(value) for name, value in flattened(settings)}
    everyone = team.gather(facts)
    for rank, other in enumerate(everyone):
        names = sorted(
            name
            for name in everyone[0].keys() | other.keys()
            if other.get(name) != everyone[0].get(name)
        )
        if not names:
            continue
        if names == [DATA]:
            raise Reported(
                f"worker {rank} has other images, labels or weights than the chief: give all "
                f"workers the same work folder, or copies of it",
                code="other_data",
            )
        named = "; ".join(
            f"{name.removeprefix('recipe.')} {everyone[0].get(name)} on the chief, "
            f"{other.get(name)} on worker {rank}"
            for name in names[:MAX_NAMED]
            if name != DATA
        )
        raise Reported(
            f"the workers of this run have different settings: {named}. Start all workers with the "
            f"same command",
            code="other_settings",
        )
