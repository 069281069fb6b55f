"""A warm host: what a second trial does not repeat, and that the first one left no trace."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Int8Params, Linear8bitLt, Params4bit
from transformers import PreTrainedTokenizerBase

from tests.tiny_trials import make_spec
from trainables.data.trial_data import DATA_KEPT, load_data
from trainables.models.base import Base, load_base
from trainables.models.tensors import stored_tensors
from trainables.spec.events import Event
from trainables.spec.quantization import QUANTIZATIONS
from trainables.spec.trial_spec import TrialSpec
from trainables.storage.trial_folder import TrialFolder
from trainables.workers.host import HostProcess
from trainables.workers.outcomes import Failure

REPOSITORY = Path(__file__).resolve().parent.parent.parent.parent
WORST: dict[str, Any] = {"gradient_checkpointing": True, "dropout": 0.1}
DIVERGES: dict[str, Any] = {"learning_rate": 1e30, "optimizer": "sgd", "warmup": 0.0}


@dataclass
class Counts:
    """What was done since the last `taken`."""

    host: HostProcess
    quantized: int = 0
    tokenized: int = 0
    _loads: int = 0

    def taken(self) -> dict[str, int]:
        now = {
            "loads": self.host.loads - self._loads,
            "quantized": self.quantized,
            "tokenized": self.tokenized,
        }
        self.quantized = self.tokenized = 0
        self._loads = self.host.loads
        return now


NOTHING = {"loads": 0, "quantized": 0, "tokenized": 0}


@pytest.fixture
def host() -> HostProcess:
    return HostProcess({})


@pytest.fixture
def counts(host: HostProcess, monkeypatch: pytest.MonkeyPatch) -> Counts:
    """Counts loads, weights that are quantized and calls of a tokenizer; all of them happen."""
    made = Counts(host)

    def counted(owner: type, method: str, counter: str) -> None:
        real = getattr(owner, method)

        def call(*given: Any, **named: Any) -> Any:
            setattr(made, counter, getattr(made, counter) + 1)
            return real(*given, **named)

        monkeypatch.setattr(owner, method, call)

    counted(Int8Params, "_quantize", "quantized")
    counted(Params4bit, "_quantize", "quantized")
    counted(PreTrainedTokenizerBase, "__call__", "tokenized")
    return made


@pytest.mark.slow
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_the_second_trial_does_not_load_quantize_tokenize_or_import_again(
    quantization: str, host: HostProcess, counts: Counts, tiny_llama: Path, tmp_path: Path
) -> None:
    finish(host, make_spec(tiny_llama, quantization=quantization, rank=2), tmp_path)
    first = counts.taken()
    assert first["loads"] == 1
    assert first["tokenized"] > 0
    assert (first["quantized"] > 0) == (quantization != "none")
    modules = set(sys.modules)
    finish(host, make_spec(tiny_llama, quantization=quantization, rank=4), tmp_path)
    assert counts.taken() == NOTHING
    assert set(sys.modules) == modules


@pytest.mark.slow
@pytest.mark.parametrize(
    ("knobs", "tokenizes"),
    [
        ({"learning_rate": 1e-3, "alpha": 4.0}, False),
        ({"batch_size": 2, "gradient_accumulation": 2}, False),
        ({"gradient_checkpointing": True, "seed": 7}, False),
        ({"method": "untrained"}, True),  # the report split, which nobody had asked for
        ({"sequence_length": 255}, True),
        ({"prompt": "default", "sequence_length": 512}, True),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_only_another_length_or_prompt_or_split_is_tokenized_again(
    knobs: dict[str, Any], tokenizes: bool, counts: Counts, tiny_llama: Path, tmp_path: Path
) -> None:
    finish(counts.host, make_spec(tiny_llama), tmp_path)
    counts.taken()
    finish(counts.host, make_spec(tiny_llama, **knobs), tmp_path)
    told = counts.taken()
    assert told["loads"] == 0
    assert (told["tokenized"] > 0) == tokenizes


@pytest.mark.slow
def test_a_host_that_changes_its_base_keeps_its_tokenized_data(
    host: HostProcess, counts: Counts, tiny_llama: Path, tmp_path: Path
) -> None:
    finish(host, make_spec(tiny_llama), tmp_path)
    counts.taken()
    finish(host, make_spec(tiny_llama, quantization="nf4"), tmp_path)
    told = counts.taken()
    assert (told["loads"], told["tokenized"]) == (1, 0)


def test_tokenized_data_do_not_grow_with_the_sweep(tiny_llama: Path) -> None:
    spec = make_spec(tiny_llama)
    base, cache = load_base(spec, device="cpu"), dict[Any, Any]()
    first = load_data(spec, base, cache)
    for length in range(200, 200 + 3 * DATA_KEPT):
        load_data(make_spec(tiny_llama, sequence_length=length), base, cache)
        assert load_data(spec, base, cache) is first  # what is used stays
        assert len(cache) <= DATA_KEPT


@pytest.mark.slow
def test_a_warm_process_imports_nothing_at_its_second_trial(
    tiny_llama: Path, tmp_path: Path
) -> None:
    """Nor does it look for garbage among what its imports made, which takes 0.4 s."""
    folders = []
    for rank in (2, 4):
        spec = make_spec(tiny_llama, rank=rank)
        folders.append(str(prepared(spec, tmp_path).path))
    script = """if True:
        import gc
        import sys
        from trainables.workers.host import HostProcess
        host = HostProcess({})
        host.warm_up()
        assert gc.get_freeze_count() > 100_000
        for folder in sys.argv[1:]:
            before = set(sys.modules)
            assert host.start(folder) == []
            while host.next().kind != "finished":
                pass
            print("imported:", len(set(sys.modules) - before))
    """
    ran = subprocess.run(
        [sys.executable, "-c", script, *folders],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    imported = [line for line in ran.stdout.splitlines() if line.startswith("imported:")]
    assert imported[1] == "imported: 0", imported


def finished(host: HostProcess, spec: TrialSpec, folder: Path) -> None:
    finish(host, spec, folder)


def stopped(host: HostProcess, spec: TrialSpec, folder: Path) -> None:
    """Closed in the middle, as ASHA does."""
    begin(host, spec, folder)
    for _ in range(2):
        assert isinstance(host.next(), Event)
    host.close()


def failed(host: HostProcess, spec: TrialSpec, folder: Path) -> None:
    """The loss is soon not a number."""
    begin(host, replace(spec, knobs={**spec.knobs, **DIVERGES}), folder)
    event = host.next()
    while isinstance(event, Event):
        event = host.next()
    assert isinstance(event, Failure)
    assert "loss is" in event.reason


ENDS = (finished, stopped, failed)
End = Callable[[HostProcess, TrialSpec, Path], None]


@pytest.mark.slow
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_the_next_trial_gets_a_base_that_equals_a_freshly_loaded_one(
    quantization: str, end: End, host: HostProcess, tiny_llama: Path, tmp_path: Path
) -> None:
    spec = make_spec(tiny_llama, quantization=quantization, **WORST)
    end(host, spec, tmp_path)
    begin(host, make_spec(tiny_llama, quantization=quantization, rank=2), tmp_path)
    fresh = load_base(spec, device="cpu")
    assert contents(host._base).keys() == contents(fresh).keys()
    for name, tensor in contents(fresh).items():
        assert torch.equal(contents(host._base)[name], tensor), name
    assert modules(host._base) == modules(fresh)
    assert settings(host._base) == settings(fresh)
    host.close()


@pytest.mark.slow
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_no_trial_leaves_a_tensor_however_it_ends(
    quantization: str, host: HostProcess, tiny_llama: Path, tmp_path: Path
) -> None:
    spec = make_spec(tiny_llama, quantization=quantization)
    begin(host, spec, tmp_path / "first")
    loaded = tensor_bytes(host)
    finish(host, spec, tmp_path / "first")
    load = tensor_bytes(host)
    assert load - loaded <= 16  # the first int8 trial of a process leaves two numbers, once
    for number, end in enumerate((finished, stopped, finished, stopped, finished, failed)):
        more = {**spec.knobs, **WORST, "rank": 8 + number}
        end(host, replace(spec, knobs=more), tmp_path)
        left = tensor_bytes(host)
        assert left == load if end is not failed else left < load, (number, end.__name__)


def begin(host: HostProcess, spec: TrialSpec, folder: Path) -> None:
    assert host.start(str(prepared(spec, folder).path)) == []


def finish(host: HostProcess, spec: TrialSpec, folder: Path) -> None:
    begin(host, spec, folder)
    event = host.next()
    while isinstance(event, Event) and event.kind != "finished":
        event = host.next()
    assert isinstance(event, Event), event


def prepared(spec: TrialSpec, folder: Path) -> TrialFolder:
    place = TrialFolder(folder / spec.trial_id)
    place.write_spec(spec, {})
    return place


def contents(base: Base) -> dict[str, torch.Tensor]:
    return {name: tensor.detach() for name, tensor in stored_tensors(base.model)}


def modules(base: Base) -> list[tuple[str, str, bool, int]]:
    """Names, classes and modes of all modules, and how many hooks of any kind hang on each."""
    return [
        (name, type(module).__name__, module.training, hooks(module))
        for name, module in base.model.named_modules()
    ]


def hooks(module: torch.nn.Module) -> int:
    return sum(len(found) for name, found in vars(module).items() if name.endswith("_hooks"))


def settings(base: Base) -> dict[str, Any]:
    """What else a trial could have changed."""
    return {
        "trainable": [name for name, p in base.model.named_parameters() if p.requires_grad],
        "gradients": [name for name, p in base.model.named_parameters() if p.grad is not None],
        "checkpointing": base.model.is_gradient_checkpointing,
        "config": base.model.config.to_dict(),
        "generation": base.model.generation_config.to_dict(),
        "attributes": sorted(name for name in vars(base.model) if name != "_require_grads_hooks"),
    }


def tensor_bytes(host: HostProcess) -> int:
    """Bytes of all tensors that are alive, each storage once.

    Without those of int8's layers that say which columns of the last input were outliers: a few
    bytes, which the next input replaces.
    """
    gc.collect()
    storages = [tensor.untyped_storage() for tensor in _tensors()]
    alive = {storage.data_ptr(): storage.nbytes() for storage in storages}
    passing = {index.untyped_storage().data_ptr() for index in _outlier_columns(host)}
    return sum(size for place, size in alive.items() if place not in passing)


def _tensors() -> Iterator[torch.Tensor]:
    for item in gc.get_objects():
        if issubclass(type(item), torch.Tensor):
            yield item


def _outlier_columns(host: HostProcess) -> Iterator[torch.Tensor]:
    if host._base is None:
        return
    for module in host._base.model.modules():
        if isinstance(module, Linear8bitLt) and module.state.idx is not None:
            yield module.state.idx
