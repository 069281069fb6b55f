"""Hypothesis strategies for search spaces as YAML values, with choices only or also with ranges."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

_CHOICES: dict[str, list[Any]] = {
    "quantization": ["none", "int8", "nf4", "fp4"],
    "double_quantization": [False, True],
    "rank": [4, 8, 16],
    "alpha": [8, 16.5, 32],
    "batch_size": [1, 2, "auto"],
    "effective_batch_size": [8, 16],
    "optimizer": ["adamw", "sgd"],
    "target_modules": ["all-linear", {"value": ["q_proj", "v_proj"]}],
}
_RANGES: dict[str, Any] = {
    "learning_rate": {"log_uniform": [1e-5, 1e-2]},
    "dropout": {"uniform": [0.0, 0.3]},
}
_STEPS: dict[str, Any] = {
    "gradient_accumulation": {"integers": [1, 9, 3]},
    "warmup": {"uniform": [0.0, 0.17, 0.05]},
}


def _some(values: list[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(st.sampled_from(values), min_size=1, unique_by=repr)
    return st.one_of(st.sampled_from(values), several)


def _knobs(names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={name: _some(_CHOICES[name]) for name in names})


_BRANCHED: dict[str, st.SearchStrategy[Any]] = {
    "model": st.one_of(
        _some(["small", "large"]),
        st.tuples(st.just("small"), _knobs(["batch_size", "quantization"])).map(
            lambda pair: [pair[0], {"large": pair[1]}]
        ),
    )
}
_OPTIONAL: dict[str, st.SearchStrategy[Any]] = {
    **{name: _some(values) for name, values in _CHOICES.items()},
    **{name: st.just(steps) for name, steps in _STEPS.items()},
    "quantization": st.one_of(
        _some(_CHOICES["quantization"]),
        _knobs(["double_quantization", "rank"]).map(lambda inner: ["none", {"nf4": inner}]),
    ),
    "method": st.one_of(
        st.just("lora"),
        _knobs(["rank", "alpha", "quantization"]).map(lambda inner: {"lora": inner}),
    ),
}

finite = st.fixed_dictionaries(_BRANCHED, optional=_OPTIONAL)
varied = st.fixed_dictionaries(
    _BRANCHED, optional={**_OPTIONAL, **{name: st.just(range_) for name, range_ in _RANGES.items()}}
)
rules = st.lists(
    st.fixed_dictionaries(
        {"quantization": _some(["none", "nf4"])},
        optional={
            "model": _some(["small", "large"]),
            "rank": _some([4, 8]),
            "optimizer": st.just("sgd"),
            "gradient_accumulation": _some([1, 7]),
            "warmup": _some([0.0, 0.15]),
        },
    ),
    max_size=3,
)
overlapping_rules = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "model": _some(["small", "large"]),
            "method": st.just("lora"),
            "quantization": _some(["none", "nf4"]),
            "double_quantization": st.just(True),
            "rank": _some([4, 8, 16, 64]),
            "alpha": _some([8.0, 16.5]),
            "batch_size": _some([1, 2, "auto"]),
            "effective_batch_size": _some([8, 16]),
            "optimizer": _some(["adamw", "sgd"]),
            "gradient_accumulation": _some([1, 4, 7]),
            "warmup": _some([0.0, 0.15]),
            "learning_rate": st.just(1e-4),
        },
    ).filter(bool),
    max_size=6,
)
