"""The benchmark of the speed of answers: its table, and its end where an answer differs."""

from __future__ import annotations

import pytest
import torch

from benchmarks import evaluation_speed
from benchmarks.evaluation_speed import Case, cases, measure, report
from trainables.spec.trial_spec import Execution


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    torch.set_num_threads(1)
    execution = Execution(eval_batch_size=4, max_new_tokens=4)
    return list(cases(tmp_path_factory.mktemp("data"), execution, questions=5))


@pytest.mark.slow
def test_the_table_has_medians_and_their_ratio(found: list[Case]) -> None:
    case = found[0]
    case.one_by_one, case.evaluated = [3.0, 1.0, 9.0], [0.5, 0.1, 0.3]
    *_, row = report([case]).splitlines()
    assert row.startswith("| a number is written (small) | 0 |")
    assert row.endswith("| 3.00 s | 0.30 s | 10.0 |")


@pytest.mark.slow
def test_answers_are_those_of_one_by_one_or_it_ends(
    found: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [case.shots for case in found] == [0, 8] * 4
    for case in found:
        measure(case)
        assert bool(case.asked.encoded.beginning) is bool(case.shots)
    count = len(found[-1].asked.encoded)
    monkeypatch.setattr(evaluation_speed, "answers_evaluated", lambda asked: ["?"] * count)
    with pytest.raises(SystemExit, match=rf"half a sentence .*, 8 shots: {count} answers differ"):
        measure(found[-1])
