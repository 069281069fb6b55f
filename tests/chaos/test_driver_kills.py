"""Promise: a driver that is killed at any moment loses nothing but the last minutes of work.

Each round starts a driver of the same sweep at once after the one before, beside what is left of
that one, and kills it with SIGKILL when something is seen on disk or a random time is over. After
some rounds the sweep is let end, and has to be as if nothing had been done to it.

    CHAOS_ROUNDS=20 CHAOS_SEED=1 python -m pytest tests/chaos/test_driver_kills.py -s
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

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
    read,
    until,
)
from tests.orchestrator import tiny_sweep
from tests.tiny_models import make_llama

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "2"))
SEED = int(os.environ.get("CHAOS_SEED", str(random.SystemRandom().randrange(10**6))))
TRIALS, BASELINES = 6, 2
KILLS = 5  # of one sweep
CHECKPOINT_SECONDS = 0.5
LONGEST_SECONDS = 600.0


def in_a_rung(place: Place) -> bool:
    """Its predictions are there, its checkpoint is not yet."""
    for folder in unfinished(place):
        predictions = folder / "predictions.jsonl"
        if predictions.exists() and not any(
            saved.stat().st_mtime >= predictions.stat().st_mtime
            for saved in folder.glob("checkpoints/step-*/state.json")
        ):
            return True
    return False


def in_a_checkpoint(place: Place) -> bool:
    return any(place.run.glob("trials/*/checkpoints/.step-*.part"))


def in_an_mlflow_write(place: Place) -> bool:
    return bool(place.trials) and place.database.with_name("mlflow.db-journal").exists()


def between_suggestion_and_start(place: Place) -> bool:
    waiting = [folder for folder in place.trials if not (folder / "owner.json").exists()]
    return bool(waiting) and any(is_done(folder) for folder in place.trials)


def scoring_the_report_split(place: Place) -> bool:
    ended = sum(is_done(folder) for folder in place.trials)
    return ended == TRIALS + BASELINES and "trials_done" not in place.state


def in_the_final_report(place: Place) -> bool:
    return "trials_done" in place.state


WHILE_IT_TRAINS: dict[str, Condition] = {
    "in a rung": in_a_rung,
    "in a checkpoint": in_a_checkpoint,
    "in an MLflow write": in_an_mlflow_write,
    "between a suggestion and its start": between_suggestion_and_start,
    "at a random time": lambda place: True,
}
AT_THE_END: dict[str, Condition] = {
    "scoring the report split": scoring_the_report_split,
    "in the final report": in_the_final_report,
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Place:
    print(f"\nCHAOS_SEED={SEED} CHAOS_ROUNDS={ROUNDS}", flush=True)
    folder = tmp_path_factory.mktemp("chaos")
    value = tiny_sweep.mapping(
        str(make_llama(folder / "model")),
        budget={"train_examples": 480, "eval_examples": 8, "seed": 3},
        search={"algorithm": "random", "trials": TRIALS, "seed": 5},
        execution={
            "max_new_tokens": 4,
            "eval_batch_size": 4,
            "checkpoint_minutes": CHECKPOINT_SECONDS / 60,
        },
    )
    value["space"]["rank"] = [2, 3, 4, 6]
    place = Place(tiny_sweep.write_space(folder / "tiny.yaml", value), folder / "undisturbed")
    with nothing_left(place):
        left_alone(place, seconds=LONGEST_SECONDS)
    check_whole(place, trials=TRIALS, baselines=BASELINES)
    return place


@pytest.mark.parametrize("first_round", range(0, ROUNDS, KILLS))
def test_a_killed_driver_loses_nothing(
    first_round: int, undisturbed: Place, tmp_path: Path
) -> None:
    chance = random.Random(f"{SEED}/{first_round}")
    place, earlier = Place(undisturbed.space, tmp_path), list[Seen]()
    with nothing_left(place):
        for number, name in enumerate(moments(chance)[-(ROUNDS - first_round) :], first_round):
            seen = killed(place, name, chance)
            print(f"round {number}: killed {name}: {seen}", flush=True)
            earlier.append(seen)
        left_alone(place, seconds=LONGEST_SECONDS)
    for seen in earlier:
        check_resumed(place, seen)
        check_lost_work(place, seen, checkpoint_seconds=CHECKPOINT_SECONDS)
    check_whole(place, trials=TRIALS, baselines=BASELINES)
    equal = check_equal_results(place, undisturbed)
    print(f"whole: {equal} results equal to the undisturbed sweep's", flush=True)


def moments(chance: random.Random) -> list[str]:
    """Some while trials run, in any order, and one at the end."""
    return [*chance.sample([*WHILE_IT_TRAINS], KILLS - 1), chance.choice([*AT_THE_END])]


@again_if_busy
def killed(place: Place, name: str, chance: random.Random) -> Seen:
    """Kills a driver at the moment, or where that does not come, when its trials have ended."""
    condition = {**WHILE_IT_TRAINS, **AT_THE_END}[name]
    delay = chance.uniform(0, 40) if name == "at a random time" else chance.choice((0.0, 0.02))
    skip = chance.randrange(10) if name == "in an MLflow write" else 0
    with driver(place) as process:

        def reached(seen: Callable[[], bool]) -> None:
            until(process, lambda: seen() or in_the_final_report(place), seconds=LONGEST_SECONDS)

        until(process, (place.run / "driver.lock").exists, seconds=LONGEST_SECONDS)
        for _ in range(skip):
            reached(lambda: condition(place))
            reached(lambda: not condition(place))
        reached(lambda: condition(place))
        end = time.monotonic() + delay
        reached(lambda: time.monotonic() >= end)
        process.send_signal(signal.SIGKILL)
        process.wait()
        return look(place)


def is_done(folder: Path) -> bool:
    return read(folder / "summary.json").get("state") in DONE


def unfinished(place: Place) -> list[Path]:
    return [folder for folder in place.trials if not (folder / "summary.json").exists()]
