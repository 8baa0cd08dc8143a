from __future__ import annotations

import pandas as pd

from medres.experiments.figures import draw_errors, draw_gradients, draw_twins


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


def test_twins_are_drawn_a_column_a_depth_norms_above_shares_below() -> None:
    keys = [
        (depth, residual, seed)
        for depth in (20, 56)
        for residual in (False, True)
        for seed in (0, 1)
    ]
    rows = [
        {
            "depth": d,
            "residual": r,
            "seed": s,
            "place": place,
            "gradient_norm": 10.0**place,
            "shortcut_share": 0.1 * place,
        }
        for d, r, s in keys
        for place in (1, 2)
    ]
    norms = pd.DataFrame(rows)
    figure = draw_twins(norms, norms[norms["residual"]])
    above, _, below, _ = figure.axes
    assert [axis.get_title() for axis in figure.axes[:2]] == ["20 layers", "56 layers"]
    assert above.get_yscale() == "log"
    assert len(above.lines) == 4
    assert above.lines[0].get_ydata().tolist() == [10.0, 100.0]
    assert [text.get_text() for text in above.get_legend().get_texts()] == ["plain", "residual"]
    assert below.lines[0].get_ydata().tolist() == [0.1, 0.2]
    assert below.get_ylim() == (0, 1)
