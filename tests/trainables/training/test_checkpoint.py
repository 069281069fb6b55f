"""Checkpoints: complete or absent, and never a pickle."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
import torch

from trainables.storage.errors import StorageError
from trainables.training.checkpoint import Checkpoint, load_latest, load_latest_state, save


def test_what_was_saved_is_loaded_to_the_bit(tmp_path: Path) -> None:
    made = _checkpoint(step=3)
    save(tmp_path, made)
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert (loaded.step, loaded.state) == (3, made.state)
    assert all(torch.equal(loaded.tensors[name], made.tensors[name]) for name in made.tensors)
    assert load_latest_state(tmp_path) == made.state


def test_the_last_two_are_kept_and_the_newest_is_loaded(tmp_path: Path) -> None:
    for step in (9, 10, 11):
        save(tmp_path, _checkpoint(step=step))
    assert [place.name for place in sorted(tmp_path.iterdir())] == [
        "step-00000010",
        "step-00000011",
    ]
    assert _step(tmp_path) == 11


@pytest.mark.parametrize("file", ["state.json", "tensors.safetensors"])
@pytest.mark.parametrize("content", [b"", b"torn", None])
def test_a_torn_checkpoint_falls_back_to_the_one_before(
    file: str, content: bytes | None, tmp_path: Path
) -> None:
    save(tmp_path, _checkpoint(step=1))
    torn = save(tmp_path, _checkpoint(step=2)) / file
    torn.unlink() if content is None else torn.write_bytes(content)
    assert _step(tmp_path) == 1


def test_one_flipped_bit_of_the_weights_is_noticed(tmp_path: Path) -> None:
    save(tmp_path, _checkpoint(step=1))
    weights = save(tmp_path, _checkpoint(step=2)) / "tensors.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert _step(tmp_path) == 1


def test_another_digit_in_the_state_is_noticed(tmp_path: Path) -> None:
    save(tmp_path, _checkpoint(step=1))
    state = save(tmp_path, _checkpoint(step=2)) / "state.json"
    state.write_text(state.read_text().replace('"units": 16', '"units": 17'))
    assert _step(tmp_path) == 1
    assert load_latest_state(tmp_path) == {"units": 8, "history": []}


def test_state_and_tensors_are_those_of_one_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, _checkpoint(step=1))
    (save(tmp_path, _checkpoint(step=2)) / "tensors.safetensors").write_bytes(b"torn")
    assert load_latest_state(tmp_path) == {"units": 8, "history": []}


def test_a_checkpoint_of_another_trial_or_step_is_none(tmp_path: Path) -> None:
    one, two = (tmp_path / name / "checkpoints" for name in ("one", "two"))
    made = save(one, _checkpoint(step=3))
    shutil.copytree(made, two / made.name)
    assert load_latest(two) is None
    made.rename(one / "step-00000009")
    assert load_latest(one) is None


def test_damaged_ones_of_later_steps_do_not_push_out_a_sound_one(tmp_path: Path) -> None:
    for step in (4, 8):
        (save(tmp_path, _checkpoint(step=step)) / "state.json").write_text("torn")
    save(tmp_path, _checkpoint(step=2))
    assert _step(tmp_path) == 2


def test_a_save_that_fails_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, _checkpoint(step=1))
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", _no_space)
        with pytest.raises(StorageError, match="No space left"):
            save(tmp_path, _checkpoint(step=2))
    assert [place.name for place in tmp_path.iterdir()] == ["step-00000001"]
    assert _step(tmp_path) == 1


def test_what_was_only_half_moved_into_place_does_not_count(tmp_path: Path) -> None:
    (tmp_path / ".step-00000005.77.part").mkdir()
    assert load_latest(tmp_path) is None
    save(tmp_path, _checkpoint(step=4))
    assert _step(tmp_path) == 4


def test_where_there_is_none_nothing_is_loaded(tmp_path: Path) -> None:
    assert load_latest(tmp_path / "nowhere") is None
    assert load_latest_state(tmp_path / "nowhere") is None


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, _checkpoint(step=1))
    save(tmp_path, Checkpoint(step=1, state={"note": "again"}, tensors={}))
    assert load_latest_state(tmp_path) == {"note": "again"}


def test_a_checkpoint_holds_safetensors_and_json_only(tmp_path: Path) -> None:
    place = save(tmp_path, _checkpoint(step=1))
    assert {file.suffix for file in place.iterdir()} == {".safetensors", ".json"}


def _checkpoint(*, step: int) -> Checkpoint:
    shared = torch.arange(6.0)
    tensors = {
        "weight": torch.full((2, 3), float(step)),
        "rng": torch.get_rng_state(),
        "shared": shared,
        "shared_part": shared[2:],
        "step": torch.tensor(3.0),
    }
    return Checkpoint(step=step, state={"units": 8 * step, "history": []}, tensors=tensors)


def _no_space(handle: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def _step(folder: Path) -> int | None:
    loaded = load_latest(folder)
    return None if loaded is None else loaded.step
