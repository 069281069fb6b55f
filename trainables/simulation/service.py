"""Answers requests for estimates and for preflights line by line, for a driver without torch."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from trainables.data.token_lengths import TokenLengths
from trainables.models.base import warm_imports
from trainables.preflight.check import preflight
from trainables.resources.estimate import Estimate, TrialEstimate, Workload
from trainables.simulation.estimate import predict, predict_trial
from trainables.spec.trial_spec import TrialSpec

NICENESS = 15  # Ray's for the workers that train; a process above them would take a core from them


def main(arguments: list[str] | None = None) -> None:
    """Answers requests from standard input until it ends, one JSON object per line.

    A request is {"id", "config", "knobs", "workload", "device"}, or {"id", "config", "trial",
    "device"} with a trial's spec and the options of `predict_trial`. An answer is {"id",
    "prediction"} or {"id", "error"}. To {"id", "preflight": [specs of trials]} it is {"id",
    "findings"}, after a line {"id", "say"} for each step of it.
    """
    parser = argparse.ArgumentParser(
        prog="python -m trainables.simulation.service", description=__doc__
    )
    parser.add_argument("--cache", type=Path, help="folder of predictions to read and write")
    cache = parser.parse_args(arguments).cache
    warm_imports()
    os.nice(NICENESS)
    write = functools.partial(print, file=sys.stdout, flush=True)  # of now: it is redirected below
    for answer in answers(sys.stdin, cache=cache, say=write):
        write(answer)


def answers(
    lines: Iterable[str], *, cache: Path | None, say: Callable[[str], None] = lambda line: None
) -> Iterator[str]:
    """One answer per request that is not blank, in order; standard output gets nothing else.

    `say` gets the lines before an answer.
    """
    lengths = TokenLengths(cache)
    for line in lines:
        if line.strip():
            with contextlib.redirect_stdout(sys.stderr):
                answer = _answer(line, cache, lengths, say)
            yield json.dumps(answer)


def _answer(
    line: str, cache: Path | None, lengths: TokenLengths, say: Callable[[str], None]
) -> dict[str, Any]:
    name = None
    try:
        request = json.loads(line)
        name = request.pop("id", None)
        if "preflight" in request:
            step = functools.partial(_step, say, name)
            specs = [TrialSpec.from_json(spec) for spec in request["preflight"]]
            return {"id": name, "findings": preflight(specs, lengths=lengths, say=step).to_json()}
        found = _predicted(request, cache, lengths)
    except Exception as error:  # noqa: BLE001  # a boundary: later requests are still answered
        return {"id": name, "error": f"{type(error).__name__}: {error}"}
    return {"id": name, "prediction": found.to_json()}


def _step(say: Callable[[str], None], request: Any, text: str) -> None:
    say(json.dumps({"id": request, "say": text}))


def _predicted(
    request: dict[str, Any], cache: Path | None, lengths: TokenLengths
) -> Estimate | TrialEstimate:
    if "trial" in request:
        spec = TrialSpec.from_json(request.pop("trial"))
        return predict_trial(spec, lengths=lengths, cache=cache, **request)
    workload = Workload(**request["workload"])
    device = request.get("device", "cpu")
    return predict(request["config"], request["knobs"], workload, device=device, cache=cache)


if __name__ == "__main__":
    main()
