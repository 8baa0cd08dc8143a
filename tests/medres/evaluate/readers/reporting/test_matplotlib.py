from __future__ import annotations

import io

import pytest
from helpers import raises_code

from medres.errors import EvaluationError
from medres.evaluate import reader_study
from medres.evaluate.readers.reporting.matplotlib import (
    plot_reader_differences,
    plot_reader_froc,
    plot_reader_roc,
    plot_sample_size,
)

pytest.importorskip("matplotlib")


def test_figures_show_the_numbers_of_the_study(rated) -> None:
    report = reader_study(rated(), positive=2, effect=0.1, margin=0.05)
    study = report.report.reader_study
    for source in (study, report.numbers["reader_study"]):
        ax = plot_reader_differences(source)
        assert [text.get_text() for text in ax.get_yticklabels()] == [
            *("R1", "R2", "R3", "R4"),
            "mean",
        ]
        points = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o"]
        assert points == [
            *(item.difference.estimate for item in study.per_reader),
            study.contrasts[0].difference.estimate,
        ]
        curves = plot_reader_roc(source)
        thick = [line for line in curves.lines if line.get_linewidth() == 1.8]
        assert [line.get_label() for line in thick] == ["M1", "M2"]
        sizes = plot_sample_size(source).lines[0]
        known = [row.cases for row in study.sample_size.rows if row.cases is not None]
        assert sizes.get_ydata().tolist() == known
    curves.figure.savefig(io.BytesIO(), format="pdf")


def test_froc_curves_are_steps(marked) -> None:
    table, lesions = marked(readers=2)
    study = reader_study(table, lesions=lesions).report.reader_study
    ax = plot_reader_froc(study)
    assert len(ax.lines) == 4
    assert ax.lines[0].get_ydata().tolist() == study.froc.curves[0].sensitivity


@pytest.mark.parametrize("plot", [plot_reader_froc, plot_sample_size])
def test_a_figure_that_the_study_has_not_is_refused(rated, plot) -> None:
    with raises_code(EvaluationError, "no_curve"):
        plot(reader_study(rated()).report.reader_study)
