"""Random damage to the files of a run folder: nothing crashes, and no damaged content is used.

500 cases for every ten CHAOS_ROUNDS are generated from CHAOS_SEED (a new one each time unless set;
it is printed). Each damages one file, or one checkpoint, of a run with really trained trials, reads
it by everything that reads a run, and restores it.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.reporting.builder import build_report
from orchestrator.runs.ledger import Ledger, TrialRecord
from orchestrator.runs.predictions import read_predictions
from orchestrator.runs.results import damage, read_trials
from orchestrator.runs.state import has_ended, read_state
from orchestrator.runs.trial_result import Split, TrialResult
from orchestrator.status import read_status, status_report
from orchestrator.tracking.sync import end_sweep, mirror
from orchestrator.tracking.tracker import RunEnd, RunStart, SweepEnd, SweepIdentity
from tests.orchestrator import tiny_sweep
from tests.tiny_models import make_llama
from tests.tiny_trials import make_spec, make_trial
from trainables.errors import InputError
from trainables.spec.events import Event
from trainables.spec.states import FINISHED, INTERRUPTED
from trainables.storage.run_folder import RunFolder
from trainables.storage.trial_folder import TrialFolder
from trainables.training.checkpoint import load_latest, load_latest_state
from trainables.training.full_evaluation import score_report
from trainables.training.loop import train
from trainables.training.progress import resumed_history
from trainables.training.trial import TrialContext

pytestmark = pytest.mark.slow

SEED = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(10**6))
ROUNDS = max(1, int(os.environ.get("CHAOS_ROUNDS", "10")) // 10)
CASES = 500
SLICES = 10  # a slice is one test, so that a failure names a part of the cases

SPLITS: tuple[Split, ...] = ("selection", "report")

Content = dict[str, bytes]


@dataclass
class Recorder:
    """A tracker that takes all it is given."""

    ended: list[RunEnd] = field(default_factory=list)
    adapters: dict[str, Path] = field(default_factory=dict)

    def open(self, sweep: SweepIdentity) -> None: ...

    def start(self, start: RunStart) -> None: ...

    def log(self, trial_id: str, events: Sequence[Event]) -> None: ...

    def finish(self, end: RunEnd) -> None:
        self.ended.append(end)

    def close(self, end: SweepEnd) -> None:
        self.adapters.update(end.adapters)


@dataclass
class Original:
    """The run as it was written: its files' bytes and what they say."""

    run: RunFolder
    content: Content
    results: dict[str, TrialResult]
    records: dict[str, TrialRecord]
    predictions: dict[tuple[str, str], list[Any]]
    checkpoints: dict[str, list[Any]]
    progress: dict[str, Any]  # the metrics that a trial that has not ended shows
    interrupted: list[str]

    def restore(self) -> None:
        """Puts back what is another now; most of it is as it was."""
        place = self.run.path
        for name in _content(place).keys() - self.content.keys():
            (place / name).unlink()
        for name, content in self.content.items():
            file = place / name
            if not file.is_file() or file.read_bytes() != content:
                stamp = self._stamps[name]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
                os.utime(file, ns=(stamp, stamp))

    def __post_init__(self) -> None:
        files = {name: self.run.path / name for name in self.content}
        self._stamps = {name: file.stat().st_mtime_ns for name, file in files.items()}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def made(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Original:
    print(f"CHAOS_SEED={SEED}")
    run = RunFolder(tmp_path_factory.mktemp("runs") / "tiny")
    places = run.path / "trials"
    for seed in (1, 2):
        finished = make_trial(make_spec(model, seed=seed), places)
        list(train(finished))
        score_report(finished)
    list(train(make_trial(make_spec(model, method="untrained"), places)))
    undone = [_leave(make_trial(make_spec(model, seed=seed), places)) for seed in (3, 4)]
    stopped = make_trial(make_spec(model, seed=5), places)
    _leave(stopped)
    ledger = Ledger(run)
    record = ledger.records[stopped.spec.trial_id]
    record.history = resumed_history(stopped.folder)
    ledger.stopped(record)
    tiny_sweep.write_space(run.sweep_file, tiny_sweep.mapping())
    run.write_state({"sweep_id": "0123456789ab", "trials_done": 3, "exhausted": False})
    return _original(run, undone)


@pytest.mark.parametrize("part", range(SLICES))
def test_whatever_is_damaged_nothing_crashes_and_nothing_wrong_is_trusted(
    made: Original, part: int
) -> None:
    for case in range(part, CASES * ROUNDS, SLICES):
        rng = random.Random(f"{SEED}/{case}")
        try:
            what = _damage(made, rng)
            is_shown = rng.random() < 0.25  # a report takes longer than all the rest
            _check(made, f"CHAOS_SEED={SEED}, case {case}: {what}", is_shown=is_shown)
        finally:
            made.restore()


@pytest.mark.parametrize("case", range(4 * ROUNDS))
def test_a_trial_with_a_damaged_checkpoint_ends_as_if_it_were_whole(
    made: Original, model: Path, tmp_path: Path, case: int
) -> None:
    rng = random.Random(f"{SEED}/resumed/{case}")
    trial_id = made.interrupted[0]
    shutil.copytree(made.run.trial(trial_id).path, tmp_path / trial_id)
    folder = TrialFolder(tmp_path / trial_id)
    places = sorted(folder.checkpoints_folder.iterdir(), reverse=True)
    for place in places[: rng.randrange(3)]:
        file = place / rng.choice(["state.json", "tensors.safetensors"])
        file.write_bytes(_DAMAGES[rng.choice([*_DAMAGES])](file.read_bytes(), rng))
    for file in (folder.predictions_file(), folder.progress_file):
        if file.exists() and rng.random() < 0.5:
            file.write_bytes(_DAMAGES[rng.choice([*_DAMAGES])](file.read_bytes(), rng))
    trial = make_trial(make_spec(model, seed=3), tmp_path)
    assert trial.folder == folder
    past = resumed_history(folder)
    whole = make_trial(make_spec(model, seed=3), tmp_path / "whole")
    expected = list(train(whole))
    told = [*past, *train(trial)]
    assert [(e.kind, e.step) for e in told] == [(e.kind, e.step) for e in expected]
    assert told[-1].metrics["eval_loss"] == pytest.approx(
        expected[-1].metrics["eval_loss"], abs=1e-6
    )
    assert folder.predictions_file().read_bytes() == whole.folder.predictions_file().read_bytes()


def _leave(trial: TrialContext) -> str:
    """Runs a trial beyond its second rung and stops it there: two checkpoints remain."""
    running = train(trial)
    while (event := next(running)).fraction < 0.5 or event.kind != "rung":
        trial.folder.write_progress(event.to_json() | {"state": "running", "updated": 0.0})
    running.close()
    return trial.spec.trial_id


def _original(run: RunFolder, undone: list[str]) -> Original:
    results = {item.trial_id: item for item in read_trials(run)}
    assert not any(item.warnings for item in results.values())
    found = Original(
        run=run,
        content=_content(run.path),
        results=results,
        records=Ledger(run).records,
        predictions={
            (folder.trial_id, split): read_predictions(folder, split)[0]
            for folder in run.trials()
            for split in SPLITS
        },
        checkpoints={folder.trial_id: _checkpoints(folder) for folder in run.trials()},
        progress={
            folder.trial_id: (folder.progress() or {}).get("metrics") for folder in run.trials()
        },
        interrupted=undone,
    )
    assert [len(found.checkpoints[trial_id]) for trial_id in undone] == [2, 2]
    assert sum(item.finished for item in results.values()) == 3
    return found


def _content(folder: Path) -> Content:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def _checkpoints(folder: TrialFolder) -> list[Any]:
    """All of the folder's, the newest first."""
    places = sorted(folder.checkpoints_folder.glob("step-*"), reverse=True)
    found = []
    for place in places:
        hidden = [other for other in places if other.name > place.name]
        for other in hidden:
            other.rename(other.with_name(f"hidden-{other.name}"))
        found.append(load_latest(folder.checkpoints_folder))
        for other in hidden:
            other.with_name(f"hidden-{other.name}").rename(other)
    return found


def _damage(made: Original, rng: random.Random) -> str:
    """Damages one file or swaps one with another trial's, at random; says what it did."""
    names = [*made.content]
    name = rng.choice(names)
    file = made.run.path / name
    kind = rng.choice([*_DAMAGES, "missing", "swapped", "swapped checkpoint"])
    if kind == "missing":
        file.unlink()
    elif kind == "swapped":
        others = [other for other in names if Path(other).name == file.name and other != name]
        other = rng.choice(others or names)
        file.write_bytes(made.content[other])
        name = f"{name} by {other}"
    elif kind == "swapped checkpoint":
        one, two = (made.run.trial(trial_id) for trial_id in made.interrupted)
        shutil.rmtree(one.checkpoints_folder)
        shutil.copytree(two.checkpoints_folder, one.checkpoints_folder)
    else:
        file.write_bytes(_DAMAGES[kind](file.read_bytes(), rng))
    return f"{name}: {kind}"


def _flipped(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 8])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _another_digit(content: bytes, rng: random.Random) -> bytes:
    """What looks right and is not: one digit is another."""
    places = [place for place, byte in enumerate(content) if chr(byte).isdigit()]
    changed = bytearray(content)
    place = rng.choice(places)
    changed[place] = rng.choice([d for d in b"0123456789" if d != changed[place]])
    return bytes(changed)


