from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from medres.evaluate import evaluate
from medres.evaluate.reporting.checklist_answers import ANSWERS
from medres.evaluate.reporting.checklists import GUIDELINES, items

pytestmark = pytest.mark.usefixtures("few_replicates")


def frame(n: int = 120, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    return pd.DataFrame(
        {
            "image": [f"{seed}-{k}" for k in range(n)],
            "patient": [f"{seed}-{k // 2}" for k in range(n)],
            "label": label,
            "site": np.where(np.arange(n) % 4 < 2, "a", "b"),
            "score": 1 / (1 + np.exp(-rng.normal(size=n) - label)),
        }
    )


def rows(name: str, **options) -> dict[str, str | None]:
    walks = evaluate(frame(), **options).numbers["crosswalks"]
    (one,) = [walk for walk in walks if walk["guideline"] == name]
    return {row["item"]: row["answer"] for row in one["rows"]}


# numbers of items and sub-items as published
@pytest.mark.parametrize(
    ("key", "last", "count"),
    [
        ("stard-2015", 30, 34),
        ("stard-ai-2025", 40, 48),
        ("tripod-ai-2024", 27, 52),
        ("claim-2024", 44, 44),
    ],
)
def test_every_item_is_there_once(key: str, last: int, count: int) -> None:
    table = items(key)
    numbers = [row["item"] for row in table]
    assert len(numbers) == len(set(numbers)) == count
    assert list(dict.fromkeys(n.rstrip("abcdefg") for n in numbers)) == [
        str(k) for k in range(1, last + 1)
    ]
    assert all(row["about"] for row in table)
    assert {row["section"] for row in table} - {""} <= set(ANSWERS)


def test_every_answer_is_used() -> None:
    assert {row["section"] for key in GUIDELINES for row in items(key)} - {""} == set(ANSWERS)


def test_stard_is_open_where_nothing_is_known() -> None:
    answers = rows("STARD 2015", design={"setting": "one made-up clinic"})
    assert answers["8"] == "one made-up clinic."
    assert answers["12a"] == "Thresholds and their origin: youden (exploratory)."
    assert answers["17"] is None
    assert [answers[k] for k in ("1", "6", "10a", "13a", "22", "30")] == [None] * 6
    assert "By site" in rows("STARD 2015", subgroups=["site"])["17"]


def test_answers_come_from_design_and_numbers() -> None:
    design = {"eligibility": ["adults", "first image"], "ethics": "waived!", "funding": ""}
    tune = frame(seed=1)
    answers = rows(
        "CLAIM 2024",
        design=design,
        tune=tune,
        margin=0.05,
        compare=frame(),
        provenance={"model_sha256": "abc"},
    )
    assert answers["8"] == "adults; first image."
    assert answers["6"] == "Non-inferiority with a margin of 0.05 in AUC."
    assert "no image and no patient" in answers["20"]
    assert answers["19"] == "In part: thresholds were chosen on 60 patients of the tune split."
    assert answers["22"] == "In part: the model file has the SHA-256 abc; see Provenance."
    assert answers["44"] is None
    assert rows("STARD-AI", design=design)["6"] == "waived!"
    assert rows("TRIPOD+AI", subgroups=["site"])["12d"] == "Performance by site; see Subgroups."
    assert "probabilities" in rows("TRIPOD+AI")["15"]
    assert "another unit of analysis" in rows("CLAIM 2024")["30"]


def test_the_page_shows_each_item_and_names_the_key_that_answers_it() -> None:
    report = evaluate(frame(), design={"index_test": "<b>x"})
    page, walks = report.to_html(), report.numbers["crosswalks"]
    unanswered = sum(row["answer"] is None for walk in walks for row in walk["rows"])
    assert page.count("open: to be answered by the authors") == unanswered > 100
    assert "open: to be answered by the authors (design: eligibility)" in page
    assert "&lt;b&gt;x." in page
    for walk in walks:
        assert f"{walk['guideline']} checklist" in page
        assert walk["source"].replace("&", "&amp;") in page
