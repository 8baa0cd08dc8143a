from __future__ import annotations

import re

import pandas as pd
import pytest

from medres.evaluate import reader_study
from medres.evaluate.readers.made_up import MODEL, THRESHOLD, WITH, WITHOUT, made_up_study
from medres.evaluate.readers.outcome import ReaderStudyResult
from medres.evaluate.readers.reporting.methods import claims, variance_words
from medres.evaluate.serialization import from_plain


@pytest.fixture(scope="module")
def report():
    return reader_study(
        made_up_study(),
        pair=(WITH, WITHOUT),
        standalone=MODEL,
        positive=3,
        threshold=THRESHOLD,
        margin=0.05,
        effect=0.05,
    )


def test_the_made_up_study_shows_every_part(report) -> None:
    page = report.to_html()
    for title in (
        "Difference between modalities",
        "ROC curves",
        "Sensitivity and specificity of the readers",
        "The model alone",
        "The model at the specificity of each reader",
        "Variance components",
        "Reading time",
        "Agreement between readers",
        "Sample size of a further study",
        "What this study can claim, and what not",
    ):
        assert f"<h2>{title}" in page
    assert page.count("<svg") == 4  # the forest has a narrow form for phones
    assert not re.search(r"\bnan\b|\bNone\b", page)
    assert "http" not in re.sub("http-equiv|http://www.w3.org/2000/svg", "", page)
    svg = page[page.index("<svg") :]
    difference = report.report.reader_study.contrasts[0].difference
    assert f"{difference.estimate:+.3f} (" in svg


def test_the_json_can_be_read_back(report) -> None:
    again = from_plain(ReaderStudyResult, report.numbers)
    assert again.to_json() == report.numbers


def test_tables_hold_the_numbers_of_the_json(report, tmp_path) -> None:
    report.save(tmp_path / "out")
    study = report.numbers["reader_study"]

    def table(name: str) -> pd.DataFrame:
        return pd.read_csv(tmp_path / f"out/tables/{name}.csv")

    agreement = table("agreement")
    assert len(agreement) == 2 * 4 + 2 * 15 * 4
    fleiss = agreement[agreement["measure"] == "fleiss"]["estimate"].tolist()
    assert fleiss == [m["fleiss"]["estimate"] for m in study["agreement"]["modalities"]]
    rates = table("rates")
    assert set(rates["figure"]) == {"sensitivity@3", "specificity@3"}
    assert table("rates_standalone")["estimate"].notna().all()
    times = table("reading_time")
    assert times["estimate"].iloc[-1] == study["reading_time"]["ratios"][-1]["ratio"]["estimate"]
    curves = table("curves")
    assert set(curves["modality"]) == {WITH, WITHOUT, MODEL}
    assert table("variance_shares").iloc[0].sum() == pytest.approx(1)
    assert table("overall")["f"].tolist() == [study["overall"]["f"]]
    alone = table("standalone_model").iloc[0]
    assert (alone["reader"], alone["estimate"]) == (
        study["standalone"]["name"],
        study["standalone"]["estimate"]["estimate"],
    )
    points = table("points")[["fpr", "tpr"]].to_numpy().tolist()
    assert points == [curve["at"] for curve in study["curves"] if "at" in curve]
    exploratory = table("model_at_readers")
    expected = [
        value["estimate"]
        for item in study["model_at_readers"]
        for value in item.values()
        if isinstance(value, dict)
    ]
    assert exploratory["estimate"].tolist() == expected


def test_froc_is_on_the_page_and_in_a_table(marked, tmp_path) -> None:
    table, lesions = marked(readers=2)
    report = reader_study(table, lesions=lesions)
    page = report.to_html()
    assert "<h2>FROC curves</h2>" in page
    assert "Hit rule: as the readers table says" in page
    report.save(tmp_path / "out")
    rows = pd.read_csv(tmp_path / "out/tables/froc.csv")
    differences = pd.read_csv(tmp_path / "out/tables/froc_differences.csv")
    assert differences["estimate"].tolist() == [
        item["difference"]["estimate"]
        for item in report.numbers["reader_study"]["froc"]["differences"]
    ]
    assert len(rows) == 2 * 2 * 3 * 8
    values = report.report.reader_study.froc.values
    assert rows["estimate"].tolist()[7] == pytest.approx(values[0].froc_mean.estimate)


def test_claims_follow_the_design(rated) -> None:
    table = rated()
    fixed = reader_study(table, analysis="frrc").report.reader_study
    assert any("other readers" in line for line in claims(fixed, None))
    assert any("No margin" in line for line in claims(fixed, None))
    assert not any("No margin" in line for line in claims(fixed, 0.05))
    apart = table[(table["case"] < 20) == (table["modality"] == "M1")]
    nested = reader_study(apart).report.reader_study
    assert any("groups of cases" in line for line in claims(nested, None))


def test_shares_of_the_variance_sum_to_one_and_are_said(rated) -> None:
    study = reader_study(rated(seed=3)).report.reader_study
    shares, c = study.variance_shares, study.components
    assert shares.readers + shares.cases + shares.both == pytest.approx(1)
    excess = max(c.cov2 - c.cov3, 0)
    whole = (max(c.modality_reader, 0) + c.error - c.cov1 - excess) / 4 + excess
    assert shares.cases == pytest.approx(excess / whole)
    assert f"{shares.cases:.0%} becomes smaller with more cases only" in variance_words(study)


def test_the_page_states_the_level_of_the_intervals(rated) -> None:
    page = reader_study(rated(), level=0.9).to_html()
    assert "<th>90% interval</th>" in page
    assert "95%" not in page
