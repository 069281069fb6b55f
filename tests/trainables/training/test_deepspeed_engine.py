"""Sharded checkpoints: DeepSpeed unpickles its shards, so it gets only those of this run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from trainables.storage.atomic_files import digest, unguarded
from trainables.training import checkpoint
from trainables.training.deepspeed_engine import sound, write_config
from trainables.training.process_group import SingleProcess

SHARDS = {"shards/model_states.pt": b"weights", "shards/0_optim_states.pt": b"moments"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A checkpoint of one worker, committed as `ShardedEngine.save` does."""
    folder = tmp_path / "0123456789ab" / "checkpoints"
    return _committed(folder, 40)


def _committed(folder: Path, step: int, *, workers: int = 1) -> Path:
    beside, place = folder / ".beside", checkpoint.place_of(folder, step)
    for name, content in SHARDS.items():
        (beside / name).parent.mkdir(parents=True, exist_ok=True)
        (beside / name).write_bytes(content)
    digests = {name: digest(beside / name) for name in SHARDS}
    state = {"workers": workers, "progress": {"step": step}}
    checkpoint.commit(beside, place, state=state, digests=digests, guard=unguarded)
    return place


def test_what_was_written_is_sound_and_its_progress_can_be_read(place: Path) -> None:
    found = sound(place, SingleProcess())
    assert found is not None and found["step"] == 40
    state = checkpoint.load_latest_state(place.parent)
    assert state is not None and state["progress"] == {"step": 40}


def _altered(place: Path) -> None:
    (place / "shards/0_optim_states.pt").write_bytes(b"Moments")


def _torn(place: Path) -> None:
    (place / "shards/model_states.pt").write_bytes(b"weig")


def _gone(place: Path) -> None:
    (place / "shards/model_states.pt").unlink()


def _added(place: Path) -> None:
    (place / "shards/1_optim_states.pt").write_bytes(b"a pickle that would run")


def _linked(place: Path) -> None:
    (place / "shards/1_optim_states.pt").symlink_to("/etc/hostname")


def _added_beside(place: Path) -> None:
    (place / "latest").write_text("elsewhere")


def _sealed_anew(place: Path) -> None:
    """By someone who changes the digest too, but has no seal for it."""
    state = json.loads((place / "state.json").read_text())
    _altered(place)
    state["files"]["shards/0_optim_states.pt"] = digest(place / "shards/0_optim_states.pt")
    (place / "state.json").write_text(json.dumps(state))


@pytest.mark.parametrize(
    "harm", [_altered, _torn, _gone, _added, _linked, _added_beside, _sealed_anew]
)
def test_what_was_touched_since_is_not_read(harm: Callable[[Path], None], place: Path) -> None:
    harm(place)
    assert sound(place, SingleProcess()) is None
    assert checkpoint.load_latest_state(place.parent) is None


def test_another_trials_checkpoint_is_not_read(place: Path, tmp_path: Path) -> None:
    other = tmp_path / "ba9876543210" / "checkpoints"
    other.mkdir(parents=True)
    place.rename(other / place.name)
    assert sound(other / place.name, SingleProcess()) is None


def test_a_checkpoint_of_another_number_of_workers_is_not_read(tmp_path: Path) -> None:
    place = _committed(tmp_path / "0123456789ab" / "checkpoints", 8, workers=2)
    assert sound(place, SingleProcess()) is None


def test_the_one_before_is_there_where_the_last_was_harmed(place: Path) -> None:
    later = _committed(place.parent, 48)
    _altered(later)
    state = checkpoint.load_latest_state(place.parent)
    assert state is not None and state["progress"] == {"step": 40}
    assert [found.name for found in checkpoint.places(place.parent)] == [later.name, place.name]


def test_what_is_saved_of_a_bfloat16_base_is_loaded_as_the_float32_that_it_is(
    tmp_path: Path,
) -> None:
    from transformers import AutoConfig, LlamaConfig

    config = LlamaConfig(dtype=torch.bfloat16)
    write_config(config, tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).dtype == torch.float32
    assert config.dtype == torch.bfloat16
