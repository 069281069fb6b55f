"""python -m orchestrator.sweep: load a space, plan its trials, run them, report.

Running the same command again resumes: the trial directories say what is done.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from orchestrator.cli import DEFAULT_SPACE, space_file, storage_place
from trainables.errors import InputError
from trainables.storage.errors import StorageError
from trainables.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from orchestrator.config.sections import SweepConfig
    from orchestrator.execution.driver import Driver
    from orchestrator.planning.planner import Planner

FINISHED, NO_TRIAL_FINISHED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
_EXIT_CODES = {"finished": FINISHED, "nothing": NO_TRIAL_FINISHED, "interrupted": INTERRUPTED}


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code (0, 1, 2 or 130, see --help)."""
    given = _parser().parse_args(arguments)
    try:
        from orchestrator.execution.signals import terminate_like_ctrl_c

        terminate_like_ctrl_c()
        return _sweep(given)
    except InputError as error:
        for message in error.messages:
            print(f"error: {message}", file=sys.stderr)
        return BAD_INPUT
    except StorageError as error:
        print(f"error: {error} Resume with: {resume_command(given)}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(f"\nInterrupted. Resume with: {resume_command(given)}", file=sys.stderr)
        return INTERRUPTED


def _sweep(given: argparse.Namespace) -> int:
    from orchestrator.cluster.forked_python import ForkedPython
    from orchestrator.planning.planner import Planner
    from orchestrator.runs.bucket_lease import fetch, lease_of
    from orchestrator.runs.state import has_ended, refuse_another_space

    config = _load(given)
    run = _run_folder(given)
    fetch(run)
    planner = Planner(config)
    if given.dry_run:
        return _plan(given, planner, run)
    refuse_another_space(run, config)
    if has_ended(run, config) and not given.retry_failed:
        with lease_of(run) as lease:
            return _EXIT_CODES[_driver(given, planner, lease.run).show()]
    may_fork = not given.no_predict or given.address in (None, "local")
    with ForkedPython(cpus=config.resources.cpus_per_trial, wanted=may_fork) as forked:
        return _run(given, planner, run, python=forked.python)


def _run(
    given: argparse.Namespace, planner: Planner, run: RunFolder, *, python: tuple[str, ...]
) -> int:
    from orchestrator.runs.bucket_lease import lease_of
    from orchestrator.runs.state import make_folder, pinned_revisions, settle

    planner.prepare(revisions=pinned_revisions(run))
    make_folder(run)
    with lease_of(run) as lease:
        settle(lease.run, planner.config, planner.contents())
        driver = _driver(given, planner, lease.run, python=python)
        return _EXIT_CODES[driver.run_all(retry_failed=given.retry_failed)]


def _driver(
    given: argparse.Namespace, planner: Planner, run: RunFolder, *, python: tuple[str, ...] = ()
) -> Driver:
    from orchestrator.execution.driver import Driver

    return Driver(
        run=run,
        config=planner.config,
        planner=planner,
        address=given.address,
        tracking_uri=given.tracking_uri,
        resume_command=resume_command(given),
        predicts=not given.no_predict,
        python=python,
    )


def _plan(given: argparse.Namespace, planner: Planner, run: RunFolder) -> int:
    """Prints what would run; writes nothing."""
    from orchestrator.planning.dry_run import describe

    print(describe(planner, run), flush=True)
    planner.prepare(ask_the_hub=False)
    if not given.no_predict:
        _predict(planner, run)
    return FINISHED


def _predict(planner: Planner, run: RunFolder) -> None:
    """Prints what trials will need, as it becomes known; writes nothing."""
    from orchestrator.planning.dry_run import predicted_lines
    from orchestrator.planning.forecast import Forecaster, known_config
    from orchestrator.planning.planned_device import planned_device
    from orchestrator.planning.simulator import SimulatorClient

    device = planned_device(planner.config.resources)
    planner.device = device.facts
    cache = run.predictions_folder if run.predictions_folder.is_dir() else None
    predictions = SimulatorClient(cache=cache, warn=print, offline=True)
    kind = device.capacity.device_type
    forecaster = Forecaster(
        predictions, capacity=device.capacity, device=kind, model_config=known_config
    )
    try:
        storage = run.path.parent
        for line in predicted_lines(planner, device, forecaster, storage=storage):
            print(line, flush=True)
    finally:
        forecaster.close()


def _load(given: argparse.Namespace) -> SweepConfig:
    from orchestrator.config.reader import load_config

    overrides = list(given.set)
    if given.trials is not None:
        overrides.append(f"search.trials={given.trials}")
    try:
        return load_config(space_file(given.space), overrides)
    except InputError as error:
        asked = f"--set search.trials={given.trials}: search.trials"
        raise InputError([text.replace(asked, "--trials") for text in error.messages]) from None


def _run_folder(given: argparse.Namespace) -> RunFolder:
    """`--storage`/`--name`, absolute: hosts need not share the driver's working directory."""
    name = given.name or Path(given.space).stem
    if name in (".", "..") or Path(name).name != name:
        raise InputError(
            f"--name: got {name!r}; needs a plain name, the folder of this run in --storage."
        )
    return RunFolder.at(f"{storage_place(given.storage)}/{name}")


def resume_command(given: argparse.Namespace) -> str:
    """The command line that goes on with this sweep; a password in it is left out."""
    import shlex

    from orchestrator.tracking.tracker import redact

    words = ["python", "-m", "orchestrator.sweep", given.space]
    for option in ("name", "storage", "tracking_uri", "trials", "address"):
        value = getattr(given, option)
        if value is not None and value != _parser().get_default(option):
            words += [f"--{option.replace('_', '-')}", redact(str(value))]
    if given.no_predict:
        words.append("--no-predict")
    for override in given.set:
        words += ["--set", redact(override)]
    return shlex.join(words)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m orchestrator.sweep",
        description=(
            "Run a sweep over LLM fine-tuning configurations: Ray Tune schedules the trials, "
            "Optuna suggests them, ASHA stops the weak ones early, MLflow tracks them. "
            "Run the same command again to resume."
        ),
        epilog=(
            "examples:\n"
            "  python -m orchestrator.sweep --dry-run\n"
            "  python -m orchestrator.sweep search_spaces/finqa_quantization.yaml --trials 40\n"
            "  python -m orchestrator.sweep --name nf4 --set 'space.quantization=[nf4]'\n\n"
            "exit codes: 0 finished; 1 no trial finished; 2 bad input; 130 interrupted"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
        help="Ray cluster to use: auto, local or an address (default: a running one, else local)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="a.b=c",
        help="override a value of the file; c is YAML. May be given several times",
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


def _leave(code: int) -> NoReturn:
    """Ends the process; where it was interrupted at once, as Ray, half started, aborts at an exit
    in order. Its own processes end with this one.
    """
    if code != INTERRUPTED:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _leave(main())
