"""Runs this project's command on the benchmark's work and records when Ray was ready.

    python -m benchmarks.this_project FOLDER

FOLDER contains workload.json; the run folder is FOLDER/runs/overhead.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import yaml

from benchmarks.timeline import TrialTimes
from benchmarks.workload import Workload
from orchestrator import sweep
from trainables.storage.run_folder import RunFolder
from trainables.storage.trial_folder import TrialFolder

NAME = "overhead"


def trial_times(folder: Path, *, ray_ready: float) -> list[TrialTimes]:
    """The times of a run's trials, the untrained baseline included, read from their summaries.

    The loading of a base counts for the first trial on it only. The time from Ray's readiness to
    the start of a host's first load (its process, its imports) counts as import.
    """
    trials = list(RunFolder(folder / "runs" / NAME).trials())
    times = sorted((_times(trial) for trial in trials), key=lambda each: each.began)
    known: set[float] = set()
    for trial in times:
        load = trial.seconds["load"]
        trial.seconds["load"] = 0.0 if load in known else load
        if load not in known:
            trial.seconds["import"] = max(0.0, trial.began - load - ray_ready)
        known.add(load)
    return times


def main() -> int:
    folder = Path(sys.argv[1]).resolve()
    threading.Thread(target=_note_when_ray_answers, args=(folder,), daemon=True).start()
    space = folder / "space.yaml"
    space.write_text(yaml.safe_dump(Workload.read(folder / "workload.json").space()))
    storage = str(folder / "runs")
    return sweep.main([str(space), "--name", NAME, "--storage", storage, "--address", "local"])


def _note_when_ray_answers(folder: Path) -> None:
    while "ray" not in sys.modules or not getattr(sys.modules["ray"], "is_initialized", bool)():
        time.sleep(0.01)
    (folder / "ray_ready").write_text(str(time.time()))


def _times(folder: TrialFolder) -> TrialTimes:
    summary = folder.summary()
    assert summary is not None and summary["state"] == "finished", folder.path
    seconds, metrics, knobs = summary["seconds"], summary["metrics"], summary["configuration"]
    return TrialTimes(
        began=summary["times"]["end"] - seconds["total"],
        first_step=summary["times"]["first_step"] or None,
        end=summary["times"]["end"],
        seconds={name: seconds[name] for name in ("load", "train", "eval")},
        counts={
            "steps": summary["step"],
            "tokens": metrics.get("tokens_seen", 0),
            "questions": metrics["em_acc_questions"],
            "threads": int(summary["provenance"]["cpu_threads"]),
        },
        metrics={name: metrics[name] for name in ("eval_loss", "em_acc")},
        rank=knobs.get("rank", 0),
        learning_rate=knobs.get("learning_rate", 0.0),
    )


if __name__ == "__main__":
    sys.exit(main())
