"""python -m orchestrator.track RUN_DIR: rebuilds a sweep's MLflow runs from its folder."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence

from orchestrator.cli import add_run_argument
from orchestrator.runs.bucket_lease import LeaseInBucket, lease_of
from orchestrator.runs.lease import Lease
from orchestrator.runs.progress import is_over, wanted_trials
from orchestrator.runs.results import open_run, read_config, read_trials
from orchestrator.runs.state import remember
from orchestrator.tracking.mlflow_store import tracking_command
from orchestrator.tracking.mlflow_tracker import MLflowTracker
from orchestrator.tracking.sync import end_sweep, labelled_trials, mirror_trial, sweep_identity
from orchestrator.tracking.tracker import Tracker, TrackingError, redact
from trainables.command_line import DONE, FAILED, new_parser, run_command
from trainables.errors import InputError
from trainables.storage.run_folder import RunFolder

ANSWER_SECONDS = 60  # the limit for one answer of a server; no trial waits for it
SECONDS_BETWEEN_LINES = 5.0
_DESCRIPTION = """\
Make MLflow show a sweep again as its trial directories have it: into an empty server, another one,
or one that was away while the sweep ran. There is one run per trial however often it is called,
and what is there already is not sent again."""
_EPILOG = """\
examples:
  python -m orchestrator.track runs/quickstart
  python -m orchestrator.track runs/quickstart --tracking-uri http://host:5000

A sweep that is running is refused: its driver completes MLflow by itself.
The password of a server: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.

exit codes: 0 all is there; 1 MLflow can't be used, or trials are damaged; 2 bad input;
130 interrupted"""


def rebuild(run: RunFolder, tracker: Tracker, *, notify: Callable[[str], None]) -> list[str]:
    """Sends a sweep without a driver to a tracker; returns the ids of damaged trials, left out.

    What the tracker has is not sent again. `notify` receives the progress every few seconds.
    Raises TrackingError, and InputError if the folder does not name the sweep.
    """
    tracker.open(sweep_identity(run))
    folders, damaged = list(labelled_trials(run)), []
    last = time.monotonic()
    for number, (folder, label) in enumerate(folders, start=1):
        if not mirror_trial(tracker, folder, label=label, is_driven=False):
            damaged.append(folder.trial_id)
        if time.monotonic() - last > SECONDS_BETWEEN_LINES:
            notify(f"{number} of {len(folders)} trials are there ...")
            last = time.monotonic()
    results = read_trials(run, is_driven=False)
    over = is_over(run, results, wanted_trials(read_config(run)[0]))
    end_sweep(run, tracker, state="finished" if over else "interrupted")
    notify(f"{len(folders) - len(damaged)} of {len(folders)} trials are there.")
    return damaged


_GOES_ON = "The same command goes on where it broke off."
_NO_SERVER = f"Start that server, or give another --tracking-uri. {_GOES_ON}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code (0, 1, 2 or 130, see --help)."""
    return run_command(
        lambda: _track(_parser().parse_args(arguments)),
        next_step=lambda: _GOES_ON,
        failures={TrackingError: _NO_SERVER},
        needs_output=False,
    )


def _track(options: argparse.Namespace) -> int:
    run = open_run(options.run_dir)
    _refuse_links(run)
    uri = options.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or run.tracking_uri
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(ANSWER_SECONDS))
    with _held(run):
        print(f"Mirroring {run.path} to {redact(uri)} ...", flush=True)
        damaged = rebuild(run, MLflowTracker(uri), notify=_print)
        remember(run, tracked_in=redact(uri))
    for trial_id in damaged:
        print(f"warning: {run.trial(trial_id).path}: damaged; left out", file=sys.stderr)
    print(f"MLflow: {tracking_command(uri)}")
    return FAILED if damaged else DONE


def _refuse_links(run: RunFolder) -> None:
    """Raises InputError for symbolic links: their targets, which no trial wrote, would be sent."""
    links = [f"{link}: is a symbolic link. Put the file itself there." for link in run.links()]
    if links:
        raise InputError(links)


def _held(run: RunFolder) -> Lease | LeaseInBucket:
    """The lease of the sweep, which refuses a driver: it would write to the same MLflow runs."""
    if not os.access(run.path, os.W_OK):
        raise InputError(
            f"{run.path}: can't be written, and the lease that keeps a driver away lies in it. "
            "Make it writable, or copy the folder and give the copy."
        )
    return lease_of(run)


def _print(text: str) -> None:
    print(text, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("orchestrator.track", description=_DESCRIPTION, epilog=_EPILOG)
    add_run_argument(parser)
    parser.add_argument(
        "--tracking-uri",
        metavar="URI",
        help="MLflow server or store (default: MLFLOW_TRACKING_URI, else mlflow.db beside the run)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
