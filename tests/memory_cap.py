"""Runs a sweep under an enforced memory cap and prints the outcomes; a test starts this program.

    python -m tests.memory_cap MODEL FOLDER CAP_MEBIBYTES HOST_MEBIBYTES

The trial queue of a real sweep gives trials, which run one after another in a process whose address
space is capped, so that allocations fail. A trial may take the cap less the memory of the host
itself. Afterwards every refused trial runs too. The output is one line of JSON: how many trials
fitted, ran out of memory, were refused, and were refused although they fit.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from orchestrator.config.reader import from_mapping
from orchestrator.planning.capacity import CPU, Capacity
from orchestrator.planning.forecaster import Forecaster
from orchestrator.planning.planner import Planner
from orchestrator.planning.simulator import SimulatorClient
from orchestrator.runs.ledger import Ledger, TrialRecord
from orchestrator.search.searcher import Search
from orchestrator.search.trial_queue import TrialQueue
from tests.tiny_trials import GENERATED, make_spec, run
from trainables.spec.events import Event
from trainables.storage.run_folder import RunFolder
from trainables.storage.trial_folder import TrialFolder
from trainables.workers.host import HostProcess
from trainables.workers.outcomes import Failure

MEBIBYTE = 1 << 20
SPACE: dict[str, Any] = {
    "task": "finqa",
    "data": {"generated": {**GENERATED, "train": 36, "selection": 2, "report": 2}},
    "space": {
        "quantization": ["none", "nf4"],
        "rank": 8,
        "batch_size": [4, 8, 12, 20, 36],
        "gradient_checkpointing": [False, True],
        "prompt": "statements",
        "sequence_length": 256,
    },
    "budget": {"train_examples": 36, "eval_examples": 2, "seed": 3},
    "search": {"algorithm": "grid", "trials": 999},
    "scheduler": "none",
    "execution": {"max_new_tokens": 2, "eval_batch_size": 2},
}


def main(model: Path, folder: Path, cap_bytes: int, host_bytes: int) -> None:
    space = {**SPACE, "space": {"model": str(model), **SPACE["space"]}}
    sweep = RunFolder(folder / "sweep")
    planner = Planner(
        from_mapping(space), device={"device_type": "cpu", "compute_dtype": "float32"}
    )
    planner.prepare()
    predictions = SimulatorClient(cache=None, warn=_fail)
    predictions.start()  # before the cap, because its process would inherit it
    capacity = Capacity(cap_bytes - host_bytes, CPU, "a test's cap")
    planner.forecaster = Forecaster(predictions, capacity=capacity, device=CPU)
    run(make_spec(model), folder / "warm")  # creates threads and caches before the cap
    gc.collect()
    host = HostProcess({})
    _cap(cap_bytes)
    ledger = Ledger(sweep)
    refused: list[TrialRecord] = []
    search = Search(planner.config)
    trial_queue = TrialQueue(
        planner=planner, search=search, ledger=ledger, on_rejected=refused.append
    )
    ends = [_run(host, record, trial_queue, ledger) for record in _given(trial_queue)]
    would_fit = [record for record in refused if _runs(host, record, folder / "refused")]
    planner.forecaster.close()
    told = {
        "fitted": ends.count("finished"),
        "out_of_memory": ends.count("infeasible"),
        "other": [end for end in ends if end not in ("finished", "infeasible")],
        "refused": len(refused),
        "reasons": [record.reason for record in refused],
        "would_have_fitted": len(would_fit),
    }
    print(json.dumps(told))


def _given(trial_queue: TrialQueue) -> Any:
    while not trial_queue.over:
        record = trial_queue.next()
        if record is None:
            time.sleep(0.01)
        else:
            yield record


def _run(host: HostProcess, record: TrialRecord, trial_queue: TrialQueue, ledger: Ledger) -> str:
    """Handles a trial's events as the Tune loop does, without Ray."""
    failure = _events(host, record.folder, record.history)
    for event in record.history:
        if event.kind == "rung":
            trial_queue.rung(record, event)
    if failure is None:
        ledger.finished(record)
    elif failure.infeasible:
        ledger.infeasible(record, failure.reason)
    else:
        ledger.failed(record, failure.reason)
    trial_queue.ended(record)
    return record.state if failure is None or failure.infeasible else failure.reason


def _runs(host: HostProcess, record: TrialRecord, folder: Path) -> bool:
    place = TrialFolder(folder / record.trial_id)
    place.write_spec(record.spec, {})
    return _events(host, place, []) is None


def _events(host: HostProcess, folder: TrialFolder, history: list[Event]) -> Failure | None:
    started = host.start(str(folder.path))
    if isinstance(started, Failure):
        return started
    while True:
        told = host.next()
        if isinstance(told, Failure):
            return told
        assert isinstance(told, Event)
        history.append(told)
        if told.kind == "finished":
            return None


def _cap(cap_bytes: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + cap_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def _fail(line: str) -> None:
    sys.stderr.write(line + "\n")
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *(int(size) * MEBIBYTE for size in sys.argv[3:5]))
