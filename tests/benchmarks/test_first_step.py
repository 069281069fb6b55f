"""What the benchmark of the first optimizer step reads, and the table that it prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.first_step import Sample, Start, cpu_seconds, first_step, report


def checkpoint(storage: Path, trial: str, state: Any) -> None:
    folder = storage / "first-step" / "trials" / trial / "checkpoints" / "step-00000001"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(json.dumps(state))


def test_the_earliest_step_of_all_trials_counts(tmp_path: Path) -> None:
    assert first_step(tmp_path) is None
    checkpoint(tmp_path, "a", {"progress": {"first_step_time": 0.0}})
    assert first_step(tmp_path) is None
    checkpoint(tmp_path, "b", {"progress": {"first_step_time": 20.0}})
    checkpoint(tmp_path, "c", {"content": {"progress": {"first_step_time": 12.0}}})
    assert first_step(tmp_path) == 12.0


def test_a_process_counts_once_with_what_it_had_used_by_then() -> None:
    forked = [Sample(1.0, "server", 0.5), Sample(2.0, "ray worker", 1.5), Sample(3.0, "host", 9.0)]
    seen = {7: forked, 8: [Sample(1.0, "idle", 0.0)], 9: [Sample(3.0, "late", 1.0)]}
    assert cpu_seconds(seen, moment=2.5) == {"ray worker (7)": 1.5}


def test_medians_and_their_ratio_to_the_first_checkout() -> None:
    old = [Start(seconds, {"a": 10.0, "b": 20.0}) for seconds in (18.0, 20.0, 50.0)]
    new = [Start(seconds, {"a": 15.0}) for seconds in (7.0, 8.0, 9.0)]
    lines = report({Path("/x/old"): old, Path("/x/new"): new}).splitlines()
    assert lines[2:] == [
        "| old | 20.00 s | 30.00 s | 1.00 | 1.00 |",
        "| new | 8.00 s | 15.00 s | 0.40 | 0.50 |",
    ]
