"""The strategies of --grid: YAML as `decoding` has it in a search space, every combination."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from orchestrator.config.yaml_loader import parse_yaml, read_yaml
from orchestrator.space.enumeration import grid
from orchestrator.space.grammar import parse_space
from trainables.errors import InputError
from trainables.spec.knobs import KNOBS, canonical
from trainables.spec.rows.decoding_knobs import DECODING_ROWS
from trainables.spec.trial_spec import TrialSpec

USUAL = "[greedy, {sample: {temperature: [0.7, 1.0], votes: [1, 5]}}, {beam: {beams: [2, 4]}}]"
_OPTION = "--grid"
_MOST = 1000  # strategies


def strategies(text: str) -> list[dict[str, Any]]:
    """The strategies of a YAML text, or of the file of that name, as values of DECODING_ROWS.

    A list is a choice and a one-key mapping in it a branch, as in a space. Raises InputError with
    all that is wrong with them.
    """
    file = Path(text)
    is_file = text.endswith((".yaml", ".yml"))
    value = read_yaml(file) if is_file else parse_yaml(text, _OPTION)
    try:
        space = parse_space({"model": "any", "decoding": value}, where=_OPTION)
        given = list(islice(grid(space), _MOST + 1))
    except InputError as error:
        raise InputError([_named(fault) for fault in error.messages]) from error
    others = sorted({name for each in given for name in each} - {"model", *DECODING_ROWS})
    if others:
        raise InputError(
            f"{_OPTION}: {', '.join(others)}: no knob of a strategy; these are "
            f"{', '.join(DECODING_ROWS)}."
        )
    if len(given) > _MOST:
        raise InputError(f"{_OPTION}: more than {_MOST} strategies. Choose fewer.")
    found = [canonical(configuration) for configuration in given]
    chosen = [{name: knobs[name] for name in DECODING_ROWS if name in knobs} for knobs in found]
    return [each for at, each in enumerate(chosen) if each not in chosen[:at]]


def decoded(spec: TrialSpec, strategy: Mapping[str, Any]) -> TrialSpec:
    """The trial with this strategy in the place of its own; InputError if it decodes nothing."""
    if not KNOBS["decoding"].read_by({**spec.knobs, "decoding": "greedy"}):
        how = "is a baseline, which answers greedily"
        if not spec.method.is_baseline:
            how = f"answers by {spec.knobs['answer']}"
        raise InputError(f"trial {spec.trial_id}: it {how}, so there is nothing to decode.")
    others = {name: value for name, value in spec.knobs.items() if name not in DECODING_ROWS}
    return replace(spec, knobs=canonical({**others, **strategy}))


def name_of(strategy: Mapping[str, Any]) -> str:
    """In words: 'greedy', 'sample temperature 0.7, 5 votes'; defaults are left out."""
    name = str(strategy.get("decoding", DECODING_ROWS["decoding"].default))
    told = [
        f"{knob.replace('_', ' ')} {value:g}"
        for knob, value in strategy.items()
        if knob != "decoding" and (value != DECODING_ROWS[knob].default or knob in _ALWAYS)
    ]
    return " ".join([name, ", ".join(told)]).rstrip()


_ALWAYS = ("temperature", "beams")


def _named(fault: str) -> str:
    """The fault with its place below the option and not below a space's knob."""
    return fault.replace(f"{_OPTION}.decoding", _OPTION).replace("space.decoding", _OPTION)
