"""Measures MLflow with a sweep of 200 trials: seconds to mirror it and to show its table.

    python -m benchmarks.mlflow_at_200_trials FOLDER [--trials 200] [--screenshot FILE.png]

Writes a run folder like that of a sweep (200 trials of up to 60 events with 8 metrics each, and
200 answered questions), mirrors it with `orchestrator.track` into an empty sqlite store, mirrors it
again, serves it with `mlflow ui` on 127.0.0.1 and opens it in a headless Chromium. Prints wall and
CPU seconds; on a busy machine the CPU seconds are more reliable.
Needs playwright and Chromium, which are not dependencies of this project.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError

from trainables.spec.events import Event
from trainables.spec.knobs import canonical
from trainables.spec.states import FINISHED, STOPPED
from trainables.spec.trial_spec import Budget, TrialSpec
from trainables.storage.run_folder import RunFolder

QUANTIZATIONS = ("none", "int8", "nf4", "fp4")
EVENTS, QUESTIONS = 60, 200
PATIENCE_MILLISECONDS = 300_000
# The page shows "0 matching runs" while it loads.
RUNS_ARE_SHOWN = "() => /[1-9][0-9]* matching runs/.test(document.body.innerText)"
MODULE = "benchmarks.mlflow_at_200_trials"
CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]


def main() -> None:
    given = _parser().parse_args()
    run = make_run(given.folder / "two_hundred", trials=given.trials)
    for which in ("first", "second"):
        started, before = time.perf_counter(), _cpu_seconds()
        subprocess.run(
            [sys.executable, "-m", "orchestrator.track", str(run.path)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        seconds, cpu = time.perf_counter() - started, _cpu_seconds() - before
        print(f"mirror, {which} time: {seconds:.1f} s ({cpu:.1f} s of CPU)", flush=True)
    with served(run) as address:
        print(f"serving at {address}", flush=True)
        command = [given.browser_python, "-m", MODULE, str(given.folder), "--show", address]
        more = ["--screenshot", given.screenshot] if given.screenshot else []
        subprocess.run([*command, *more], check=True, cwd=Path(__file__).parent.parent)


def make_run(folder: Path, *, trials: int) -> RunFolder:
    """Writes a run folder of `trials` ended trials; two of three were stopped early."""
    run = RunFolder(folder)
    config = {"task": "finqa", "objective": "em_acc", "search": {"trials": trials}}
    run.write_text(run.sweep_file, json.dumps(config))
    run.write_state({"sweep_id": "200trials", "trials_done": trials})
    draw = random.Random(7)
    for number in range(trials):
        _add_trial(run, draw, stopped=number % 3 > 0)
    return run


@contextmanager
def served(run: RunFolder) -> Iterator[str]:
    """Runs `mlflow ui` on the store beside the run; yields its address when it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = run.tracking_uri
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store]
    started = time.perf_counter()
    server = subprocess.Popen(
        [*command, "--port", str(port), "--workers", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{address}/health")
        print(f"server up: {time.perf_counter() - started:.1f} s", flush=True)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def show(address: str, *, screenshot: str | None) -> None:
    """Opens the sweep's runs twice (the second time from the browser's cache) and prints the
    seconds until their table is shown."""
    sync_playwright = importlib.import_module("playwright.sync_api").sync_playwright
    experiment = _experiment_id(address)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM)
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        for which in ("first", "second"):
            started = time.perf_counter()
            page.goto(f"{address}/#/experiments/{experiment}/runs", timeout=PATIENCE_MILLISECONDS)
            try:
                page.wait_for_function(RUNS_ARE_SHOWN, timeout=PATIENCE_MILLISECONDS)
                print(f"table, {which} time: {time.perf_counter() - started:.1f} s", flush=True)
                page.wait_for_timeout(2000)
            finally:
                if screenshot:
                    page.screenshot(path=screenshot)
            if which == "first":
                page.reload()
        browser.close()


def _experiment_id(address: str) -> str:
    name = "two_hundred"
    path = f"/api/2.0/mlflow/experiments/get-by-name?experiment_name={name}"
    with urllib.request.urlopen(address + path, timeout=60) as answer:
        found: dict[str, Any] = json.load(answer)
    return str(found["experiment"]["experiment_id"])


def _add_trial(run: RunFolder, draw: random.Random, *, stopped: bool) -> None:
    spec = TrialSpec(
        role="trial",
        knobs=canonical(
            {
                "model": "base_models/small",
                "quantization": draw.choice(QUANTIZATIONS),
                "rank": draw.choice([4, 8, 16, 32]),
                "alpha": draw.choice([16, 32]),
                "learning_rate": 10 ** draw.uniform(-5, -3),
                "batch_size": draw.choice([1, 2, 4, 8]),
            }
        ),
        model_digest="small",
        task="finqa",
        task_identity={"context": "full"},
        task_options={},
        budget=Budget(train_examples=6251, eval_examples=QUESTIONS),
    )
    folder = run.trial(spec.trial_id)
    folder.write_spec(spec, {})
    best = draw.uniform(0.1, 0.6)
    count = EVENTS // 4 if stopped else EVENTS
    events = [_event(place, best, draw, last=place == count) for place in range(1, count + 1)]
    folder.write_predictions(_rows(best, draw))
    folder.append_log("a line of the worker")
    folder.write_summary(
        {
            "trial_id": spec.trial_id,
            "role": "trial",
            "state": STOPPED if stopped else FINISHED,
            "reason": "stopped early at 25% of its budget" if stopped else "",
            "configuration": dict(spec.knobs),
            "metrics": dict(events[-1].metrics),
            "step": events[-1].step,
            "units": events[-1].units,
            "fraction": events[-1].fraction,
            "seconds": {"total": events[-1].seconds},
            "history": [event.to_json() for event in events],
            "facts": {"selection": {"context": "full", "evidence": "none"}},
            "provenance": {"git_commit": "0123abc", "torch": "2.13.0", "device": "cpu"},
            "attempts": 1,
        }
    )


def _event(place: int, best: float, draw: random.Random, *, last: bool) -> Event:
    seen = place / EVENTS
    metrics = {
        "train_loss": 3 - 2 * best * math.sqrt(seen) + draw.uniform(-0.05, 0.05),
        "learning_rate_now": 1e-4 * (1 - seen),
        "examples_per_second": draw.uniform(10, 12),
        "tokens_seen": 1e5 * place,
        "train_peak_memory_bytes": 64e6,
    }
    if last:
        metrics |= {"em_acc": best * seen, "em_acc_strict": best * seen, "eval_loss": 2 - best}
    system = {
        "cpu_utilization_percentage": draw.uniform(80, 100),
        "system_memory_usage_megabytes": draw.uniform(9000, 9500),
        "system_memory_usage_percentage": draw.uniform(55, 58),
    }
    kind: Any = "rung" if last else "progress"
    return Event(
        kind, place * 10, place * 104, metrics, seen if last else 0.0, 10.0 * place, system
    )


def _rows(best: float, draw: random.Random) -> Iterator[dict[str, Any]]:
    for number in range(QUESTIONS):
        right = draw.random() < best
        yield {
            "id": f"ABC/2018/page_{number}.pdf-1",
            "question": "what was the percentage change in net revenue from 2017 to 2018?",
            "prediction": f"{number}.1%",
            "gold": number / 1000,
            "em_acc": right,
            "em_acc_strict": right,
        }


def _cpu_seconds() -> float:
    """CPU seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _wait_for(address: str) -> None:
    end = time.monotonic() + PATIENCE_MILLISECONDS / 1000
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(address, timeout=2).close()
        except (URLError, OSError):
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(address)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("folder", type=Path, help="an empty folder to write to")
    parser.add_argument("--trials", type=int, default=200, help="(default: %(default)s)")
    parser.add_argument("--screenshot", metavar="FILE.png", help="save a screenshot of the table")
    parser.add_argument(
        "--browser-python",
        default=sys.executable,
        metavar="PYTHON",
        help="a Python with playwright (default: this one)",
    )
    parser.add_argument("--show", metavar="URL", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    options = _parser().parse_args()
    if options.show:
        show(options.show, screenshot=options.screenshot)
    else:
        main()
