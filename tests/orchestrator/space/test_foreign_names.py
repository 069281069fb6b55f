"""Names of other programs are answered with ours, near names with the near one, others with all."""

from __future__ import annotations

import re
from typing import Any

import pytest

from orchestrator.config.reader import from_mapping
from orchestrator.space.foreign_names import FOREIGN_NAMES, meant
from trainables.errors import InputError
from trainables.spec.knobs import KNOBS

SWEEP: dict[str, Any] = {
    "task": "finqa",
    "space": {"model": "m"},
    "budget": {"train_examples": 64, "eval_examples": 8},
    "search": {"trials": 4},
}
SECTIONS = {"space", "data", "budget", "search", "execution", "resources", "limits"}


def _fault(**sections: object) -> str:
    with pytest.raises(InputError) as raised:
        from_mapping({**SWEEP, **sections})
    (fault,) = raised.value.messages
    return fault


@pytest.mark.parametrize("name", FOREIGN_NAMES)
def test_a_row_is_no_name_of_ours_and_names_what_there_is(name: str) -> None:
    assert name not in KNOBS
    for section, key in re.findall(r"\b([a-z]+)\.([a-z_]+)\b", FOREIGN_NAMES[name]):
        assert section in SECTIONS | {"docs", "full"}
        assert section != "space" or key in KNOBS
        if section not in ("space", "data", "docs", "full"):
            fault = _fault(**{section: {**dict(SWEEP.get(section, {})), key: object()}})
            assert fault.startswith(f"{section}.{key}: got ")


@pytest.mark.parametrize("name", FOREIGN_NAMES)
def test_it_is_answered_wherever_it_stands(name: str) -> None:
    told = f"unknown key. Here that is {FOREIGN_NAMES[name]}."
    assert _fault(space={"model": "m", name: 1}) == f"space.{name}: {told}"
    assert _fault(space={"model": "m", "method": {"lora": {name: 1}}}).endswith(told)
    assert _fault(exclude=[{name: 1}]) == f"exclude[0].{name}: {told}"
    assert _fault(search={"trials": 4, "start_with": [{name: 1}]}).endswith(told)
    assert _fault(scheduler={"asha": {name: 1}}) == f"scheduler.asha.{name}: {told}"
    assert _fault(**{name: 1}) == f"{name}: {told}"


def test_a_knob_outside_of_the_space_is_sent_there() -> None:
    told = "It is a knob of the trials: write it in space, as space.batch_size."
    assert _fault(batch_size=4) == f"batch_size: unknown key. {told}"
    assert _fault(execution={"batch_size": 4}) == f"execution.batch_size: unknown key. {told}"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Lora-R", " Here that is space.rank."),
        ("LR", " Here that is space.learning_rate."),
        ("rnak", " Did you mean 'rank'?"),
        ("Rank", " Did you mean 'rank'?"),
        ("batch", " Did you mean 'batch_size'?"),
        ("seedlings_of_deep", " Allowed: batch_size, rank, seed."),
        ("deep-seed", " Did you mean 'seed'?"),
        ("deeqspeed", " Allowed: batch_size, rank, seed."),
    ],
)
def test_only_a_near_name_is_suggested(name: str, hint: str) -> None:
    assert meant(name, {"rank", "seed", "batch_size"}) == hint
