"""Reader studies that are made up: readers, modalities and cases with effects of their own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

Study = Callable[..., pd.DataFrame]


@pytest.fixture
def rated() -> Study:
    """A function: a crossed table of ratings, ordinal unless `steps` is 0."""

    def make(
        readers: int = 4, cases: int = 40, modalities: int = 2, seed: int = 0, steps: int = 6
    ) -> pd.DataFrame:
        draw = np.random.default_rng(seed)
        truth = np.arange(cases) % 2
        of_case = draw.normal(0, 0.8, cases) + 1.4 * truth
        of_reader = draw.normal(0, 0.2, (modalities, readers, 1)) * truth
        gain = 0.3 * np.arange(modalities)[:, None, None] * truth
        noise = draw.normal(0, 0.7, (modalities, readers, cases))
        rating = of_case + of_reader + gain + noise
        if steps:
            rating = np.clip(np.round(rating * 2), -steps // 2, steps)
        m, r, c = np.indices(rating.shape)
        return pd.DataFrame(
            {
                "reader": [f"R{i + 1}" for i in r.ravel()],
                "modality": [f"M{i + 1}" for i in m.ravel()],
                "case": c.ravel(),
                "truth": truth[c.ravel()],
                "rating": rating.ravel(),
            }
        )

    return make


@pytest.fixture
def marked() -> Callable[..., tuple[pd.DataFrame, pd.DataFrame]]:
    """A function: a crossed table of marks, and its lesions (1 to 3 a diseased case)."""

    def make(readers: int = 3, cases: int = 30, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
        draw = np.random.default_rng(seed)
        truth = np.arange(cases) % 2
        lesions = [
            {"case": c, "lesion": f"L{k}", "weight": 1.0 + k}
            for c in np.flatnonzero(truth)
            for k in range(draw.integers(1, 4))
        ]
        rows = []
        for modality in ("A", "B"):
            for reader in range(readers):
                for case in range(cases):
                    key = {"reader": reader, "modality": modality, "case": case}
                    key["truth"] = truth[case]
                    hits = [x["lesion"] for x in lesions if x["case"] == case]
                    seen = [name for name in hits if draw.random() < 0.7]
                    false = [""] * draw.integers(0, 3)
                    marks = [
                        key | {"lesion": x, "rating": float(draw.integers(1, 6) + 2 * (x != ""))}
                        for x in (*seen, *false)
                    ]
                    rows += marks or [key | {"lesion": "", "rating": ""}]
        return pd.DataFrame(rows), pd.DataFrame(lesions)

    return make
