"""Many clients at once, good and bad files mixed: everyone gets the answer for their own study."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]


def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("serve_benchmark", ROOT / "benchmarks/serve.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.long  # a real model, a thousand requests
@pytest.mark.timeout(900)
def test_a_thousand_mixed_requests_get_their_own_answers(tiny_work: Path, tiny_run: Path) -> None:
    files = sorted((tiny_work.parent / "images").iterdir())
    result = benchmark().measure(tiny_run / "model.keras", files, n=1000, clients=6, bad=0.2)
    assert (result["wrong"], result["missing"]) == (0, 0)
    assert result["rss_growth_mib"] < 20
    outcomes = result["outcomes"]
    assert outcomes["good: None"] > 700
    for kind in ("other_patient", "other_bytes"):
        assert outcomes[f"{kind}: {kind}"] > 10
