"""A run of a later version, with rows that this one has not, can still be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator import ask, report, status
from tests.orchestrator.run_builder import CONFIG, add_trial, new_run
from trainables.errors import InputError
from trainables.methods.adapters import LoRA
from trainables.methods.registry import METHODS, make_method
from trainables.spec.checks import whole
from trainables.spec.knob import Knob
from trainables.spec.knobs import KNOBS
from trainables.spec.quantization import QUANTIZATIONS, Quantization, quantization_of

MEASURED = {"train_peak_memory_bytes": 1e6, "eval_peak_memory_bytes": 1e6, "train_flops": 1e9}
LATER: list[tuple[Mapping[str, Any], str, Any, Any]] = [
    (QUANTIZATIONS, "quantization", "nf3", Quantization(bits=3, loader={"own": True})),
    (METHODS, "method", "dora", LoRA),
    (KNOBS, "beta", 2, Knob(1, whole(1), int, lambda knobs: True, label="be{beta}")),
]


@pytest.fixture(params=LATER, ids=[knob for _, knob, _, _ in LATER])
def later_run(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, str]:
    """The folder of a run whose best trial has what this version does not know, and its id."""
    rows, knob, value, row = request.param
    space = CONFIG["space"] | {knob: [*CONFIG["space"].get(knob, []), value]}
    run = new_run(tmp_path / "run", {**CONFIG, "space": space})
    with monkeypatch.context() as later:
        later.setitem(rows, knob if rows is KNOBS else value, row)
        add_trial(run, right=[1] * 6 + [0] * 4, metrics=MEASURED)
        add_trial(run, right=[1] * 4 + [0] * 6, role="baseline", method="untrained")
        best = add_trial(run, right=[1] * 10, metrics=MEASURED, **{knob: value})
    return run.path, best.path.name


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (report.main, []),
        (status.main, []),
        (ask.main, ["--reach", "0.9", "--minimize", "memory"]),
    ],
)
def test_a_run_of_a_later_version_is_read(
    command: Callable[[Sequence[str]], int],
    options: list[str],
    later_run: tuple[Path, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, best = later_run
    assert command([str(folder), *options]) == 0
    printed = capsys.readouterr()
    assert best in printed.out
    assert "amaged" not in printed.out + printed.err


def test_what_only_a_later_version_has_is_named_where_it_would_run() -> None:
    with pytest.raises(InputError, match="this version has no nf3; it has none, int8"):
        quantization_of({"quantization": "nf3"})
    with pytest.raises(InputError, match="this version has no dora; it has lora, full"):
        make_method({"method": "dora"})
