"""Answers requests for estimates line by line, for a driver that imports no torch."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from trainables.models.base import warm_imports
from trainables.resources.estimate import Estimate, TrialEstimate, Workload
from trainables.simulation.estimate import predict, predict_trial
from trainables.simulation.token_lengths import TokenLengths
from trainables.spec.trial_spec import TrialSpec

NICENESS = 15  # Ray's for the workers that train; a process above them would take a core from them


def main(arguments: list[str] | None = None) -> None:
    """Answers requests from standard input until it ends, one JSON object per line.

    A request is {"id", "config", "knobs", "workload", "device"}, or {"id", "config", "trial",
    "device"} with a trial's spec and the options of `predict_trial`. An answer is {"id",
    "prediction"} or {"id", "error"}.
    """
    parser = argparse.ArgumentParser(
        prog="python -m trainables.simulation.service", description=__doc__
    )
    parser.add_argument("--cache", type=Path, help="folder of predictions to read and write")
    cache = parser.parse_args(arguments).cache
    warm_imports()
    os.nice(NICENESS)
    for answer in answers(sys.stdin, cache=cache):
        print(answer, flush=True)


def answers(lines: Iterable[str], *, cache: Path | None) -> Iterator[str]:
    """One answer per request that is not blank, in order; standard output gets nothing else."""
    lengths = TokenLengths(cache)
    for line in lines:
        if line.strip():
            with contextlib.redirect_stdout(sys.stderr):
                answer = _answer(line, cache, lengths)
            yield json.dumps(answer)


def _answer(line: str, cache: Path | None, lengths: TokenLengths) -> dict[str, Any]:
    name = None
    try:
        request = json.loads(line)
        name = request.pop("id", None)
        found = _predicted(request, cache, lengths)
    except Exception as error:  # noqa: BLE001  # a boundary: later requests are still answered
        return {"id": name, "error": f"{type(error).__name__}: {error}"}
    return {"id": name, "prediction": found.to_json()}


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
