"""python -m orchestrator.sweep: load a space, plan its trials, run them, report.

The same command resumes a sweep: finished trials are read from their folders.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from orchestrator.cli import DEFAULT_SPACE, space_file, storage_place
from trainables.command_line import DONE, FAILED, INTERRUPTED, new_parser, run_command
from trainables.errors import InputError
from trainables.standard_streams import standard_streams
from trainables.storage.layout import wrong_run_name
from trainables.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from orchestrator.config.sections import SweepConfig
    from orchestrator.execution.driver import Driver
    from orchestrator.planning.planner import Planner

_SHOWN = 60  # characters of a name in a message
_EXIT_CODES = {"finished": DONE, "nothing": FAILED, "interrupted": INTERRUPTED}
_DESCRIPTION = """\
Run a sweep over LLM fine-tuning configurations: Ray Tune schedules the trials, Optuna suggests
them, ASHA stops the weak ones early, MLflow tracks them. Run the same command again to resume."""
_EPILOG = """\
examples:
  python -m orchestrator.sweep --dry-run
  python -m orchestrator.sweep search_spaces/finqa_quantization.yaml --trials 40
  python -m orchestrator.sweep --init mine.yaml --data mine.csv
  python -m orchestrator.sweep --name nf4 --set 'space.quantization=[nf4]'

Ctrl-C, SIGTERM or SIGHUP: running trials save a checkpoint, and the command that resumes is
printed; twice leaves at once. What is ignored at the start, as by nohup, stays ignored. A sweep
whose output can't be written any more goes on without it; see it with orchestrator.status.

exit codes: 0 finished; 1 no trial finished; 2 bad input; 130 interrupted"""


def program() -> NoReturn:
    """The console command `sweep`: runs `main` and ends the process with its exit code."""
    _exit(main())


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code (0, 1, 2 or 130, see --help)."""

    def options() -> argparse.Namespace:
        return _parser().parse_args(arguments)

    return run_command(
        lambda: _sweep(options()),
        next_step=lambda: f"Resume with: {resume_command(options())}",
        needs_output=False,
    )


def _sweep(options: argparse.Namespace) -> int:
    from orchestrator.execution.driver import Driver
    from orchestrator.planning.planner import Planner
    from orchestrator.runs.bucket_lease import fetch

    if options.init is not None or options.data is not None:
        return _init(options)
    config = _load(options)
    run = _run_folder(options)
    fetch(run)
    planner = Planner(config)
    with _sourced_faults(options):
        if options.dry_run:
            with standard_streams(needs_output=True):
                return _dry_run(planner, run, predicts=not options.no_predict)
        driver = Driver(
            run=run,
            config=config,
            planner=planner,
            address=options.address,
            tracking_uri=options.tracking_uri,
            resume_command=resume_command(options),
            predicts=not options.no_predict,
        )
        return _drive(driver, retry_failed=options.retry_failed)


@contextmanager
def _sourced_faults(options: argparse.Namespace) -> Iterator[None]:
    """Names the file in faults of its sections that only show when models and data are read."""
    from orchestrator.config.reader import sourced

    try:
        yield
    except InputError as error:
        faults = sourced(error.messages, space_file(options.space), options.set)
        raise InputError(faults) from error


def _drive(driver: Driver, *, retry_failed: bool) -> int:
    """Runs or resumes the sweep, or prints the report of one that has ended."""
    from orchestrator.cluster.forked_python import ForkedPython
    from orchestrator.runs import state
    from orchestrator.runs.bucket_lease import lease_of

    run, config = driver.run, driver.config
    state.refuse_another_space(run, config)
    if state.has_ended(run, config) and not retry_failed:
        with lease_of(run) as lease:
            driver.run = lease.run
            return _EXIT_CODES[driver.show()]
    may_fork = driver.predicts or driver.address in (None, "local")
    with ForkedPython(cpus=config.resources.cpus_per_trial, wanted=may_fork) as forked:
        driver.python = forked.python
        return _run(driver, retry_failed=retry_failed)


def _run(driver: Driver, *, retry_failed: bool) -> int:
    from orchestrator.runs import state
    from orchestrator.runs.bucket_lease import lease_of

    driver.planner.prepare(revisions=state.pinned_revisions(driver.run))
    state.make_folder(driver.run)
    with lease_of(driver.run) as lease:
        driver.run = lease.run
        state.settle(lease.run, driver.config, driver.planner.contents())
        return _EXIT_CODES[driver.run_all(retry_failed=retry_failed)]


def _dry_run(planner: Planner, run: RunFolder, *, predicts: bool) -> int:
    from orchestrator.planning.dry_run import describe

    print(describe(planner, run), flush=True)
    planner.prepare(ask_the_hub=False)
    if predicts:
        _print_predictions(planner, run)
    return DONE


