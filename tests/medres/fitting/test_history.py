from __future__ import annotations

from pathlib import Path

import pytest
from helpers import raises_code

from medres.errors import TrainingError
from medres.fitting.history import plot_history

VALUES = {
    "loss": [0.7, 0.5, 0.4],
    "auc": [0.5, 0.6, 0.7],
    "val_loss": [0.6, 0.4, 0.65],
    "val_auc": [0.5, 0.5, 0.8],
    "learning_rate": [0.1, 0.1, 0.01],
    "spoiled": [0.1, float("nan"), 0.2],
}


def test_one_figure_for_each_quantity_with_two_lines(tmp_path: Path) -> None:
    class History:
        history = VALUES

    plot = plot_history(History())
    assert plot.html.count("<svg") == 3
    assert plot.html.count("<polyline") == 2 + 2 + 1
    assert plot.html.count('class="kept"') == 3
    page = plot.save(tmp_path / "fit.html").read_text()
    assert plot._repr_html_() in page
    assert "body{" not in plot.html  # a notebook keeps its own style
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize(("options", "marks"), [({"monitor": "none"}, 0), ({}, 1)])
def test_the_best_epoch_is_marked(options: dict, marks: int) -> None:
    html = plot_history({key: VALUES[key] for key in ("loss", "val_loss")}, **options).html
    assert html.count('class="kept"') == marks


def test_the_mark_stands_at_the_best_value() -> None:
    from medres.fitting.history import _best

    assert (_best(VALUES["val_loss"], "min"), _best(VALUES["val_auc"], "max")) == (2, 3)


def test_names_are_escaped_and_an_empty_fit_is_refused() -> None:
    assert "<script>" not in plot_history({"<script>": [1.0]}).html
    with raises_code(TrainingError, "empty_history"):
        plot_history({})
