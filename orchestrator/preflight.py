"""The preflight of a sweep: asks the simulator's process what would fail in every trial.

It looks at each model and at the whole of the data as each model's tokenizer reads it
(`trainables.preflight`), so that one fault is told once and not by every trial.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from orchestrator.planning.planner import Planner
from orchestrator.planning.simulator import SimulatorClient
from orchestrator.space.constraints import surviving
from orchestrator.space.tree import Range, questions
from trainables.errors import InputError
from trainables.preflight.findings import Findings
from trainables.spec.knobs import task_knobs
from trainables.spec.rows.shot_knobs import SHOT_ROWS, refused_shots
from trainables.spec.trial_spec import TrialSpec
from trainables.storage.atomic_files import write_json

VERSION = 1  # of what is looked at: a new version makes results that were kept void
POLL_SECONDS = 0.1
QUIET_SECONDS = 2.0  # a short wait is not worth a line
SECONDS_BETWEEN_LINES = 15.0
_PACKAGES = ("transformers", "tokenizers")
_DECIDING = (
    "model",
    "quantization",
    "double_quantization",
    "target_modules",
    *task_knobs(),
    "chat_format",
    "sequence_length",
)
_ANY_DTYPE = {"compute_dtype": "float32"}  # no preflight depends on it


def preflight_specs(planner: Planner) -> list[TrialSpec]:
    """Trials that together have each model, quantization, choice of modules, prompt, target and
    sequence_length of the space, of a range of lengths the shortest, and all shots that are refused
    if they do not fit."""
    config, plan = planner.config, replace(planner, device=_ANY_DTYPE, forecaster=None)
    ranges = {question.knob for question in questions(config.space) if isinstance(question, Range)}
    names = [name for name in (*_DECIDING, *SHOT_ROWS) if name not in ranges]
    specs: dict[str, TrialSpec] = {}
    for configuration in surviving(config.space, config.exclude, names):
        spec = plan.spec(configuration)
        decided = {name: spec.knobs.get(name) for name in _DECIDING} | refused_shots(spec.knobs)
        specs.setdefault(_text(decided), spec)
    return list(specs.values())


def preflight(
    planner: Planner,
    simulator: SimulatorClient,
    *,
    cache: Path | None,
    say: Callable[[str], None] = lambda text: None,
) -> Findings | None:
    """What would fail trials of the space; None if the process can't say it.

    A result without faults is kept in the folder `cache`, so that a resumed sweep asks nothing.
    `say` gets each step.
    """
    return _preflight(preflight_specs(planner), simulator, cache, say)


def preflight_lines(planner: Planner, simulator: SimulatorClient) -> Iterator[str]:
    """What a plan says of its models and data. Raises InputError for faults, but not for models
    without weights, for which one can plan."""
    found = preflight(planner, simulator, cache=None)
    if found is None:
        return
    if found.faults:
        raise InputError(found.faults)
    # a plan says by itself which folders have no file of weights
    found.without_weights = [n for n in found.without_weights if planner.models[n].has_weights]
    yield from (f"  note: {text}" for text in [*refusals(found), *notes(found)])


class PreflightGate:
    """A preflight in a thread of its own, which a sweep passes before it launches a trial.

    With `only_warns` its faults are warnings: trials of this sweep have finished already.
    """

    def __init__(
        self,
        planner: Planner,
        simulator: SimulatorClient,
        *,
        cache: Path,
        notify: Callable[[str], None],
        note: Callable[[str], None],
    ) -> None:
        self.only_warns = False
        self._simulator, self._cache, self._notify = simulator, cache, notify
        self._note = note
        self._step = "starting"
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="preflight")
        self._specs = preflight_specs(planner)
        self._found = self._ask()

    def checked(self, check: Callable[[], None]) -> Callable[[], None]:
        """`check`, which also raises InputError as soon as faults are known."""

        def both() -> None:
            check()
            if self._found.done():
                self._refuse(self._found.result())

        return both

    def pass_through(self, check: Callable[[], None]) -> None:
        """Waits for the findings and notes them. Raises InputError for faults.

        Models that had to be fetched from the hub first are looked at now. `check` is called while
        it waits and may raise.
        """
        found = self._wait(check)
        self._refuse(found)
        if found is not None and found.unchecked:
            self._found = self._ask()
            found = self._wait(check)
            self._refuse(found)
        if found is not None:
            faults = list(refusals(found))
            for text in [*(f"warning: {fault}" for fault in faults), *notes(found)]:
                self._note(text)

    def _ask(self) -> Future[Findings | None]:
        asked = (self._specs, self._simulator, self._cache, self._note_step)
        return self._pool.submit(_preflight, *asked)

    def _note_step(self, text: str) -> None:
        self._step = text

    def _wait(self, check: Callable[[], None]) -> Findings | None:
        began = time.monotonic()
        next_line = began + QUIET_SECONDS
        while not wait([self._found], timeout=POLL_SECONDS).done:
            check()
            if time.monotonic() >= next_line:
                seconds = time.monotonic() - began
                self._notify(f"Looking at models and data first ({seconds:.0f} s): {self._step}")
                next_line = time.monotonic() + SECONDS_BETWEEN_LINES
        return self._found.result()

    def _refuse(self, found: Findings | None) -> None:
        faults = [] if found is None else list(refusals(found))
        if faults and not self.only_warns:
            raise InputError(faults)


def refusals(found: Findings) -> Iterator[str]:
    """Why a sweep can't train what was looked at."""
    yield from found.faults
    yield from (
        f"model: {name} has no weights. It can be planned for (--dry-run), and trained once they "
        "are in its folder."
        for name in found.without_weights
    )


def notes(found: Findings) -> Iterator[str]:
    """What is no fault, for the user to know."""
    yield from found.notes
    yield from (
        f"model: {name} is not on this machine yet; it is checked when it is loaded."
        for name in found.unchecked
    )


def _preflight(
    specs: Sequence[TrialSpec],
    simulator: SimulatorClient,
    cache: Path | None,
    say: Callable[[str], None],
) -> Findings | None:
    file = None if cache is None else cache / f"preflight-{_digest(specs)}.json"
    kept = None if file is None else _kept(file)
    if kept is not None:
        return kept
    found = simulator.preflight(specs, say=say)
    if found is not None and file is not None and not any(refusals(found)) and not found.unchecked:
        write_json(file, found.to_json())
    return found


def _kept(file: Path) -> Findings | None:
    try:
        return Findings.from_json(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # missing, or damaged and to be replaced


def _digest(specs: Sequence[TrialSpec]) -> str:
    """Equal for equal content of models and data, read in the same ways by the same packages."""
    read = [[spec.model_source, spec.revision, spec.identity(), spec.knobs] for spec in specs]
    packages = [version(package) for package in _PACKAGES]
    return hashlib.sha256(_text([VERSION, packages, read]).encode()).hexdigest()


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=_plain)


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)
