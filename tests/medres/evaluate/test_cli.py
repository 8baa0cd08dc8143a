from __future__ import annotations

import csv
import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import raises_code

from medres.cli.evaluate_commands import auc_lines
from medres.errors import EvaluationError
from medres.evaluate import evaluate, report
from medres.evaluate.__main__ import main
from medres.evaluate.reporting.save import write_table
from medres.evaluate.scores.scored import Scored

pytestmark = pytest.mark.usefixtures("few_replicates")


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 80)
    frame = pd.DataFrame(
        {
            "image": np.arange(80),
            "patient": np.arange(80) // 2,
            "label": label,
            "score": np.round(1 / (1 + np.exp(-rng.normal(size=80) - label)), 3),
            "site": np.where(label, "=1+1", "b"),
        }
    )
    frame.to_csv(tmp_path / "scores.csv", index=False)
    return tmp_path / "scores.csv"


def test_writes_all_parts(scores: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "deep" / "REPORT"
    assert (
        main(
            [
                "--scores",
                str(scores),
                "--threshold",
                "0.5",
                "--prevalence",
                "positive=0.1",
                "--out",
                str(out),
            ]
        )
        == 0
    )
    assert {p.name for p in out.iterdir()} == {
        "report.html",
        "report.json",
        "model_card.md",
        "tables",
    }
    assert [p.name for p in out.parent.iterdir()] == ["REPORT"]
    numbers = json.loads((out / "report.json").read_text())
    point = numbers["findings"]["positive"]["operating_points"][0]
    assert (point["origin"], point["threshold"]) == ("declared", 0.5)
    assert "AUC" in capsys.readouterr().out
    rows = list(csv.DictReader((out / "tables" / "figures.csv").read_text().splitlines()))
    (auc,) = [row for row in rows if row["figure"] == "auc"]
    assert float(auc["estimate"]) == numbers["findings"]["positive"]["auc"]["estimate"]


def test_the_finding_of_a_model_is_named(scores: Path) -> None:
    (line,) = auc_lines(evaluate(scores, provenance={"finding": "effusion"}))
    assert line.startswith("effusion: AUC 0.")


def test_the_terminal_says_that_a_model_is_no_better_than_chance() -> None:
    rng = np.random.default_rng(0)
    label = np.arange(200) % 2
    frame = pd.DataFrame({"label": label, "score": rng.random(200)})
    (line,) = auc_lines(evaluate(frame))
    assert line.endswith("no better than chance, because the interval includes 0.5")
    (line,) = auc_lines(evaluate(frame.assign(score=0.3 * frame.score - 0.2 * label)))
    assert line.endswith("ranks the wrong way round")
    (line,) = auc_lines(evaluate(frame.assign(score=0.3 * frame.score + 0.2 * label)))
    assert "chance" not in line


def fake_scoring(monkeypatch: pytest.MonkeyPatch, scored: Scored) -> list[tuple[str, str, str]]:
    """Replace medres.inference.scoring, which starts TensorFlow, and the look into the model file;
    returns the calls of score.
    """
    calls = []

    def score(model: str, work: str, split: str, check, progress) -> Scored:
        check(scored)
        calls.append((model, work, split))
        return scored

    module = types.ModuleType("medres.inference.scoring")
    module.score = score
    monkeypatch.setitem(sys.modules, "medres.inference.scoring", module)
    monkeypatch.setattr("medres.cli.evaluate_commands.task_of_model", lambda model: None)
    return calls


def test_a_model_form_takes_the_models_name_of_its_finding(
    scores: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    frozen = [{"finding": "positive", "name": "default", "threshold": 0.5}]
    provenance = {"finding": "effusion"}
    fake_scoring(monkeypatch, Scored(pd.read_csv(scores), frozen, "image", provenance=provenance))
    for name in ("effusion", "positive"):
        args = ["run/model.keras", "work", "--out", str(tmp_path / name)]
        assert main([*args, "--prevalence", f"{name}=0.1", "--threshold", f"{name}:low=0.3"]) == 0
        numbers = json.loads((tmp_path / name / "report.json").read_text())["findings"]["positive"]
        assert [p["threshold"] for p in numbers["operating_points"]] == [0.5, 0.3]
        assert any(
            at["prevalence"] == 0.1 for at in numbers["operating_points"][0]["predictive_at"]
        )
    assert capsys.readouterr().out.startswith("effusion: AUC 0.")


def test_all_options_together(scores: Path, tmp_path: Path, capsys) -> None:
    tune = pd.read_csv(scores)
    tune.assign(image=tune.image + 1000, patient=tune.patient + 1000).to_csv(
        tmp_path / "tune.csv", index=False
    )
    (tmp_path / "study.json").write_text('{"sampling": "cohort"}')
    args = [
        "--scores",
        scores,
        "--tune",
        tmp_path / "tune.csv",
        "--subgroup",
        "site",
        "--compare",
        scores,
        "--compare-unpaired",
        tmp_path / "tune.csv",
        "--level",
        "0.9",
        "--margin",
        "0.05",
        "--design",
        tmp_path / "study.json",
        "--threshold",
        "positive:low=0.2",
        "--unit",
        "image",
        "--operating-point",
        "screening=sensitivity:0.95",
        "--json",
        "--out",
        tmp_path / "R",
    ]
    assert main([str(a) for a in args]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["findings"]["positive"]["auc"]["level"] == 0.9
    numbers = json.loads((tmp_path / "R" / "report.json").read_text())
    points = numbers["findings"]["positive"]["operating_points"]
    assert [(p["origin"], p["name"]) for p in points] == [
        ("frozen", "screening"), ("declared", "low"), ("frozen", "default"),
    ]  # fmt: skip
    assert points[0]["source"]["criterion"] == "sensitivity:0.95"
    assert numbers["comparisons"][0]["margin"] == 0.05
    assert [row["method"].split()[0] for row in numbers["comparisons"]] == ["paired", "unpaired"]


def test_formulas_are_disarmed_in_every_table(scores: Path, tmp_path: Path) -> None:
    assert main(["--scores", str(scores), "--subgroup", "site", "--out", str(tmp_path / "R")]) == 0
    text = (tmp_path / "R" / "tables" / "subgroups.csv").read_text()
    assert "'=1+1" in text
    assert ",=1+1" not in text


def test_numbers_and_gaps_of_a_table_stay_what_they_are(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", [{"@a": " =b", "b": -0.5, "c": "-3"}, {"@a": "ok"}])
    assert (tmp_path / "t.csv").read_text() == "'@a,b,c\n' =b,-0.5,-3\nok,,\n"


@pytest.mark.parametrize(
    "args",
    [
        [], ["--scores", "s.csv"],
        ["--scores", "s.csv", "model.keras", "work", "--out", "R"], ["model.keras", "--out", "R"],
        ["--scores", "s.csv", "--split", "test", "--out", "R"],
        ["--scores", "s.csv", "--threshold", "a=b", "--out", "R"],
        ["--scores", "s.csv", "--threshold", "name=0.5", "--out", "R"],
        ["--scores", "s.csv", "--operating-point", "high", "--out", "R"],
        ["--scores", "s.csv", "--prevalence", "a=b", "--out", "R"],
        ["--scores", "s.csv", "--prevalence", "=0.5", "--out", "R"],
        ["--scores", "s.csv", "--unit", "lesion", "--out", "R"], ["--unknown"],
    ],
)  # fmt: skip
def test_wrong_usage_is_two(args: list[str], capsys) -> None:
    assert main(args) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_one_prevalence_for_all_findings_and_another_for_one(scores: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(scores)
    frame = frame.rename(columns={"label": "label:A", "score": "score:A"}).assign(
        **{"label:B": frame.label, "score:B": frame.score}
    )
    frame.to_csv(tmp_path / "two.csv", index=False)
    prevalences = ["--prevalence", "0.1", "--prevalence", "B=0.02"]
    assert (
        main(["--scores", str(tmp_path / "two.csv"), *prevalences, "--out", str(tmp_path / "R")])
        == 0
    )
    numbers = json.loads((tmp_path / "R" / "report.json").read_text())
    assert numbers["design"]["prevalence"] == {"A": 0.1, "B": 0.02}
    assert numbers["findings"]["B"]["operating_points"][0]["predictive_at"][0]["prevalence"] == 0.02


def test_help_is_zero(capsys) -> None:
    assert main(["--help"]) == 0
    assert "--scores" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text",
    [
        "label,score\n",
        "label,score\n1,.5\n1,.6\n",
        "label,score\n1,nan\n0,.5\n",
        "label,score\nDoe^John,.5\n",
    ],
)
def test_bad_tables_are_one_line_and_leave_nothing(tmp_path: Path, capsys, text: str) -> None:
    (tmp_path / "s.csv").write_text(text)
    assert main(["--scores", str(tmp_path / "s.csv"), "--out", str(tmp_path / "R")]) == 1
    err = capsys.readouterr().err
    assert err.startswith("medres: ")
    assert err.count("\n") == 1
    assert "internal error" not in err
    assert "Doe" not in err
    assert [p.name for p in tmp_path.iterdir()] == ["s.csv"]


def test_a_table_of_one_class_leads_to_the_documentation(tmp_path: Path, capsys) -> None:
    (tmp_path / "s.csv").write_text("label,score\n1,.5\n1,.6\n")
    assert main(["--scores", str(tmp_path / "s.csv"), "--out", str(tmp_path / "R")]) == 1
    assert capsys.readouterr().err.strip().endswith("[docs/troubleshooting.md#one_class]")


def test_a_traceback_only_when_asked_for(tmp_path: Path, capsys) -> None:
    assert (
        main(["--scores", str(tmp_path / "absent.csv"), "--out", str(tmp_path / "R"), "--debug"])
        == 1
    )
    assert "Traceback" in capsys.readouterr().err


def test_an_output_folder_is_never_overwritten_by_accident(
    scores: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "R"
    args = ["--scores", str(scores), "--out", str(out)]
    assert main(args) == 0
    assert main(args) == 1
    assert "--overwrite" in capsys.readouterr().err
    (out / "report.html").write_text("old")
    assert main([*args, "--overwrite"]) == 0
    assert (out / "report.html").read_text() != "old"
    (out / "thesis.txt").write_text("mine")
    assert main([*args, "--overwrite"]) == 1
    assert (out / "thesis.txt").read_text() == "mine"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "report.json").write_text("[]")
    assert main(["--scores", str(scores), "--out", str(foreign), "--overwrite"]) == 1
    assert main(["--scores", str(scores), "--out", str(scores)]) == 1
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main(["--scores", str(scores), "--out", str(empty)]) == 0


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt(), RuntimeError("Doe^John")]
)
def test_a_full_disk_or_ctrl_c_leaves_the_old_report_and_no_trace(
    scores: Path, tmp_path: Path, monkeypatch, capsys, error
) -> None:
    args = ["--scores", str(scores), "--out", str(tmp_path / "R"), "--overwrite"]
    assert main(args) == 0
    before = (tmp_path / "R" / "report.json").read_bytes()

    def broken(self) -> str:
        raise error

    monkeypatch.setattr(report.DiagnosticReport, "to_html", broken)
    assert main(args) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "Doe" not in message
    assert (tmp_path / "R" / "report.json").read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"scores.csv", "R"}


def test_save_from_python(scores: Path, tmp_path: Path) -> None:
    diagnostic = evaluate(scores)
    folder = diagnostic.save(tmp_path / "R")
    assert (folder / "report.json").read_text() == diagnostic.to_json()
    with raises_code(EvaluationError, "not_empty"):
        diagnostic.save(tmp_path / "R")


def test_scored_brings_its_own_settings_and_arguments_take_precedence(scores: Path) -> None:
    frozen = [{"finding": "positive", "name": "default", "threshold": 0.55}]
    table = pd.read_csv(scores).assign(label=lambda d: d.patient % 2)
    scored = Scored(table, frozen, "patient", pool="mean", title="spot", subgroups=("site",))
    numbers = evaluate(scored, thresholds=0.4).numbers
    assert (numbers["analysis_unit"], numbers["pooling"]["score"]) == ("patient", "mean")
    assert numbers["title"] == "spot"
    finding = numbers["findings"]["positive"]
    points = [(point["origin"], point["threshold"]) for point in finding["operating_points"]]
    assert points == [("frozen", 0.55), ("declared", 0.4)]
    assert {row["column"] for row in finding["subgroups"]} == {"site"}
    assert evaluate(scored, unit="image").numbers["analysis_unit"] == "image"


def test_the_model_form_asks_predict_for_scores(scores: Path, tmp_path: Path, monkeypatch) -> None:

    frozen = [
        {
            "finding": "positive",
            "name": "default",
            "threshold": 0.55,
            "criterion": "youden",
            "split": "tune",
            "unit": unit,
        }
        for unit in ("patient", "image")
    ]
    scored = Scored(
        pd.read_csv(scores).assign(label=lambda d: d.patient % 2),
        frozen,
        "patient",
        pool="mean",
        title="spot: test split",
        provenance={"model": "abc"},
        flow={"given": 90, "sources": ["/home/doe"]},
    )
    calls = fake_scoring(monkeypatch, scored)
    assert main(["m.keras", "work", "--threshold", "0.4", "--out", str(tmp_path / "R")]) == 0
    assert calls == [("m.keras", "work", "test")]
    numbers = json.loads((tmp_path / "R" / "report.json").read_text())
    assert numbers["analysis_unit"] == "patient"
    assert numbers["pooling"]["score"] == "mean"
    assert numbers["flow"]["ingest"] == {"given": 90}
    assert numbers["provenance"]["model"] == "abc"
    points = numbers["findings"]["positive"]["operating_points"]
    assert [(p["origin"], p["threshold"]) for p in points] == [("declared", 0.4), ("frozen", 0.55)]


def test_as_a_module_without_tensorflow(scores: Path, tmp_path: Path) -> None:
    code = (
        "import sys, runpy; sys.argv = ['x'] + sys.argv[1:]\n"
        "try:\n    runpy.run_module('medres.evaluate', run_name='__main__')\n"
        "except SystemExit as stop:\n    bad = {'tensorflow', 'keras'} & set(sys.modules)\n"
        "    sys.exit(repr(bad) if bad else stop.code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--scores", str(scores), "--out", str(tmp_path / "R")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "R" / "report.html").exists()
