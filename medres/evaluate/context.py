"""What the operating points of a finding, of a subgroup or of another unit need to know beside their sample."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medres.evaluate.options import Options
from medres.evaluate.thresholds import Context
from medres.evaluate.units import Units


def make_context(units: Units, name: str, options: Options, part: NDArray[np.bool_] | None = None) -> Context:
    """The context of a finding in all units or in a `part` of them (n,): with the refused units that have a label."""
    missed = units.refused & np.isin(units.label[name], (0.0, 1.0))
    if part is not None:
        missed = missed & part
    stated = options.prevalence.get(name)
    return Context(
        options.level, options.case_control, () if stated is None else (stated,),
        units.label[name][missed] == 1.0, units.patient[missed], options.exact,
    )  # fmt: skip
