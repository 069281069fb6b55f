"""`batch_size: auto`, and the batch size that runs when memory is short.

A limit of the batch size replaces the device's memory: a larger batch fails as in torch, after its
forward pass has used random numbers for dropout and earlier micro-batches have left gradients.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_trials import assert_same_curve, make_spec, make_trial, run
from trainables.evaluation import loss
from trainables.evaluation.evaluate import Evaluation, evaluate
from trainables.resources.batch_fitting import BatchShrinker, predicted_batch_size
from trainables.resources.memory_peak import PeakMemory
from trainables.spec.events import Event
from trainables.spec.trial_spec import Budget
from trainables.storage.trial_folder import TrialFolder
from trainables.training.loop import train
from trainables.training.progress import resumed_history
from trainables.workers.host import HostProcess

TOLD = ("executed_batch_size", "executed_gradient_accumulation")
SIX: dict[str, Any] = {"batch_size": "auto", "effective_batch_size": 6}
LONG = Budget(train_examples=22, eval_examples=3, rungs=(0.5, 1.0))  # of 6: four steps, one ragged


def test_the_rows_are_halved_until_they_fit_and_stay_so() -> None:
    tried: list[int] = []
    fitting = BatchShrinker(13)
    assert fitting.fit(_at_most(3, tried)) == 2
    assert fitting.fit(_at_most(3, tried)) == 2
    assert tried == [13, 7, 4, 2, 2]


@pytest.mark.parametrize(
    ("prediction", "rows"),
    [
        ({"micro_batch": 5}, 5),
        ({"micro_batch": 99}, 13),
        ({"micro_batch": None}, 13),
        ({"micro_batch": 0}, 13),
        ({"micro_batch": "many"}, 13),
        ({}, 13),
        (None, 13),
    ],
    ids=repr,
)
def test_it_begins_with_as_many_rows_as_are_foretold_to_fit(prediction: Any, rows: int) -> None:
    assert predicted_batch_size(prediction, limit=13) == rows


def test_a_trial_begins_with_the_rows_of_its_prediction_and_is_the_same_curve(
    tiny_llama: Path, tmp_path: Path
) -> None:
    spec = make_spec(tiny_llama, **SIX)
    whole = run(spec, tmp_path / "whole")
    trial = make_trial(spec, tmp_path / "foretold")
    trial.folder.write_estimate({"micro_batch": 4})
    events = list(train(trial))
    assert {event.metrics["executed_batch_size"] for event in events} == {4.0}
    assert [event.units for event in events] == [event.units for event in whole]
    losses = [
        [e.metrics["eval_loss"] for e in told if e.kind == "rung"] for told in (events, whole)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_what_did_not_fit_is_undone_before_it_is_tried_again() -> None:
    told: list[str] = []

    def attempt(rows: int) -> None:
        told.append(f"try {rows}")
        _at_most(1, [])(rows)

    BatchShrinker(4).fit(attempt, undo=lambda: told.append("undo"))
    assert told == ["try 4", "undo", "try 2", "undo", "try 1"]


@pytest.mark.parametrize(("rows", "may_shrink"), [(1, True), (8, False)])
def test_where_there_can_not_be_fewer_rows_the_error_stays(rows: int, may_shrink: bool) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        BatchShrinker(rows, may_shrink=may_shrink).fit(_at_most(0, []))


def test_a_real_failed_allocation_shrinks_too() -> None:
    def attempt(rows: int) -> int:
        return torch.empty(1 << (45 + rows), dtype=torch.uint8).ndim if rows > 1 else 0

    assert BatchShrinker(4).fit(attempt) == 0


def test_where_all_fits_at_once_a_step_is_one_batch(tiny_llama: Path, tmp_path: Path) -> None:
    spec = make_spec(tiny_llama, budget=LONG, dropout=0.2, **SIX)
    events = run(spec, tmp_path / "auto")
    assert _told(events) == [(6, 1)] * 4
    explicit = make_spec(tiny_llama, budget=LONG, dropout=0.2, batch_size=6)
    assert_same_curve(events, run(explicit, tmp_path / "explicit"))


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_what_does_not_fit_leaves_no_trace_in_the_curve(
    quantization: str, tiny_llama: Path, tmp_path: Path
) -> None:
    spec = make_spec(tiny_llama, quantization=quantization, budget=LONG, dropout=0.2, **SIX)
    with _memory_for(rows=3):
        shrunk = run(spec, tmp_path / "auto")
    explicit: dict[str, Any] = {"batch_size": 3, "gradient_accumulation": 2}
    expected = make_spec(
        tiny_llama, quantization=quantization, budget=LONG, dropout=0.2, **explicit
    )
    assert _told(shrunk) == [(3, 2)] * 4
    assert_same_curve(shrunk, run(expected, tmp_path / "explicit"))


@pytest.mark.slow
def test_the_curve_is_that_of_every_other_micro_batch_within_rounding(
    tiny_llama: Path, tmp_path: Path
) -> None:
    spec = make_spec(tiny_llama, budget=LONG, **SIX)
    expected = run(spec, tmp_path / "6")
    for rows, executed in ((5, (3, 2)), (2, (2, 3)), (1, (1, 6))):
        with _memory_for(rows=rows):
            events = run(spec, tmp_path / str(rows))
        assert set(_told(events)) == {executed}
        for event, other in zip(events, expected, strict=True):
            for name in {"train_loss", "eval_loss", "tokens_seen"} & set(other.metrics):
                assert event.metrics[name] == pytest.approx(other.metrics[name], rel=1e-5), name


@pytest.mark.slow
def test_a_step_in_the_middle_that_does_not_fit_is_done_again(
    tiny_llama: Path, tmp_path: Path
) -> None:
    """As on a GPU, where nothing is measured first: the second step is the first to fail."""
    spec = make_spec(tiny_llama, budget=LONG, **SIX)
    expected = run(spec, tmp_path / "all")
    trial = make_trial(spec, tmp_path / "short")
    running = train(trial)
    events = [next(running)]
    with _memory_for(rows=2):
        events += list(running)
    assert _told(events) == [(6, 1), (2, 3), (2, 3), (2, 3)]
    for event, other in zip(events, expected, strict=True):
        assert event.metrics["train_loss"] == pytest.approx(other.metrics["train_loss"], rel=1e-5)
        assert event.metrics["tokens_seen"] == other.metrics["tokens_seen"]


@pytest.mark.slow
def test_a_resumed_trial_goes_on_with_what_fitted(tiny_llama: Path, tmp_path: Path) -> None:
    spec = make_spec(tiny_llama, budget=LONG, dropout=0.2, **SIX)
    with _memory_for(rows=3):
        whole = run(spec, tmp_path / "whole")
        running = train(make_trial(spec, tmp_path / "first"))
        next(running)
        running.close()
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    trial = make_trial(spec, tmp_path / "second")
    assert_same_curve(resumed_history(trial.folder) + list(train(trial)), whole)


def test_what_was_asked_for_and_what_was_done_is_in_the_summary(
    tiny_llama: Path, tmp_path: Path
) -> None:
    with _memory_for(rows=2):
        run(make_spec(tiny_llama, budget=LONG, **SIX), tmp_path)
    (folder,) = tmp_path.iterdir()
    trial = make_trial(make_spec(tiny_llama, budget=LONG, **SIX), tmp_path)
    assert trial.folder.path == folder
    summary = trial.folder.summary()
    assert summary is not None
    facts = {name: summary["facts"][name] for name in _FACTS}
    assert facts == dict(zip(_FACTS, ("auto", "auto", 6, 2, 3), strict=True))
    assert (summary["metrics"][TOLD[0]], summary["metrics"][TOLD[1]]) == (2.0, 3.0)


@pytest.mark.slow
@pytest.mark.parametrize(("knobs", "rows"), [({"batch_size": 4}, 3), (SIX, 0)])
def test_an_explicit_batch_size_never_shrinks_and_no_size_below_one_row(
    knobs: dict[str, Any], rows: int, tiny_llama: Path, tmp_path: Path
) -> None:
    spec = make_spec(tiny_llama, **knobs)
    with _memory_for(rows=rows), pytest.raises(torch.OutOfMemoryError):
        run(spec, tmp_path)
    model = make_trial(spec, tmp_path).base.model
    assert not any("lora" in name for name, _ in model.named_modules())


@pytest.mark.slow
@pytest.mark.parametrize("knobs", [{"batch_size": 4}, SIX])
def test_a_host_calls_what_does_not_fit_infeasible(
    knobs: dict[str, Any], tiny_llama: Path, tmp_path: Path
) -> None:
    trial = make_trial(make_spec(tiny_llama, **knobs), tmp_path)
    host = HostProcess({})
    assert host.start(str(trial.folder.path)) == []
    with _memory_for(rows=0):
        failure: Any = host.next()
    assert failure.infeasible and "OutOfMemoryError" in failure.reason


def test_an_evaluation_takes_fewer_rows_where_it_must(tiny_llama: Path, tmp_path: Path) -> None:
    spec = make_spec(tiny_llama, quantization="nf4", method="untrained")
    expected = run(spec, tmp_path / "all")[-1]
    with _memory_for(rows=3, evaluating=True):
        found = run(spec, tmp_path / "fewer")[-1]
    folders = [make_trial(spec, tmp_path / name).folder for name in ("all", "fewer")]
    answers = [folder.predictions_file().read_text() for folder in folders]
    assert answers[0] == answers[1]
    assert [_eval_batches(folder) for folder in folders] == [[4, 4], [2, 2]]
    assert found.metrics["eval_loss"] == pytest.approx(expected.metrics["eval_loss"], rel=1e-6)


def test_an_evaluation_begins_with_the_rows_that_are_foretold_to_fit(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def noting(*arguments: Any, **options: Any) -> Evaluation:
        given.append(options)
        return evaluate(*arguments, **options)

    monkeypatch.setattr("trainables.training.loop.evaluate", noting)
    trial = make_trial(make_spec(tiny_llama), tmp_path)
    trial.folder.write_estimate({"eval_batch": 3})
    list(train(trial))
    assert {options["execution"].eval_batch_size for options in given} == {3}
    assert {options["may_shrink"] for options in given} == {True}  # a worker alone
    summary = trial.folder.summary()
    assert summary is not None and summary["facts"]["executed_eval_batch"] == 3


def test_what_may_not_shrink_is_not_judged_anew_with_fewer_rows(
    tiny_llama: Path, tmp_path: Path
) -> None:
    trial = make_trial(make_spec(tiny_llama), tmp_path)
    heard: list[None] = []
    with _memory_for(rows=1, evaluating=True), pytest.raises(torch.OutOfMemoryError):
        evaluate(
            trial.base.model,
            trial.base,
            task=trial.data.task,
            encoded=trial.data.split("selection"),
            execution=trial.spec.execution,
            peak=PeakMemory(trial.base.model, trial.base.device),
            after_batch=lambda: heard.append(None),
            may_shrink=False,
        )
    assert heard == []


def _eval_batches(folder: TrialFolder) -> list[int]:
    """How many questions at once are noted, for the selection and for the report split."""
    noted = (folder.summary() or {}, folder.report_score() or {})
    return [each["facts"]["executed_eval_batch"] for each in noted]


_FACTS = (
    "requested_micro_batch",
    "requested_gradient_accumulation",
    "examples_per_step",
    "executed_micro_batch",
    "executed_gradient_accumulation",
)


def _at_most(rows: int, tried: list[int]) -> Any:
    def attempt(given: int) -> int:
        tried.append(given)
        if given > rows:
            raise torch.OutOfMemoryError("a test's")
        return given

    return attempt


@contextmanager
def _memory_for(*, rows: int, evaluating: bool = False) -> Iterator[None]:
    """Inside, a batch of more rows fails in training (or evaluation) once its logits are there."""
    patch = pytest.MonkeyPatch()
    logits = loss._logits

    def limited(model: Any, batch: Any, *given: Any) -> torch.Tensor:
        found = logits(model, batch, *given)
        if batch.input_ids.shape[0] > rows and torch.is_grad_enabled() != evaluating:
            raise torch.OutOfMemoryError("a test's device is full")
        return found

    patch.setattr(loss, "_logits", limited)
    try:
        yield
    finally:
        patch.undo()


def _told(events: list[Event]) -> list[tuple[float, ...]]:
    return [tuple(e.metrics[name] for name in TOLD) for e in events if e.kind != "finished"]
