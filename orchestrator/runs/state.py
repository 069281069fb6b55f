"""What a run folder keeps between starts (sweep.yaml, sweep.json), and what it refuses.

A run belongs to one space and to one content of its models, data and prompts. Starting a sweep of
the same name with other ones is an error that lists the changes.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping
from typing import Any

from orchestrator.config.changes import differences
from orchestrator.config.reader import from_mapping
from orchestrator.config.sections import LimitsConfig, SweepConfig
from orchestrator.config.writer import to_mapping
from orchestrator.config.yaml_loader import read_yaml, yaml_text
from trainables.errors import InputError
from trainables.spec.states import INFEASIBLE, TRIAL
from trainables.storage.errors import StorageError
from trainables.storage.mirror import Mirror
from trainables.storage.run_folder import RunFolder
from trainables.storage.sealed_json import DamagedError

_HOW_TO_GO_ON = "  Give the new one another --name, or take the change back to resume."


def make_folder(run: RunFolder) -> None:
    """Makes the run folder; raises InputError if it can't be written."""
    _make_working_copy(run)
    if run.mirror is not None:
        _probe_bucket(run.place, run.mirror)


def _probe_bucket(place: str, mirror: Mirror) -> None:
    """Writes, reads, lists and deletes an object; raises InputError if one of these fails."""
    key = f"probe-{uuid.uuid4().hex}"
    try:
        mirror.store.put(key, b"\n")
        seen = mirror.store.get(key) is not None and key in [x.key for x in mirror.store.list()]
        mirror.store.delete([key])
    except StorageError as error:
        raise InputError(f"--storage: {error}") from error
    if not seen:
        raise InputError(f"--storage: {place}: what is written there can't be read back.")


def _make_working_copy(run: RunFolder) -> None:
    probe = run.path / ".probe"
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"\n")  # a full disk still takes an empty file
    except OSError as error:
        raise InputError(
            f"{run.path}: can't be written ({error.strerror}). "
            "Give a folder that can with --storage."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def read_state(run: RunFolder) -> dict[str, Any]:
    """The content of sweep.json, empty for a new run.

    Raises InputError if it is damaged or can't be read.
    """
    try:
        return run.read_state()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except DamagedError as error:
        raise InputError(
            f"{run.state_file}: {error}. It holds the sweep's id, its hours so far, whether it has "
            "ended, and what its models and data were. Delete it to go on: no trial is lost, but "
            "MLflow then shows the sweep as a new one, its hours count anew, and whether models "
            "or data have changed since its start is not seen."
        ) from error
    except OSError as error:
        raise InputError(f"{run.state_file}: can't be read ({error.strerror}).") from error


def remember(run: RunFolder, **facts: Any) -> None:
    """Adds facts to sweep.json."""
    run.write_state({**read_state(run), **facts})


def settle(run: RunFolder, config: SweepConfig, contents: Mapping[str, str]) -> str:
    """Binds the run folder to a space and to `contents`; returns the sweep's id, new for a new run.

    `contents` holds the digests of models, data and prompts (`Planner.contents`). Only the holder
    of the lease may call it. Raises InputError if the run has another space or other contents.
    """
    refuse_another_space(run, config)
    state = {"sweep_id": uuid.uuid4().hex[:12], **_bound_state(run)}
    _refuse_other_contents(run, state.get("contents", {}), contents)
    run.write_state({**state, "contents": {**state.get("contents", {}), **contents}})
    run.write_text(run.sweep_file, yaml_text(to_mapping(config)))
    return str(state["sweep_id"])


def refuse_another_space(run: RunFolder, config: SweepConfig) -> None:
    """Raises InputError, with each change, if the run was started with another space."""
    if not run.sweep_file.is_file() or read_state(run).get("refused"):
        return
    changes = differences(from_mapping(read_yaml(run.sweep_file)), config)
    if changes:
        title = f"{run.path}: this run was started with another space."
        raise InputError([title, *(f"  {change}" for change in changes), _HOW_TO_GO_ON])


def unbind(run: RunFolder) -> None:
    """Lets the next start have another space and other contents: this one was refused before any
    trial was launched."""
    remember(run, refused=True)


def pinned_revisions(run: RunFolder) -> dict[str, str]:
    """The revisions of the hub models that this run was started with, by model name."""
    digests = _bound_state(run).get("contents", {})
    models = {key.removeprefix(MODEL): str(digest) for key, digest in digests.items()}
    return {
        name: digest.removeprefix(f"{name}@")
        for name, digest in models.items()
        if digest.startswith(f"{name}@")
    }


def has_ended(run: RunFolder, config: SweepConfig) -> bool:
    """Whether all trials that this configuration asks for are done and undamaged.

    Also true if the sweep ended, with its report, because its hours were used up.
    """
    state = read_state(run)
    if hours_are_over(state, config.limits):
        return True
    done = int(state.get("trials_done", -1))
    if not state.get("exhausted") and done < config.search.trials:
        return False
    return _sound_trials(run) >= done


def hours_are_over(state: Mapping[str, Any], limits: LimitsConfig) -> bool:
    """Whether the sweep ended, with its report, because these hours were used up."""
    hours = limits.sweep_hours
    if hours is None or not state.get("out_of_hours"):
        return False
    return float(state.get("seconds", 0.0)) >= 3600 * hours


def _sound_trials(run: RunFolder) -> int:
    """The number of trials done, as `trials_done` counts them; -2 if any is damaged or undone."""
    found = 0
    for folder in run.trials():
        summary = folder.summary()
        if summary is None or not folder.is_sound():
            return -2
        counts = summary.get("role", TRIAL) == TRIAL and summary.get("state") != INFEASIBLE
        found += counts
    return found


def _bound_state(run: RunFolder) -> dict[str, Any]:
    """The content of sweep.json; empty for a run that is bound to nothing."""
    state = read_state(run)
    return {} if state.get("refused") else state


def _refuse_other_contents(
    run: RunFolder, before: Mapping[str, str], now: Mapping[str, str]
) -> None:
    changed = [name for name in now if before.get(name, now[name]) != now[name]]
    if changed:
        title = f"{run.path}: what this run was started with has changed since."
        lines = [f"  {name}: its content is another one now" for name in changed]
        raise InputError([title, *lines, _HOW_TO_GO_ON])


MODEL = "model "  # prefix of the names of models in `Planner.contents`
