"""Trains under a cap of the address space and prints the outcomes; a test starts this program.

    python -m tests.short_memory MODEL FOLDER ROOM_MEBIBYTES

It trains one step on 256 examples with `batch_size: auto` and with `batch_size: 256`, so that
allocations fail. The output is one line of JSON: the metrics of each, or its failure.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

from tests.tiny_trials import make_spec, make_trial, run
from trainables.spec.events import Event
from trainables.spec.trial_spec import Budget
from trainables.workers.host import HostProcess
from trainables.workers.outcomes import Failure

EXAMPLES = 256
BUDGET = Budget(train_examples=EXAMPLES, eval_examples=2, rungs=(1.0,))
SIZES: dict[str, dict[str, Any]] = {
    "auto": {"batch_size": "auto", "effective_batch_size": EXAMPLES},
    "explicit": {"batch_size": EXAMPLES},
}


def main(model: Path, folder: Path, room_bytes: int) -> None:
    run(make_spec(model), folder / "warm")  # creates threads and caches before the cap
    hosts = {name: _host(model, folder, knobs) for name, knobs in SIZES.items()}
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + room_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    print(json.dumps({name: _told(host.next()) for name, host in hosts.items()}))


def _host(model: Path, folder: Path, knobs: dict[str, Any]) -> HostProcess:
    spec = make_spec(model, budget=BUDGET, generated={"train": EXAMPLES}, **knobs)
    host = HostProcess({})
    host.start(str(make_trial(spec, folder).folder.path))
    return host


def _told(answer: Any) -> dict[str, Any]:
    if isinstance(answer, Failure):
        return {"reason": answer.reason, "infeasible": answer.infeasible}
    assert isinstance(answer, Event)
    return dict(answer.metrics)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) << 20)
