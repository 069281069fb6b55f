"""Promise: the quickstart ends as if undisturbed after its driver was killed three times.

The same command runs again each time, at once, and gets SIGKILL at another moment: while the first
trials train, when some have ended, when most have.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from tests.chaos.disturbed import (
    Condition,
    Finished,
    Place,
    Seen,
    again_if_busy,
    check_lost_work,
    check_resumed,
    check_whole,
    driver,
    left_alone,
    look,
    nothing_left,
    reached,
    trained_seconds,
)
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow

TRIALS, BASELINES = 6, 2
CHECKPOINT_SECONDS = 0.5
LONGEST_SECONDS = 600.0
SMALLER = {  # the same space and search, on less data
    "space.model": "[base_models/small]",
    "space.quantization": "[none, nf4]",
    "data.generated.train": "1600",
    "data.generated.selection": "40",
    "data.generated.report": "40",
    "budget.train_examples": "1600",
    "budget.eval_examples": "20",
    "execution.checkpoint_minutes": str(CHECKPOINT_SECONDS / 60),
}


@dataclass
class Story:
    """What was there after each kill, and how the last driver, which was left alone, ended."""

    place: Place
    seen: list[Seen] = field(default_factory=list)
    last: Finished | None = None


def trained(place: Place) -> int:
    return sum(item["role"] == "trial" for item in place.summaries().values())


def trains(place: Place, since: float) -> bool:
    """A trial of the driver's own has trained for longer than is between two checkpoints."""
    return any(trained_seconds(folder) > CHECKPOINT_SECONDS for folder in place.telling(since))


MOMENTS: dict[str, Condition] = {
    "the first trials train": trains,
    "one has ended and another trains": (
        lambda place, since: trained(place) >= 1 and trains(place, since)
    ),
    "most have ended": lambda place, since: trained(place) >= TRIALS - 2 and trains(place, since),
}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    options = ["--trials", str(TRIALS)]
    for name, value in SMALLER.items():
        options += ["--set", f"{name}={value}"]
    space = REPOSITORY / "search_spaces" / "quickstart.yaml"
    told = Story(Place(space, tmp_path_factory.mktemp("story"), options, predicts=True))
    with nothing_left(told.place):
        for name, condition in MOMENTS.items():
            told.seen.append(_killed(told.place, condition))
            print(f"killed when {name}: {told.seen[-1]}", flush=True)
        told.last = left_alone(told.place, seconds=LONGEST_SECONDS)
    return told


@again_if_busy
def _killed(place: Place, condition: Condition) -> Seen:
    with driver(place) as process:
        assert reached(place, process, condition, seconds=LONGEST_SECONDS)
        process.kill()
        process.wait()
        return look(place)


def test_it_was_killed_with_work_going_on(story: Story) -> None:
    assert len(story.seen) == 3
    assert all(seen.saved_steps for seen in story.seen)
    ended = [len(seen.ended) for seen in story.seen]
    assert ended == sorted(ended)


def test_it_ends_with_as_many_trials_each_once_in_mlflow_and_no_step_missing_or_doubled(
    story: Story,
) -> None:
    check_whole(story.place, trials=TRIALS, baselines=BASELINES)


def test_no_trial_that_had_ended_is_trained_again_and_none_repeats_what_it_had_saved(
    story: Story,
) -> None:
    for seen in story.seen:
        check_resumed(story.place, seen)


def test_at_most_the_time_between_two_checkpoints_is_lost(story: Story) -> None:
    for seen in story.seen:
        check_lost_work(seen, checkpoint_seconds=CHECKPOINT_SECONDS)


def test_the_last_one_says_what_was_done_before_it(story: Story) -> None:
    assert story.last is not None
    assert f"of {TRIALS} trials are done" in story.last.stdout
    attempts = [item.get("attempts", 1) for item in story.place.summaries().values()]
    assert max(attempts) > 1
