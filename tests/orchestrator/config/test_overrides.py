"""`--set a.b=c` reaches every value of a sweep's file, also inside branches."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.config.overrides import apply_overrides
from trainables.errors import InputError

FILE: dict[str, Any] = {
    "task": "finqa",
    "space": {
        "model": ["a/b-1.5", "c"],
        "method": [{"lora": {"rank": [4], "dropout": 0.1}}, "full"],
        "optimizer": "adamw",
        "alpha": {"8": {"rank": 4}},
    },
    "exclude": [{"method": "full"}],
    "resources": None,
}


def _applied(*texts: str) -> Any:
    return apply_overrides(FILE, texts)[0]


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("task=other", ("task",), "other"),
        (
            "space.method.lora.rank=[4, 8]",
            ("space", "method"),
            [{"lora": {"rank": [4, 8], "dropout": 0.1}}, "full"],
        ),
        ("space.method.lora={rank: 2}", ("space", "method"), [{"lora": {"rank": 2}}, "full"]),
        ("space.method.full.rank=2", ("space", "method", 1), {"full": {"rank": 2}}),
        ("space.model.a/b-1.5.rank=2", ("space", "model", 0), {"a/b-1.5": {"rank": 2}}),
        ("space.optimizer.adamw.warmup=0", ("space", "optimizer"), {"adamw": {"warmup": 0}}),
        ("space.alpha.8.rank=2", ("space", "alpha"), {"8": {"rank": 2}}),
        ("space.warmup={uniform: [0, 1e-1]}", ("space", "warmup"), {"uniform": [0, 0.1]}),
        ("resources.cpus_per_trial=2", ("resources",), {"cpus_per_trial": 2}),
        ("data.generated.train=3", ("data",), {"generated": {"train": 3}}),
        ("data.train=a=b", ("data",), {"train": "a=b"}),
        ("resources=", ("resources",), None),
    ],
)
def test_an_override_reaches_its_place(text: str, path: tuple[Any, ...], expected: Any) -> None:
    found = _applied(text)
    for key in path:
        found = found[key]
    assert found == expected


def test_what_was_read_from_the_file_is_left_as_it_is() -> None:
    before = repr(FILE)
    _applied("space.method.lora.rank=9", "space.method.full.rank=2", "resources.x=1")
    assert repr(FILE) == before


def test_a_later_override_goes_over_an_earlier_one() -> None:
    assert _applied("task=a", "task=b")["task"] == "b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task", "--set task: needs PATH=VALUE, as --set"),
        ("=3", "--set =3: needs PATH=VALUE"),
        ("space..rank=3", "needs PATH=VALUE"),
        ("task=[a", "--set task=[a: the value: line 1, column 3: "),
        ("task.name=a", "--set task.name=a: task is 'finqa'; a path can't lead into that."),
        ("space.method.fulll.rank=1", "space.method has no option 'fulll'. Did you mean 'full'?"),
        ("space.optimizer.sgd.warmup=1", "space.optimizer is 'adamw'; a path can't lead into"),
        ("exclude.method=lora", "exclude is [{'method': 'full'}]; a path can't lead into that."),
    ],
)
def test_an_override_that_leads_nowhere_is_named(text: str, message: str) -> None:
    with pytest.raises(InputError) as raised:
        _applied(text)
    (fault,) = raised.value.messages
    assert message in fault


def test_all_overrides_that_lead_nowhere_are_named_at_once() -> None:
    with pytest.raises(InputError) as raised:
        _applied("task", "task=ok", "task.x=1")
    assert len(raised.value.messages) == 2
