"""Lost hosts: a trial that makes progress between losses may lose any number of hosts."""

from __future__ import annotations

from orchestrator.execution.tune_trial import LOSSES_ALLOWED, RetryBudget


def test_one_that_is_lost_again_and_again_at_the_same_place_is_hopeless() -> None:
    losses = RetryBudget()
    for number in range(LOSSES_ALLOWED + 1):
        assert not losses.is_hopeless
        assert losses.may_go_on == (number < LOSSES_ALLOWED)
        losses.add(step=0)
    assert losses.is_hopeless
    assert losses.count == LOSSES_ALLOWED + 1


def test_one_that_gets_further_each_time_goes_on_for_ever() -> None:
    losses = RetryBudget()
    for step in range(10, 1000, 10):
        losses.reached(step)
        assert losses.count == 0
        losses.add(step=step)
        assert not losses.is_hopeless


def test_steps_that_are_done_once_more_are_no_progress() -> None:
    losses = RetryBudget()
    losses.reached(30)
    for last in (30, 10, 20):  # from its checkpoint, and not as far as before
        losses.reached(last)
        losses.add(step=last)
        losses.reached(5)
        losses.reached(30)
    assert losses.is_hopeless
