"""python -m orchestrator.doctor: is this cluster, or this cluster file, fit for sweeps?

Without --cluster it checks the running cluster, or a local Ray that it starts if none runs.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from orchestrator.cli import DEFAULT_SPACE, space_file, storage_place
from trainables.command_line import DONE, FAILED, new_parser, run_command
from trainables.errors import InputError
from trainables.storage.run_folder import RunFolder

_DESCRIPTION = """\
Look at a running cluster (nodes, GPUs, versions, storage, MLflow, models, DeepSpeed and a short
trial on every node), or at a cluster file before `ray up`. Each failure is shown with what mends
it."""
_EPILOG = "exit codes: 0 fit; 1 something failed; 2 bad input; 130 interrupted"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code (0, 1, 2 or 130, see --help)."""
    return run_command(lambda: _check(_parser().parse_args(arguments)))


def _check(options: argparse.Namespace) -> int:
    return _check_file(options) if options.cluster else _check_cluster(options)


def _check_file(options: argparse.Namespace) -> int:
    from orchestrator.config.reader import load_config
    from orchestrator.doctor.cluster_file import check_cluster_file

    resources = load_config(space_file(options.space)).resources if options.space else None
    try:
        check_cluster_file(options.cluster, resources)
    except InputError as error:
        print(f"{options.cluster} is not ready:\n")
        for message in error.messages:
            print(f"  {message.removeprefix(f'{options.cluster}: ')}")
        print(f"\n{len(error.messages)} to mend.")
        return FAILED
    print(f"{options.cluster}: nothing wrong was found.")
    return DONE


def _check_cluster(options: argparse.Namespace) -> int:
    from orchestrator.cluster.nodes import alive_nodes
    from orchestrator.cluster.session import start_ray, stop_ray
    from orchestrator.config.reader import load_config
    from orchestrator.doctor.checks import CHECKS, CheckContext
    from orchestrator.doctor.findings import all_passed, table
    from orchestrator.doctor.trial_check import check_sweep

    began = time.monotonic()
    config = load_config(space_file(options.space or DEFAULT_SPACE))
    storage = storage_place(options.storage)
    print("Joining the cluster, or starting a local Ray ...", flush=True)
    start_ray(options.address, notify=_progress_printer("note:"))
    try:
        findings = []
        checks = dict(CHECKS) if options.no_sweep else {**CHECKS, "sweep": check_sweep}
        for place, (name, check) in enumerate(checks.items(), start=1):
            notify = _progress_printer(f"[{place}/{len(checks)}] {name}")
            notify("...")
            uri = _tracking_uri(options, storage)
            context = CheckContext(alive_nodes(), storage, uri, config, notify)
            findings.append(check(context))
    finally:
        stop_ray()
    print(f"\n{table(findings)}\n")
    fine = all_passed(findings)
    verdict = "Fit for sweeps" if fine else "Not fit for sweeps yet"
    print(f"{verdict} ({time.monotonic() - began:.0f} s).")
    return DONE if fine else FAILED


def _progress_printer(prefix: str) -> Callable[[str], None]:
    """Prints each text on a line of its own, which suits a log file as well as a terminal."""
    return lambda text: print(f"{prefix} {text}", flush=True)


def _tracking_uri(options: argparse.Namespace, storage: str) -> str:
    """The tracking URI of a sweep that is started with the same options."""
    own = RunFolder.at(f"{storage}/any").tracking_uri
    return str(options.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or own)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("orchestrator.doctor", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument(
        "--cluster", type=Path, metavar="FILE", help="check this cluster file and nothing else"
    )
    parser.add_argument(
        "--address",
        metavar="ADDR",
        help="Ray cluster to look at: auto, local or an address (default: as for sweeps)",
    )
    parser.add_argument(
        "--storage", default="runs", metavar="DIR", help="where runs would lie (default: runs)"
    )
    parser.add_argument("--tracking-uri", metavar="URI", help="MLflow server or store")
    parser.add_argument(
        "--space",
        metavar="SPACE.yaml",
        help="look for this sweep's models, and whether a node type has what its trials ask for",
    )
    parser.add_argument("--no-sweep", action="store_true", help="leave the short trials out")
    return parser


if __name__ == "__main__":
    sys.exit(main())
