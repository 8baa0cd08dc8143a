from __future__ import annotations

import pytest

from medres.cli.inspect_commands import doctor_lines
from medres.inspection import environment
from medres.runtimes import engine_speed
from medres.runtimes.engine_speed import EngineSpeed, ask_engines, fastest_exact

ROWS = [
    EngineSpeed("tensorflow", 20.0, 0.0),
    EngineSpeed("onnx", None, None, "onnx needs tf2onnx"),
    EngineSpeed("openvino", 15.0, 2e-7),
]


def test_the_fastest_engine_must_be_exact() -> None:
    assert fastest_exact(ROWS) == "openvino"
    assert fastest_exact([*ROWS[:2], EngineSpeed("openvino", 8.0, 2e-3)]) == "tensorflow"
    assert fastest_exact([EngineSpeed("onnx", 8.0, float("nan"))]) is None


def test_each_engine_has_its_turn_in_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    engines = {name: lambda image, name=name: calls.append(name) for name in ("a", "b")}
    times = engine_speed._alternating(engines, None)  # type: ignore[arg-type]
    assert calls == (["a"] * 4 + ["b"] * 4) * 6
    assert {*times} == {"a", "b"}


def test_doctor_names_the_fastest_engine() -> None:
    facts = environment.examine(ask=lambda: {"error": "none"})
    facts["engines"] = {"fastest": "openvino", "engines": [row._asdict() for row in ROWS]}
    lines = doctor_lines(facts)
    assert "  fastest exact engine on this machine: openvino" in lines
    assert "  onnx: onnx needs tf2onnx" in lines
    facts["engines"] = {"error": "no memory"}
    assert "  not measured: no memory" in doctor_lines(facts)


def test_a_measurement_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_speed.sys, "executable", "/bin/false")
    assert "cannot be measured" in ask_engines()["error"]


@pytest.mark.long
def test_the_engines_are_measured_here() -> None:
    measured = ask_engines()
    assert measured["fastest"] in ("tensorflow", "onnx", "openvino")
    assert all(
        row["difference"] <= 1e-5 for row in measured["engines"] if row["milliseconds"] is not None
    )
