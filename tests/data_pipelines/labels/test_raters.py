from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from helpers import raises_code

from data_pipelines.errors import LabelError
from data_pipelines.labels.table import Labels, read_labels


def read(tmp_path: Path, text: str, **options: str) -> Labels:
    (tmp_path / "labels.csv").write_text(text)
    return read_labels(tmp_path / "labels.csv", **options)


def slow_vote(votes: list[str], policy: str) -> float:
    """The rules, spelt out case by case."""
    cast = [float(v) for v in votes if v]
    if not cast:
        return np.nan
    if policy == "any":
        return 1.0 if 1.0 in cast else -1.0 if -1.0 in cast else 0.0
    if policy == "uncertain":
        return cast[0] if all(v == cast[0] for v in cast) else -1.0
    for value in (0.0, 1.0, -1.0):
        if sum(v == value for v in cast) > len(cast) / 2:
            return value
    return -1.0


@pytest.mark.parametrize("policy", ["majority", "any", "uncertain"])
def test_every_vote_of_up_to_three_readers(tmp_path: Path, policy: str) -> None:
    cases = [
        votes for n in (1, 2, 3) for votes in itertools.product(["0", "1", "-1", ""], repeat=n)
    ]
    lines = [f"s{k},{vote},{r}" for k, votes in enumerate(cases) for r, vote in enumerate(votes)]
    labels = read(
        tmp_path, "study_instance_uid,x,reader\n" + "\n".join(lines) + "\n", readers=policy
    )
    got = labels.rows.set_index("key")["label:x"]
    np.testing.assert_array_equal(
        got[[f"s{k}" for k in range(len(cases))]], [slow_vote(list(v), policy) for v in cases]
    )
    assert labels.readers is not None
    assert labels.readers["policy"] == policy
    assert labels.readers["keys_with_several_rows"] == 16 + 64
    assert labels.readers["disagreements"] == {"x": sum(len(set(v) - {""}) > 1 for v in cases)}
    assert labels.ignored == ()


def test_equal_votes_count_each(tmp_path: Path) -> None:
    text = "path,x,y\na,1,0\na,1,0\na,0,0\nb,0,1\n"
    labels = read(tmp_path, text, readers="majority")
    assert labels.rows.set_index("key")["label:x"].to_dict() == {"a": 1, "b": 0}


def test_classes(tmp_path: Path) -> None:
    text = "path,class\na,cat\na,cat\na,dog\nb,dog\nc,cat\nc,dog\nd,dog\nd,\n"
    assert read(tmp_path, text, readers="majority").rows.set_index("key")["class"].to_dict() == {
        "a": "cat", "b": "dog", "c": "", "d": "dog",
    }  # fmt: skip
    assert read(tmp_path, text, readers="uncertain").rows["class"].tolist() == [
        "",
        "dog",
        "",
        "dog",
    ]
    with raises_code(LabelError, "policy_not_for_classes"):
        read(tmp_path, text, readers="any")


def test_without_a_policy_the_choices_are_named(tmp_path: Path) -> None:
    with raises_code(LabelError, "duplicate_key", "row 3", "--readers majority, any, uncertain"):
        read(tmp_path, "path,x\na,1\na,0\n")


def test_what_no_vote_can_settle(tmp_path: Path) -> None:
    with raises_code(LabelError, "raters_differ", "column patient, row 3") as caught:
        read(tmp_path, "path,x,patient\na,1,CANARY\na,0,CANARY2\nb,0,p\n", readers="any")
    assert "CANARY" not in str(caught.value)
    labels = read(tmp_path, "path,x,meta:who\na,1,A\na,0,B\nb,0,C\n", readers="any")
    assert labels.rows["meta:who"].tolist() == ["", "C"]
