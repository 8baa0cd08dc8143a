from __future__ import annotations

from collections.abc import Iterator

import pytest

from medres.evaluate.metrics import calibration_curve
from medres.evaluate.statistics import bootstrap


@pytest.fixture(scope="module")
def few_replicates() -> Iterator[None]:
    """Whole reports in a fraction of the time; the bootstrap itself is tested in test_bootstrap."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "REPLICATES", 40)
        patch.setattr(bootstrap, "MIN_REPLICATES", 40)
        patch.setattr(calibration_curve, "ICI_REPLICATES", 20)
        yield
