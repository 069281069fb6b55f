"""A host: it survives its trials, however they end."""

from __future__ import annotations

import shutil
import threading
import time
import weakref
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tiny_trials import BUDGET, EXECUTION, finish_host, make_spec
from trainables.errors import InputError
from trainables.resources import out_of_memory as out_of_memory_module
from trainables.resources.gpu_overhead import CUDA_CONTEXT_BYTES
from trainables.resources.gpu_share import share_fraction
from trainables.spec.events import Event
from trainables.spec.trial_spec import Budget, TrialSpec
from trainables.storage.trial_folder import TrialFolder
from trainables.training.loop import TrainingFailedError
from trainables.workers.heartbeat import Watchdog
from trainables.workers.host import HostProcess
from trainables.workers.outcomes import Failure, Interruption

LONG = Budget(train_examples=4000, eval_examples=3, rungs=(1.0,))
QUIET = replace(EXECUTION, progress_seconds=1e9)


@pytest.fixture(scope="module")
def host() -> HostProcess:
    return HostProcess({"git_commit": "0123"})


def prepared(spec: TrialSpec, folder: Path) -> TrialFolder:
    place = TrialFolder(folder / spec.trial_id)
    place.write_spec(spec, {})
    return place


def running(host: HostProcess, events: Generator[Event, None, None], folder: Path) -> None:
    """A trial whose events are these runs on the host."""
    host._folder = TrialFolder(folder)
    host._watchdog = Watchdog(host._folder, interrupted=host._interrupted)
    host._running = events


def test_trials_of_one_base_load_it_once(
    host: HostProcess, tiny_llama: Path, tmp_path: Path
) -> None:
    before = host.loads
    for rank in (2, 4):
        place = prepared(make_spec(tiny_llama, rank=rank), tmp_path)
        assert host.start(str(place.path)) == []
        finish_host(host)
        summary = place.summary()
        assert summary is not None and summary["provenance"]["git_commit"] == "0123"
        assert "rung step" in place.log_file.read_text()
    assert host.loads - before <= 1


def test_a_trial_that_is_closed_goes_on_from_its_checkpoint(
    host: HostProcess, tiny_llama: Path, tmp_path: Path
) -> None:
    place = prepared(make_spec(tiny_llama, rank=3), tmp_path)
    assert host.start(str(place.path)) == []
    first = host.next()
    assert isinstance(first, Event)
    host.close()
    history = host.start(str(place.path))
    assert history == [first]
    rest = finish_host(host)
    assert rest[0].step > first.step


def test_without_a_trial_there_is_nothing_next(host: HostProcess) -> None:
    host.close()
    assert host.next() == Failure("no trial is running on this host")


def test_a_trial_that_can_not_start_is_a_failure_and_its_log_says_why(
    host: HostProcess, tiny_llama: Path, tmp_path: Path
) -> None:
    place = prepared(make_spec(tiny_llama, target_modules=["no_such_module"]), tmp_path)
    started = host.start(str(place.path))
    failure = started if isinstance(started, Failure) else host.next()
    assert isinstance(failure, Failure)
    assert "no_such_module" in failure.reason
    assert not failure.infeasible
    assert "Traceback" in place.log_file.read_text()
    healthy = prepared(make_spec(tiny_llama, rank=2), tmp_path)
    assert host.start(str(healthy.path)) == []
    finish_host(host)


def test_a_model_that_changed_after_the_plan_is_not_trained(
    host: HostProcess, tiny_llama: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_llama, tmp_path / "model")
    place = prepared(make_spec(model), tmp_path)
    (model / "config.json").write_text((model / "config.json").read_text() + " ")
    failure = host.start(str(place.path))
    assert isinstance(failure, Failure)
    assert failure.reason.startswith(f"InputError: model: the model folder {model} has changed")


