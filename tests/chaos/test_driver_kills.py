"""Promise: a driver that is killed at any moment loses at most the last minutes of work.

Each round starts a driver of the same sweep immediately after the last one and kills it with
SIGKILL: after its own trials have started, at a condition on disk or a random time. If a sweep ends
first, the round uses a new one. At last each sweep runs to its end, and must be as complete as an
undisturbed one.

    CHAOS_ROUNDS=20 CHAOS_SEED=1 python -m pytest tests/chaos/test_driver_kills.py -s
"""

from __future__ import annotations

import os
import random
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.disturbed import (
    DONE,
    Condition,
    Place,
    Seen,
    again_if_busy,
    check_equal_results,
    check_lost_work,
    check_resumed,
    check_whole,
    driver,
    left_alone,
    look,
    nothing_left,
    reached,
    read,
    trained_seconds,
    written,
)
from tests.orchestrator import tiny_sweep
from tests.tiny_models import make_llama

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "2"))
SEED = int(os.environ.get("CHAOS_SEED", str(random.SystemRandom().randrange(10**6))))
TRIALS, BASELINES = 6, 2
KILLS = 5  # of one sweep
CHECKPOINT_SECONDS = 0.3
LONG = 20  # times the seconds between two checkpoints
LONGEST_SECONDS = 600.0


def in_a_rung(place: Place, since: float) -> bool:
    """Its predictions are there, its checkpoint is not yet."""
    return any(
        written(folder / "predictions.jsonl")
        > max([since, *map(written, folder.glob("checkpoints/step-*/state.json"))])
        for folder in place.begun(since)
        if not is_done(folder)
    )


def in_a_checkpoint(place: Place, since: float) -> bool:
    return any(any(folder.glob("checkpoints/.step-*.part")) for folder in place.begun(since))


def in_an_mlflow_write(place: Place, since: float) -> bool:
    return written(place.database.with_name("mlflow.db-journal")) > since


def between_suggestion_and_start(place: Place, since: float) -> bool:
    suggested = [folder for folder in place.trials if written(folder / "spec.json") > since]
    return any(not (folder / "owner.json").exists() for folder in suggested)


def at_a_random_time(place: Place, since: float) -> bool:
    return True


def scoring_the_report_split(place: Place, since: float) -> bool:
    ended = sum(is_done(folder) for folder in place.trials)
    return ended == TRIALS + BASELINES and not in_the_final_report(place, since)


def in_the_final_report(place: Place, since: float) -> bool:
    return "trials_done" in place.state