def _lines_lost(content: bytes, rng: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    del lines[rng.randrange(len(lines))]
    return b"".join(lines)


_DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "truncated": lambda content, rng: content[: rng.randrange(len(content))],
    "flipped": _flipped,
    "another digit": _another_digit,
    "zeroed tail": lambda content, rng: (
        content[: (at := rng.randrange(len(content)))] + bytes(len(content) - at)
    ),
    "garbage": lambda content, rng: rng.randbytes(rng.choice([1, 40, len(content)])),
    "garbage behind": lambda content, rng: content + rng.randbytes(9),
    "emptied": lambda content, rng: b"",
    "written twice": lambda content, rng: content + content,
    "a line lost": _lines_lost,
    "deep brackets": lambda content, rng: b"[" * 100_000,
    "a huge number": lambda content, rng: b'{"state": ' + b"9" * 6000 + b"}",
}


def _check(made: Original, what: str, *, is_shown: bool) -> None:
    """Everything that reads a run folder reads this one: before a driver's start and after."""
    try:
        _check_readers(made)
        if is_shown:
            status_report(read_status(made.run))
            build_report(made.run).markdown()
            _check_adapters(made)
        if _can_start(made):
            _check_ledger(made)
            _check_readers(made)
            _check_mirror(made)
    except Exception as error:
        raise AssertionError(what) from error


