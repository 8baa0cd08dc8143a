"""A made-up reader study: six readers rate cases without and with the marks of a model, and the
model rates them too. For demonstrations; nothing in it is of a patient.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

READERS = 6
CASES = 160
MODEL = "model"
WITHOUT, WITH = "without", "with"
GAIN = 0.45  # what the help adds to the signal
STEPS = (-0.2, 0.5, 1.1, 1.8)  # between the ratings 1 to 5
THRESHOLD = 0.6  # of the model, as if it were frozen before


def made_up_study(seed: int = 0) -> pd.DataFrame:
    """A readers table: `reader`, `modality`, `case`, `truth`, `rating` (1 to 5; of the model 0 to
    1), `time_s` and `block`.
    """
    random = np.random.default_rng(seed)
    truth = (np.arange(CASES) % 5 < 2).astype(int)
    difficulty = random.normal(1.3 * truth, 0.7)
    slowness = random.normal(0, 0.25, CASES)
    rows = []
    for reader in range(1, READERS + 1):
        skill, speed = random.normal(0, 0.15), random.normal(np.log(60), 0.2)
        for number, modality in enumerate((WITHOUT, WITH)):
            own = random.normal(0, 0.08)
            signal = difficulty + (skill + own + GAIN * number) * truth
            latent = signal + random.normal(0, 0.6, CASES)
            seconds = np.exp(speed + slowness - 0.12 * number + random.normal(0, 0.3, CASES))
            # half of the cases are read with help first, the other half without
            block = np.where((np.arange(CASES) % 2 == 0) == (number == 0), 1, 2)
            rows.append(
                _rows(f"R{reader}", modality, truth, 1 + np.digitize(latent, STEPS)).assign(
                    time_s=np.round(seconds, 1), block=block
                )
            )
    score = 1 / (1 + np.exp(-2 * (difficulty + random.normal(0, 0.5, CASES) - 0.7)))
    rows.append(_rows(MODEL, WITHOUT, truth, np.round(score, 3)))
    table = pd.concat(rows, ignore_index=True)
    return table.assign(block=table["block"].astype("Int64"))


def _rows(reader: str, modality: str, truth: np.ndarray, rating: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "reader": reader,
            "modality": modality,
            "case": np.arange(1, CASES + 1),
            "truth": truth,
            "rating": rating.astype(float),
        }
    )
