from __future__ import annotations

import pandas as pd

from medres.study.figures import draw_errors, draw_gradients


def test_errors_are_drawn_in_percent_plain_left_residual_right() -> None:
    rows = [
        {
            "depth": depth,
            "residual": residual,
            "seed": seed,
            "epoch": epoch,
            "train_error": 0.1 * epoch,
            "test_error": 0.2 * epoch,
        }
        for depth in (20, 56)
        for residual in (False, True)
        for seed in (0, 1)
        for epoch in (1, 2)
    ]
    left, right = draw_errors(pd.DataFrame(rows)).axes
    assert (left.get_title(), right.get_title()) == ("plain", "residual")
    assert len(left.lines) == len(right.lines) == 8
    assert left.lines[0].get_ydata().tolist() == [10, 20]
    assert left.lines[1].get_ydata().tolist() == [20, 40]
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["20 layers", "56 layers"]


def test_gradients_are_drawn_one_line_a_net() -> None:
    layers = pd.DataFrame({"depth": [1, 2, 3], "gradient_norm": [4.0, 2.0, 1.0]})
    (axis,) = draw_gradients({"plain": layers, "residual": layers / 2}).axes
    assert axis.get_yscale() == "log"
    assert [line.get_label() for line in axis.lines] == ["plain", "residual"]
    assert axis.lines[1].get_ydata().tolist() == [2.0, 1.0, 0.5]