WHILE_IT_TRAINS: dict[str, Condition] = {
    "in a rung": in_a_rung,
    "in a checkpoint": in_a_checkpoint,
    "in an MLflow write": in_an_mlflow_write,
    "between a suggestion and its start": between_suggestion_and_start,
    "at a random time": at_a_random_time,
}
AT_THE_END: dict[str, Condition] = {
    "scoring the report split": scoring_the_report_split,
    "in the final report": in_the_final_report,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    print(f"\nCHAOS_SEED={SEED} CHAOS_ROUNDS={ROUNDS}", flush=True)
    return make_llama(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def undisturbed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("chaos")
    space = tiny_sweep.write_space(folder / "tiny.yaml", tiny_space(model, train_examples=1600))
    place = Place(space, folder / "undisturbed")
    with nothing_left(place):
        left_alone(place, seconds=LONGEST_SECONDS)
    check_whole(place, trials=TRIALS, baselines=BASELINES)
    return place


def tiny_space(model: Path, *, train_examples: int) -> dict[str, Any]:
    """Trials that last for more than ten times the seconds between two checkpoints."""
    value = tiny_sweep.mapping(
        str(model),
        budget={"train_examples": train_examples, "eval_examples": 8, "seed": 3},
        search={"algorithm": "random", "trials": TRIALS, "seed": 5},
        execution={
            "max_new_tokens": 4,
            "eval_batch_size": 4,
            "checkpoint_minutes": CHECKPOINT_SECONDS / 60,
        },
    )
    value["space"]["rank"] = [2, 3, 4, 6]
    return value


def test_a_kill_loses_no_more_training_than_is_done_between_two_checkpoints(
    model: Path, tmp_path: Path
) -> None:
    """Of a trial that no rung saves before it has trained for many times as long."""
    value = {**tiny_space(model, train_examples=10**6), "scheduler": "none"}
    place = Place(tiny_sweep.write_space(tmp_path / "long.yaml", value), tmp_path)
    with nothing_left(place), driver(place) as process:
        assert reached(place, process, has_trained_long, seconds=LONGEST_SECONDS)
        process.kill()
        process.wait()
        seen = look(place)
    print(f"killed after {LONG} times the seconds between two checkpoints: {seen}", flush=True)
    assert seen.lost_seconds
    check_lost_work(seen, checkpoint_seconds=CHECKPOINT_SECONDS)


def has_trained_long(place: Place, since: float) -> bool:
    seconds = map(trained_seconds, place.telling(since))
    return max(seconds, default=0.0) > LONG * CHECKPOINT_SECONDS


@pytest.mark.parametrize("first_round", range(0, ROUNDS, KILLS))
def test_a_killed_driver_loses_nothing(
    first_round: int, undisturbed: Place, tmp_path: Path
) -> None:
    chance = random.Random(f"{SEED}/{first_round}")
    rounds = moments(chance)[-(ROUNDS - first_round) :]
    places, earlier = [Place(undisturbed.space, tmp_path / "0")], list[tuple[Place, Seen]]()
    with ExitStack() as ends:
        ends.enter_context(nothing_left(places[-1]))
        for number, name in enumerate(rounds, first_round):
            seen = killed(places[-1], name, chance)
            if seen is None:  # this sweep has ended before
                places.append(Place(undisturbed.space, tmp_path / str(len(places))))
                ends.enter_context(nothing_left(places[-1]))
                seen = killed(places[-1], name, chance)
            print(f"round {number}: killed {name}: {seen or 'never'}", flush=True)
            if seen is not None:
                earlier.append((places[-1], seen))
        for place in places:
            left_alone(place, seconds=LONGEST_SECONDS)
    assert len(earlier) >= len(rounds) - 1, "moments that never came"
    for place, seen in earlier:
        check_resumed(place, seen)
        check_lost_work(seen, checkpoint_seconds=CHECKPOINT_SECONDS)
    for place in places:
        check_whole(place, trials=TRIALS, baselines=BASELINES)
        equal = check_equal_results(place, undisturbed)
        print(f"whole: {equal} results equal to the undisturbed sweep's", flush=True)


def moments(chance: random.Random) -> list[str]:
    """Some while trials run, in any order, and one at the end."""
    return [*chance.sample([*WHILE_IT_TRAINS], KILLS - 1), chance.choice([*AT_THE_END])]


@again_if_busy
def killed(place: Place, name: str, chance: random.Random) -> Seen | None:
    """Kills a driver at the moment; None where its sweep has ended before that came."""
    condition = {**WHILE_IT_TRAINS, **AT_THE_END}[name]
    later = chance.uniform(0, 15) if name == "at a random time" else chance.choice((0.0, 0.02))
    times = chance.randrange(1, 10) if name == "in an MLflow write" else 1
    with driver(place) as process:
        for number in range(times):
            if number and not reached(place, process, unless(condition), seconds=LONGEST_SECONDS):
                return None
            if not reached(place, process, condition, seconds=LONGEST_SECONDS):
                return None
        time.sleep(later)
        if process.poll() is not None:
            return None
        process.kill()
        process.wait()
        return look(place)


def unless(condition: Condition) -> Condition:
    return lambda place, since: not condition(place, since)


def is_done(folder: Path) -> bool:
    return read(folder / "summary.json").get("state") in DONE