def _print_predictions(planner: Planner, run: RunFolder) -> None:
    """Prints what the preflight notes, and the memory and FLOPs that trials are predicted to need;
    writes nothing. Raises InputError for what the preflight refuses."""
    from orchestrator.planning.dry_run import predicted_lines
    from orchestrator.planning.forecaster import Forecaster, known_config
    from orchestrator.planning.planned_device import planned_device
    from orchestrator.planning.simulator import SimulatorClient
    from orchestrator.preflight import preflight_lines

    device = planned_device(planner.config.resources)
    planner.device = device.facts
    cache = run.predictions_folder if run.predictions_folder.is_dir() else None
    predictions = SimulatorClient(cache=cache, warn=print, offline=True)
    predictions.start()
    kind = device.capacity.device_type
    forecaster = Forecaster(
        predictions, capacity=device.capacity, device=kind, model_config=known_config
    )
    try:
        for line in preflight_lines(planner, predictions):
            print(line, flush=True)
        storage = run.path.parent
        for line in predicted_lines(planner, device, forecaster, storage=storage):
            print(line, flush=True)
    finally:
        forecaster.close()


def _init(options: argparse.Namespace) -> int:
    """Writes a space for a data file, and prints it with what to do next."""
    from orchestrator.config.starter_space import write_starter_space

    if options.init is None or options.data is None:
        raise InputError("--init and --data: each needs the other, as --init a.yaml --data a.csv.")
    text = write_starter_space(Path(options.init), Path(options.data))
    print(text)
    print(f"Written to {options.init}. See what would run:")
    print(f"  python -m orchestrator.sweep {options.init} --dry-run")
    return DONE


def _load(options: argparse.Namespace) -> SweepConfig:
    from orchestrator.config.reader import load_config

    overrides = list(options.set)
    if options.trials is not None:
        overrides.append(f"search.trials={options.trials}")
    try:
        return load_config(space_file(options.space), overrides)
    except InputError as error:
        asked = f"--set search.trials={options.trials}: search.trials"
        raise InputError([text.replace(asked, "--trials") for text in error.messages]) from None


def _run_folder(options: argparse.Namespace) -> RunFolder:
    """`--storage`/`--name` as an absolute path: hosts may have another working directory."""
    name = Path(options.space).stem if options.name is None else options.name
    wrong = wrong_run_name(name)
    if wrong is not None:
        shown = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."
        raise InputError(f"--name: got {shown!r}; {wrong}")
    return RunFolder.at(f"{storage_place(options.storage)}/{name}")


def resume_command(options: argparse.Namespace) -> str:
    """The command line that resumes this sweep, without the passwords of the addresses in it."""
    import shlex

    from orchestrator.tracking.tracker import redact_address

    words = ["python", "-m", "orchestrator.sweep", options.space]
    for option in ("name", "storage", "tracking_uri", "trials", "address"):
        value = getattr(options, option)
        if value is not None and value != _parser().get_default(option):
            words += [f"--{option.replace('_', '-')}", redact_address(str(value))]
    if options.no_predict:
        words.append("--no-predict")
    for override in options.set:
        words += ["--set", redact_address(override)]
    return shlex.join(words)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("orchestrator.sweep", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument(
        "space",
        nargs="?",
        default=DEFAULT_SPACE,
        metavar="SPACE.yaml",
        help="what to sweep over; the grammar is in search_spaces/README.md (default: %(default)s)",
    )
    parser.add_argument("--name", help="the run's name (default: the file's name without .yaml)")
    parser.add_argument(
        "--storage",
        default="runs",
        metavar="DIR",
        help="where runs lie: a folder, s3://BUCKET/FOLDER or gs://BUCKET/FOLDER "
        "(docs/storage.md; default: %(default)s)",
    )
    parser.add_argument(
        "--tracking-uri",
        metavar="URI",
        help="MLflow server or store (default: sqlite in DIR/mlflow.db)",
    )
    parser.add_argument(
        "--trials", type=int, metavar="N", help="how many distinct feasible configurations to try"
    )
    parser.add_argument(
        "--address",
        metavar="ADDR",
        help="Ray cluster to use: auto (of RAY_ADDRESS, else of this machine's last `ray start`), "
        "local, or HOST:PORT (default: as auto if there is one, else local)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="a.b=c",
        help="override a value of the file; c is YAML. May be given several times",
    )
    parser.add_argument(
        "--init",
        metavar="SPACE.yaml",
        help="write a commented space for --data, guessed from its rows, and run nothing",
    )
    parser.add_argument(
        "--data", metavar="FILE", help="for --init: CSV, TSV, JSON lines, a JSON list or Parquet"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would run, and run nothing"
    )
    parser.add_argument(
        "--no-predict",
        action="store_true",
        help="predict no trial's memory and FLOPs: what does not fit shows when it runs",
    )
    parser.add_argument(
        "--retry-failed", action="store_true", help="give failed trials another chance"
    )
    return parser


def _exit(code: int) -> NoReturn:
    """Ends the process; without its exit handlers if it was interrupted, because a Ray that has
    not started completely aborts in them. Ray's processes end with this one.
    """
    if code != INTERRUPTED:
        sys.exit(code)
    os._exit(code)


if __name__ == "__main__":
    program()
