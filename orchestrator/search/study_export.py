"""The study as a database that optuna-dashboard and `optuna.load_study` open.

    optuna-dashboard sqlite:///RUN/study.db

It is a copy for readers, written at the end of each start; the sweep never reads it.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial


def study_database(study: Study, *, name: str, having: str) -> bytes:
    """An SQLite file with one study `name`, of the trials that have the user attribute `having`.

    Each has its parameters, values, intermediate values, state and user attributes; one that has
    not ended, because the sweep was interrupted, is WAITING.
    """
    import optuna

    with tempfile.TemporaryDirectory(prefix="sweep-study-") as folder:
        file = Path(folder) / "study.db"
        storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
        try:
            directions = study.directions
            written = optuna.create_study(storage=storage, study_name=name, directions=directions)
            found = [trial for trial in study.trials if having in trial.user_attrs]
            written.add_trials([_ended_or_waiting(trial) for trial in found])
        finally:
            storage.remove_session()
            storage.engine.dispose()
        return file.read_bytes()


def _ended_or_waiting(trial: FrozenTrial) -> FrozenTrial:
    from optuna.trial import TrialState

    if trial.state.is_finished():
        return trial
    waiting = copy.deepcopy(trial)
    waiting.state = TrialState.WAITING
    waiting.datetime_start = None
    return waiting
