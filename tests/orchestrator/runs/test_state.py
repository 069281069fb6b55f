"""The state of a run: one space and one content per name, one id per sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.reader import from_mapping
from orchestrator.config.sections import SweepConfig
from orchestrator.runs.state import (
    has_ended,
    make_folder,
    pinned_revisions,
    read_state,
    remember,
    settle,
    unbind,
)
from tests.orchestrator import tiny_sweep
from tests.orchestrator.run_builder import add_trial
from trainables.errors import InputError
from trainables.storage.run_folder import RunFolder

CONTENTS = {"model tiny": "a1", "model owner/name": "owner/name@c0ffee", "data train": "d1"}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "runs" / "tiny")
    make_folder(made)
    return made


def config(**sections: Any) -> SweepConfig:
    return from_mapping(tiny_sweep.mapping(**sections))


def test_a_new_folder_is_empty(run: RunFolder) -> None:
    assert [*run.path.iterdir()] == []


def test_a_sweep_keeps_its_id(run: RunFolder) -> None:
    first = settle(run, config(), CONTENTS)
    assert settle(run, config(), CONTENTS) == first
    other = RunFolder(run.path.parent / "other")
    assert settle(other, config(), CONTENTS) != first


def test_more_trials_and_other_resources_are_no_other_space(run: RunFolder) -> None:
    first = settle(run, config(), CONTENTS)
    grown = config(search={"algorithm": "random", "trials": 40}, resources={"concurrent_trials": 1})
    assert settle(run, grown, CONTENTS) == first
    assert "trials: 40" in run.sweep_file.read_text()


def test_another_space_is_refused_and_leaves_all_as_it_was(run: RunFolder) -> None:
    settle(run, config(), CONTENTS)
    before = run.sweep_file.read_bytes(), run.state_file.read_bytes()
    changed = config(budget={"train_examples": 64, "eval_examples": 4, "seed": 3})
    with pytest.raises(InputError) as refused:
        settle(run, changed, CONTENTS)
    told = "\n".join(refused.value.messages)
    assert "budget.train_examples: was 32, now 64" in told
    assert "--name" in told
    assert (run.sweep_file.read_bytes(), run.state_file.read_bytes()) == before


def test_what_a_session_remembers_survives_the_next(run: RunFolder) -> None:
    sweep_id = settle(run, config(), CONTENTS)
    remember(run, trials_done=3)
    settle(run, config(), CONTENTS)
    assert read_state(run) == {"sweep_id": sweep_id, "contents": CONTENTS, "trials_done": 3}


def test_other_weights_or_data_under_the_same_name_are_refused(run: RunFolder) -> None:
    settle(run, config(), CONTENTS)
    with pytest.raises(InputError, match="model tiny: its content is another one now"):
        settle(run, config(), {**CONTENTS, "model tiny": "b2"})


def test_what_was_not_there_before_is_no_change(run: RunFolder) -> None:
    settle(run, config(), CONTENTS)
    settle(run, config(), {"prompt short": "p1"})
    assert read_state(run)["contents"] == {**CONTENTS, "prompt short": "p1"}


def test_the_revision_of_a_hub_model_is_kept(run: RunFolder) -> None:
    assert pinned_revisions(run) == {}
    settle(run, config(), CONTENTS)
    assert pinned_revisions(run) == {"owner/name": "c0ffee"}


def test_a_sweep_has_ended_when_it_has_as_many_trials_as_are_asked_for(run: RunFolder) -> None:
    asked = config(search={"algorithm": "random", "trials": 4})
    for rank in (1, 2, 4, 8):
        add_trial(run, right=[1, 0], rank=rank)
    assert not has_ended(run, asked)
    remember(run, trials_done=3, exhausted=False)
    assert not has_ended(run, asked)
    remember(run, trials_done=4)
    assert has_ended(run, asked)
    remember(run, trials_done=1, exhausted=True)
    assert has_ended(run, asked)


def test_a_sweep_that_lost_something_since_its_end_has_not_ended(run: RunFolder) -> None:
    asked = config(search={"algorithm": "random", "trials": 2})
    add_trial(run, state="infeasible", rank=16)
    first = add_trial(run, right=[1, 0], report_right=[1, 0], rank=1)
    second = add_trial(run, right=[1, 0], rank=2)
    remember(run, trials_done=2, exhausted=False)
    assert has_ended(run, asked)
    files = [first.predictions_file("report"), first.report_score_file, first.predictions_file(),
             first.summary_file, second.spec_file]  # fmt: skip
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content[:-3])
        assert not has_ended(run, asked), file.name
        file.write_bytes(content)
    second.spec_file.unlink()
    assert not has_ended(run, asked)


def test_a_damaged_state_is_said_and_not_trusted(run: RunFolder) -> None:
    run.state_file.write_text('{"sweep_id": "a')
    with pytest.raises(InputError, match="damaged") as refused:
        read_state(run)
    for held in ("id", "hours", "ended", "models and data"):
        assert held in str(refused.value)


def test_a_disk_that_takes_an_empty_file_only_is_seen_as_full(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(file: Path, content: bytes) -> int:
        file.touch()
        if content:
            raise OSError(28, "No space left on device")
        return 0

    monkeypatch.setattr(Path, "write_bytes", write)
    with pytest.raises(InputError, match=r"can't be written \(No space left on device\)"):
        make_folder(run)
    assert [*run.path.iterdir()] == []


def test_a_run_that_was_refused_before_any_trial_takes_another_space_and_other_contents(
    run: RunFolder,
) -> None:
    first = settle(run, config(), CONTENTS)
    unbind(run)
    assert pinned_revisions(run) == {}
    changed = config(budget={"train_examples": 64, "eval_examples": 4, "seed": 3})
    assert settle(run, changed, {**CONTENTS, "model tiny": "b2"}) != first
    with pytest.raises(InputError, match="another space"):
        settle(run, config(), CONTENTS)
