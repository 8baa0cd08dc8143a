from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers import raises_code
from scipy import stats

from medres.errors import EvaluationError
from medres.evaluate import reader_study


@pytest.fixture
def timed(rated) -> pd.DataFrame:
    table = rated()
    draw = np.random.default_rng(4)
    log = 4 - 0.3 * (table["modality"] == "M2") + draw.normal(0, 0.4, len(table))
    return table.assign(time_s=np.exp(log), block=np.where(table["case"] % 2, "am", "pm"))


def log_means(table: pd.DataFrame) -> pd.DataFrame:
    log = np.log(table["time_s"])
    return log.groupby([table["modality"], table["reader"]]).mean().unstack()


def test_the_ratio_is_that_of_the_analysis_of_logarithms(timed) -> None:
    found = reader_study(timed, analysis="rrfc").report.reader_study.reading_time
    means = log_means(timed)
    difference = means.loc["M1"] - means.loc["M2"]
    first = found.ratios[0]
    assert (first.reader, first.a, first.b) == (None, "M1", "M2")
    assert first.ratio.estimate == pytest.approx(np.exp(difference.mean()))
    test = stats.ttest_1samp(difference, 0)
    assert first.p_value == pytest.approx(test.pvalue)
    assert first.ratio.bounds == pytest.approx(np.exp(test.confidence_interval()))
    assert found.modalities[0].seconds.estimate == pytest.approx(np.exp(means.loc["M1"].mean()))
    assert found.modalities[0].seconds.ci_high > 1
    assert (found.readings, found.missing) == (320, 0)


def test_one_reader_has_a_paired_interval_over_cases(timed) -> None:
    one = timed[timed["reader"] == "R2"]
    found = reader_study(one, analysis="frrc").report.reader_study.reading_time
    log = np.log(one.set_index(["modality", "case"])["time_s"]).unstack(0)
    change = log["M1"] - log["M2"]
    half = stats.norm.ppf(0.975) * change.std() / np.sqrt(len(change))
    expected = np.exp([change.mean() - half, change.mean() + half])
    assert found.ratios[1].reader == "R2"
    assert found.ratios[1].ratio.bounds == pytest.approx(expected)


def test_missing_times_are_counted(timed) -> None:
    timed.loc[timed["case"] == 3, "time_s"] = np.nan
    found = reader_study(timed).report.reader_study.reading_time
    assert (found.readings, found.missing) == (312, 8)
    timed.loc[timed["reader"] == "R1", "time_s"] = np.nan
    found = reader_study(timed).report.reader_study.reading_time
    assert "fewer than two patients" in found.why
    assert found.ratios == []
    assert reader_study(timed.drop(columns="time_s")).report.reader_study.reading_time is None


def test_blocks_have_their_own_rows_and_a_note_if_they_hold_one_modality(timed) -> None:
    study = reader_study(timed).report.reader_study
    block = study.reading_time.blocks[0]
    own = timed[(timed["block"] == "am") & (timed["modality"] == "M1")]["time_s"]
    assert (block.block, block.modality, block.readings) == ("am", "M1", len(own))
    assert block.seconds == pytest.approx(stats.gmean(own))
    assert not any("block" in note for note in study.notes)
    apart = timed.assign(block=timed["modality"])
    assert any("order" in note for note in reader_study(apart).report.reader_study.notes)


@pytest.mark.parametrize("value", ["soon", 0, -3, np.inf])
def test_a_time_that_is_no_time_is_refused(timed, value: object) -> None:
    timed["time_s"] = timed["time_s"].astype(object)
    timed.loc[7, "time_s"] = value
    with raises_code(EvaluationError, "bad_time", "row 8"):
        reader_study(timed)


def test_marks_of_one_reading_have_one_time_and_block(marked) -> None:
    table, lesions = marked()
    reading = ["reader", "modality", "case"]
    table["time_s"] = 30.0 + table["case"]
    first = ~table.duplicated(reading)
    times = table["time_s"].where(first)
    once = reader_study(table.assign(time_s=times), lesions=lesions).report.reader_study
    assert (
        once.reading_time == reader_study(table, lesions=lesions).report.reader_study.reading_time
    )
    row = table.index[~first][0]
    with raises_code(EvaluationError, "time_differs"):
        reader_study(table.assign(time_s=times.where(table.index != row, 1.0)), lesions=lesions)
    blocks = pd.Series("1", table.index)
    blocks[row] = "2"
    with raises_code(EvaluationError, "block_differs"):
        reader_study(table.assign(block=blocks), lesions=lesions)