def test_a_trial_that_broke_off_leaves_nothing_in_memory(
    host: HostProcess, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def free_and_look() -> None:
        free_memory()
        left.append(model())

    left: list[object] = []
    free_memory = out_of_memory_module.free_memory
    budget = replace(BUDGET, rungs=(1.0,))
    spec = make_spec(tiny_llama, budget=budget, learning_rate=1e30, optimizer="sgd", warmup=0.0)
    host.start(str(prepared(spec, tmp_path).path))
    model = weakref.ref(host._base.model)
    monkeypatch.setattr(out_of_memory_module, "free_memory", free_and_look)
    while not isinstance(host.next(), Failure):
        assert model() is not None
    assert left == [None]  # already when a GPU's memory is given back


def test_a_base_that_no_trial_wants_leaves_nothing_in_memory(
    host: HostProcess, tiny_llama: Path, tmp_path: Path
) -> None:
    place = prepared(make_spec(tiny_llama, method="untrained"), tmp_path)
    assert host.start(str(place.path)) == []
    finish_host(host)
    model = weakref.ref(host._base.model)
    other = prepared(make_spec(tiny_llama, method="untrained", quantization="nf4"), tmp_path)
    assert host.start(str(other.path)) == []
    assert model() is None
    host.close()


def test_a_trial_that_is_interrupted_leaves_with_a_checkpoint_of_its_last_step(
    tiny_llama: Path, tmp_path: Path
) -> None:
    own = HostProcess({})
    place = prepared(make_spec(tiny_llama, rank=3), tmp_path)
    own.start(str(place.path))
    first = own.next()
    assert isinstance(first, Event)
    own.interrupt()
    assert (place.checkpoints_folder / f"step-{first.step:08d}").is_dir()
    assert own.next() == Interruption()
    assert own.start(str(place.path)) == Interruption()
    other = HostProcess({})
    assert other.start(str(place.path)) == [first]
    finish_host(other)


def test_an_interruption_waits_for_the_current_step_and_no_longer(
    tiny_llama: Path, tmp_path: Path
) -> None:
    """The next event would be a rung at the end of the budget, many steps away."""
    own = HostProcess({})
    spec = make_spec(tiny_llama, budget=LONG, execution=QUIET)
    place = prepared(spec, tmp_path)
    own.start(str(place.path))
    left: list[object] = []
    training = threading.Thread(target=lambda: left.append(own.next()))
    training.start()
    _until(own._stepping.locked)
    time.sleep(0.5)
    own.interrupt()
    (checkpoint,) = place.checkpoints_folder.glob("step-*")
    training.join(timeout=10)
    assert left == [Interruption()]
    assert 0 < int(checkpoint.name[5:]) < 200


def test_a_trial_that_has_ended_for_the_driver_leaves_nothing_but_its_words(
    host: HostProcess, tiny_llama: Path, tmp_path: Path
) -> None:
    execution = replace(EXECUTION, checkpoint_seconds=0.0)
    place = prepared(make_spec(tiny_llama, rank=3, execution=execution), tmp_path)
    host.start(str(place.path))
    while not (place.predictions_file().exists() and list(place.checkpoints_folder.glob("*"))):
        assert isinstance(host.next(), Event)
    host.close(discard=True)
    kept = {file.name for file in place.path.iterdir()}
    assert kept <= {"spec.json", "owner.json", "predictions.jsonl", "progress.json", "worker.log"}


def test_scoring_is_left_alone_by_an_interruption(tiny_llama: Path, tmp_path: Path) -> None:
    own = HostProcess({})
    place = prepared(make_spec(tiny_llama, rank=2), tmp_path)
    own.start(str(place.path))
    finish_host(own)
    own.interrupt()
    assert isinstance(own.score_report(str(place.path)), dict)


def test_a_folder_without_a_spec_is_a_failure(host: HostProcess, tmp_path: Path) -> None:
    assert isinstance(host.start(str(tmp_path / "absent")), Failure)


def test_memory_that_does_not_suffice_is_infeasible(host: HostProcess, tmp_path: Path) -> None:
    def out_of_memory() -> Generator[Event, None, None]:
        raise MemoryError("not enough")
        yield

    running(host, out_of_memory(), tmp_path / "trial")
    assert host.next() == Failure("MemoryError: not enough", infeasible=True)


@pytest.mark.parametrize(
    ("error", "may_repeat"),
    [
        (IndexError("index out of range in self"), True),
        (InputError("model: no such file"), True),
        (TrainingFailedError("loss is nan"), False),
        (ConnectionResetError("by its peer"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_failure_says_whether_other_trials_may_meet_it(
    host: HostProcess, tmp_path: Path, error: Exception, may_repeat: bool
) -> None:
    def fails() -> Generator[Event, None, None]:
        raise error
        yield

    running(host, fails(), tmp_path / "trial")
    failure = host.next()
    assert isinstance(failure, Failure) and failure.may_repeat == may_repeat


def test_a_trial_that_can_not_save_does_not_keep_the_next_from_starting(
    host: HostProcess, tiny_llama: Path, tmp_path: Path
) -> None:
    def disk_full() -> Generator[Event, None, None]:
        try:
            yield Event("progress", 1, 4, {})
        finally:
            raise OSError("no space left on device")

    running(host, disk_full(), tmp_path / "trial")
    host.next()
    healthy = prepared(make_spec(tiny_llama, rank=2), tmp_path)
    assert host.start(str(healthy.path)) == []
    assert "no space left" in (tmp_path / "trial" / "worker.log").read_text()
    host.close()


def test_scoring_a_trial_that_has_no_adapter_is_a_failure(
    host: HostProcess, tiny_llama: Path, tmp_path: Path
) -> None:
    place = prepared(make_spec(tiny_llama, rank=2), tmp_path)
    assert isinstance(host.score_report(str(place.path)), Failure)
    assert place.report_score() is None


def _until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_does_not_fit_a_share_is_told_with_the_share(
    host: HostProcess, tmp_path: Path
) -> None:
    def too_much() -> Generator[Event, None, None]:
        raise MemoryError("no more")
        yield

    for share, reason in ((3 << 30, "its share of the device, 3.00 GiB (MemoryError"), (None, "")):
        host.set_share(share, device_shared=True)
        running(host, too_much(), tmp_path)
        failure = host.next()
        assert isinstance(failure, Failure)
        assert failure.infeasible
        assert failure.share_bytes == share
        assert reason in failure.reason
    host.set_share(None, device_shared=False)


def test_a_host_says_what_it_holds_and_can_give_it_up(
    host: HostProcess, tiny_llama: Path, tmp_path: Path
) -> None:
    place = prepared(make_spec(tiny_llama, rank=3), tmp_path)
    host.start(str(place.path))
    assert host._base is not None
    weight_bytes = host._base.weight_bytes
    host.forget_base()
    assert host.held_bytes() == weight_bytes  # a trial runs on it
    assert host.close() == weight_bytes > 0
    host.forget_base()
    assert host.held_bytes() == 0


def test_a_trial_is_told_whether_it_shares_its_device(
    host: HostProcess, tiny_llama: Path, tmp_path: Path
) -> None:
    for shared in (True, False):
        host.set_share(None, device_shared=shared)
        host._folder = prepared(make_spec(tiny_llama, rank=3), tmp_path)
        assert host._trial().device_shared is shared


@pytest.mark.parametrize(
    ("share_bytes", "fraction"),
    [(None, 1.0), (CUDA_CONTEXT_BYTES + (8 << 30), 0.5), (1, 0.0), (99 << 30, 1.0)],
)
def test_a_share_is_a_fraction_for_the_allocator_without_the_context(
    share_bytes: int | None, fraction: float
) -> None:
    assert share_fraction(share_bytes, 16 << 30) == fraction
