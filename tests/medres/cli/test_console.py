r"""Names from model files, tables and DICOM do not act on the terminal: ESC sequences and
bidirectional overrides are printed as \x1b and \u202e.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import make_tiny_cohort
from helpers import fails, medres, raises_code

from data_pipelines.runtime.plain_text import is_plain
from medres.cli.console import report
from medres.errors import TrainingError
from medres.progress import Bars
from medres.training.checks import check_card_texts

NAME = "x\x1b[2J\u202ey"
SHOWN = "x\\x1b[2J\\u202ey"


def require_plain(text: str) -> None:
    assert all(map(is_plain, text.split("\n")))


def test_lines_and_json_escape_foreign_names(capsys: pytest.CaptureFixture[str]) -> None:
    report({}, False, [f"{NAME}\nsecond: forged"])
    assert capsys.readouterr().out == f"{SHOWN}\\nsecond: forged\n"
    report({NAME: "\x7f"}, True, [])
    printed = capsys.readouterr().out
    require_plain(printed)
    assert json.loads(printed) == {NAME: "\x7f"}
    Bars().line(f"loss of {NAME}\n0.5")
    assert capsys.readouterr().err.endswith(f"loss of {SHOWN}\n0.5\n")


def test_file_names_are_escaped_in_predictions_and_errors(tiny_run: Path, tmp_path: Path) -> None:
    image = tmp_path / f"{NAME}.dcm"
    image.write_bytes(b"not DICOM")
    model = tiny_run / "model.keras"
    for options in ((), ("--json",)):
        printed = medres("predict", model, image, *options)
        assert printed.exit_code == 0
        require_plain(printed.stdout)
    assert json.loads(printed.stdout)[0]["path"] == str(image)
    broken = tmp_path / f"{NAME}.keras"
    shutil.copy(image, broken)
    message = fails(medres("verify", broken))
    assert f"{SHOWN}.keras" in message
    require_plain(message)


def test_columns_of_a_table_are_escaped(tmp_path: Path) -> None:
    labels = make_tiny_cohort(tmp_path, patients=8)
    labels.write_text(labels.read_text().replace("square", NAME, 1))
    out = tmp_path / "work"
    printed = medres("ingest", tmp_path / "images", "--labels", labels, "--out", out, "--no-split")
    assert printed.exit_code == 0, printed.stderr
    assert SHOWN in printed.stdout
    require_plain(printed.stdout)


@pytest.mark.parametrize("name", [NAME, "", "x" * 201])
def test_a_name_that_no_model_file_may_hold_is_refused_before_training(name: str) -> None:
    check_card_texts(["square"], {"seed": 0})
    with raises_code(TrainingError, "unsafe_text") as caught:
        check_card_texts(["square", name], {})
    require_plain(str(caught.value))
    with raises_code(TrainingError, "unsafe_text"):
        check_card_texts(["square"], {"weights": NAME})