def _check_readers(made: Original) -> None:
    run = made.run
    for item in read_trials(run):
        _check_result(made, item)
    for folder in run.trials():
        _check_checkpoints(made, folder)


def _check_mirror(made: Original) -> None:
    """A tracker is told of results that were written, and of no others."""
    recorder = Recorder()
    mirror(made.run, recorder, is_driven=False)
    for end in recorder.ended:
        if end.state == FINISHED:
            assert end.metrics.items() >= made.results[end.trial_id].metrics.items()


def _check_adapters(made: Original) -> None:
    """One that is not as it was written is warned of, and goes to no tracker."""
    recorder = Recorder()
    end_sweep(made.run, recorder, state="finished")
    warned = damage(made.run)
    for name, content in made.content.items():
        file = made.run.path / name
        folder = TrialFolder(file.parent.parent)
        if file.parent.name != "adapter" or not folder.done:
            continue
        if not file.is_file() or file.read_bytes() != content:
            assert folder.trial_id not in recorder.adapters
            assert any(str(file) in warning for warning in warned)


def _check_result(made: Original, item: TrialResult) -> None:
    """A result is the one that was written, or none."""
    original = made.results[item.trial_id]
    if item.state in (FINISHED, "stopped"):
        assert (item.state, item.metrics, item.history, item.role) == (
            original.state,
            original.metrics,
            original.history,
            original.role,
        )
    else:
        assert item.state == INTERRUPTED
        assert item.metrics in ({}, made.progress.get(item.trial_id))
    assert item.report_metrics in ({}, original.report_metrics)
    if not item.finished:
        return
    for split in SPLITS:
        rows, warnings = read_predictions(item.folder, split)
        if item.report_metrics or split == "selection":
            assert rows == made.predictions[item.trial_id, split] or (not rows and warnings)
        else:
            assert not rows
        assert bool(warnings) <= bool(item.warnings), "a warning that the report does not show"


def _check_checkpoints(made: Original, folder: TrialFolder) -> None:
    loaded = load_latest(folder.checkpoints_folder)
    state = load_latest_state(folder.checkpoints_folder)
    if loaded is None:
        assert state is None
        return
    assert state == loaded.state
    before = [known for known in made.checkpoints[folder.trial_id] if known.step == loaded.step]
    assert len(before) == 1 and before[0].state == loaded.state
    same = (torch.equal(before[0].tensors[name], loaded.tensors[name]) for name in loaded.tensors)
    assert before[0].tensors.keys() == loaded.tensors.keys() and all(same)


def _can_start(made: Original) -> bool:
    """Whether a driver starts on it; one that refuses to says that something is damaged."""
    try:
        read_state(made.run)
    except InputError as error:
        assert "damaged" in str(error)
        return False
    has_ended(made.run, tiny_sweep.config())
    return True


def _check_ledger(made: Original) -> None:
    """A record is the one that was written, or its trial begins anew, or is none; and that is said
    unless its summary is simply gone."""
    ledger = Ledger(made.run)
    for record in ledger:
        original = made.records[record.trial_id]
        assert (record.spec, record.suggestion) == (original.spec, original.suggestion)
        found = (record.state, record.reason, record.history)
        if found != (original.state, original.reason, original.history):
            assert found == (INTERRUPTED, "", []) and not record.folder.done
            gone = not [*record.folder.path.glob("summary.json*")]
            assert gone or any(record.trial_id in warning for warning in ledger.warnings)
    for trial_id in made.records.keys() - ledger.records.keys():
        assert any(trial_id in warning for warning in ledger.warnings)
