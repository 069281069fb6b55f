"""One training step and one evaluation on fake tensors, by the training loop's own code.

A phase's bytes are what lives at once besides what the model keeps (weights, adapters).
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from trainables.data.batches import Batch
from trainables.evaluation.generation import EndOfLine
from trainables.evaluation.loss import summed_loss
from trainables.models.base import Base
from trainables.models.quantized import DTYPES
from trainables.resources.estimate import Workload
from trainables.simulation.devices import DEVICES, Device, functions_of
from trainables.simulation.fake_model import (
    attached,
    base_on_meta,
    fill,
    largest_quantized,
    multiply_in_int8,
    stored_tensors,
)
from trainables.simulation.live_bytes import LiveBytes
from trainables.training.engine import Engine, less_activation_memory

Knobs = Mapping[str, Any]
States = list[tuple[torch.Size, torch.Size]]  # of keys and values, per block

PARTS = TRAIN, EVALUATION = ("train", "evaluation")
BACKWARD_BETWEEN = "backward_between"
TRAIN_PHASES = (
    "loss",
    "backward_of_last_block",
    BACKWARD_BETWEEN,
    "backward_of_first_block",
    "optimizer",
)
EVAL_PHASES = ("eval_loss", "prefill", "generation")


@dataclass(frozen=True)
class Measured:
    """What a simulation found, in bytes and FLOPs by name.

    Every number is linear in the number of blocks while each phase's peak stays where it is.
    """

    bytes: dict[str, int]
    flops: dict[str, int]


def simulate(
    config: Any, knobs: Knobs, workload: Workload, *, device: str, parts: Sequence[str] = PARTS
) -> Measured:
    """Trains a step and evaluates a batch of `config`'s model on fake tensors; or one `part`.

    `config`: one of transformers. `bytes` holds the phases of `parts`, and what is kept: base,
    trained, gradients, optimizer_state. `flops` holds training.token and so on (see FlopRates),
    as sums over the batch. Functions of torch and transformers are replaced meanwhile: nothing
    else may run models in this process then.
    """
    base_model = base_on_meta(config, knobs)
    model = attached(base_model, knobs)
    row = DEVICES[device]
    with FakeTensorMode(), functions_of(row), warnings.catch_warnings(), _masks_can_be_read():
        warnings.simplefilter("ignore")
        run = _Simulation(base_model, model, knobs, workload, device=row)
        bytes_, flops = run.kept(), dict[str, int]()
        for part in parts:
            found = run.train() if part == TRAIN else run.evaluate()
            bytes_ |= found.bytes
            flops |= found.flops
    return Measured(bytes_, flops)


def paged_adamw_8bit_bytes(count: int) -> tuple[int, int]:
    """Bytes of state for a parameter of `count` numbers: on the device, in managed memory.

    bitsandbytes 0.50, optim/optimizer.py: below 4,096 numbers the two states are float32, else a
    byte a number with a float32 scale per 256; from 100,000 numbers on they are paged.
    """
    states = 2 * count * (4 if count < 4096 else 1)
    scales = 0 if count < 4096 else 2 * 4 * -(-count // 256)
    return (scales, states) if count >= 100_000 else (scales + states, 0)


class _Simulation:
    """A filled model and what is asked of it."""

    def __init__(
        self, base_model: Any, model: Any, knobs: Knobs, workload: Workload, *, device: Device
    ) -> None:
        fill(model)
        if not device.int8_trains_dequantized:
            multiply_in_int8(model)
        self._model = model
        self._knobs = knobs
        self._workload = workload
        self._row = device
        self._blocks = _blocks(base_model)
        self._base = _borrowed(base_model, DTYPES[knobs["compute_dtype"]])

    def kept(self) -> dict[str, int]:
        """Bytes of the base and of what is trained on it."""
        trained = [p for p in self._model.parameters() if p.requires_grad]
        own = _storages(trained)
        every = _storages(stored_tensors(self._model))
        base = {key: size for key, size in every.items() if key not in own}
        return {
            "base": self._rounded(base.values()),
            "trained": self._rounded(own.values()),
            "dequantized_weight": largest_quantized(self._model)
            * self._base.compute_dtype.itemsize,
        }

    def train(self) -> Measured:
        """The second step of a training: the optimizer's state is there, gradients may be."""
        work = self._workload
        batch = _batch(work.batch_size, work.sequence_length)
        count = work.batch_size * work.completion_tokens
        live = self._live(batch, work.positions, count)
        self._model.train()
        engine = Engine(self._model, self._base, self._engine_knobs(), total_steps=1)
        checkpointing = bool(self._knobs["gradient_checkpointing"])
        with live, less_activation_memory(self._model, wanted=checkpointing), self._marks(live):
            with live.phase("loss"):
                engine.accumulate(batch, completion_tokens=count)
            gradients = _gradients(engine)
            alone = live.peaks_above(tensor.untyped_storage() for tensor in gradients)
            made = self._rounded(_storages(gradients).values())
            del gradients
            with live.phase("optimizer"):
                engine.step(0)
        kept, paged = self._optimizer_state(engine)
        peaks = {name: live.peaks.get(name, 0) for name in TRAIN_PHASES}
        for name in set(TRAIN_PHASES) - {"optimizer"}:  # whose first step has made the state
            before = alone.get(name, 0) + made if work.accumulated else peaks[name]
            peaks[name] = before + kept
        return Measured(
            {**peaks, "gradients": made, "optimizer_state": kept, "paged_optimizer_state": paged},
            {f"training.{name}": n for name, n in live.flops.items()},
        )

    def evaluate(self) -> Measured:
        """A batch's loss, the pass over its prompts and the last step of its answers."""
        work = self._workload
        batch = _batch(work.eval_batch_size, work.eval_length)
        count = work.eval_batch_size * work.eval_completions
        live = self._live(batch, work.eval_positions, count)
        self._model.eval()
        mixed = self._base.compute_dtype != torch.float32
        cast = torch.autocast("cpu", dtype=self._base.compute_dtype, enabled=mixed)
        with live, torch.no_grad(), cast:
            with live.phase("eval_loss"):
                summed_loss(self._model, batch, self._base).item()
            done = dict(live.flops)
            with live.phase("prefill"):
                states = self._generate(live, work.prompt_length)
            with live.phase("generation"):
                seen = work.prompt_length + max(1, work.new_tokens - 1)
                self._generate(live, seen, past_key_values=self._filled_cache(states))
        peaks = {name: live.peaks.get(name, 0) for name in EVAL_PHASES}
        return Measured(peaks, {f"forward.{name}": n for name, n in done.items()})

    def _generate(self, live: LiveBytes, length: int, **given: Any) -> States:
        """Writes one token after `length`; the shapes of what a cache then holds, per block."""
        rows = self._workload.eval_batch_size

        def last(ids: torch.Tensor, scores: torch.Tensor, **rest: Any) -> torch.Tensor:
            live.truth = True  # what generate asks next is whether all rows are done
            return torch.ones(rows, dtype=torch.bool)

        live.truth = self._unpadded(rows)
        written = self._model.generate(
            input_ids=torch.zeros((rows, length), dtype=torch.int64),
            attention_mask=torch.ones((rows, length), dtype=torch.int64),
            max_new_tokens=1,
            stopping_criteria=[EndOfLine(self._base), last],
            return_dict_in_generate=True,
            **given,
        )
        layers = written.past_key_values.layers
        return [(layer.keys.shape, layer.values.shape) for layer in layers]

    def _filled_cache(self, states: States) -> Any:
        """What is there before an answer's last step, from the shapes after the prompt.

        Layers with a window keep no more than that.
        """
        from transformers import DynamicCache

        cache = DynamicCache(config=self._base.model.config.get_text_config())
        work = self._workload
        for index, shapes in enumerate(states):
            parts = []
            for *outer, length, size in shapes:
                more = max(0, work.new_tokens - 2) if length == work.prompt_length else 0
                whole = (*outer, length + more, size)
                parts.append(torch.empty(whole, dtype=self._base.compute_dtype))
            cache.update(*parts, index)
        return cache

    def _live(self, batch: Batch, positions: int, count: int) -> LiveBytes:
        rows, length = batch.input_ids.shape
        existing = [*stored_tensors(self._model), batch.input_ids, batch.attention_mask]
        live = LiveBytes(
            [*existing, batch.labels, self._base.line_ends, self._base.blanks],
            granularity_bytes=self._row.granularity_bytes,
            answers={(length - 1,): positions, (rows, positions): count},
            kernels=self._row.kernels,
            copies_operands=self._row.copies_operands,
            head=self._base.model.get_output_embeddings().weight,
        )
        live.truth = self._unpadded(rows)
        return live

    def _unpadded(self, rows: int) -> bool:
        """One row alone has nothing to be padded to; in more rows some is shorter."""
        return rows == 1

    def _optimizer_state(self, engine: Engine) -> tuple[int, int]:
        """Bytes that torch's allocator holds, and bytes in managed memory."""
        if self._knobs["optimizer"] != "paged_adamw_8bit":
            state = engine.optimizer.state.values()
            tensors = [t for part in state for t in part.values() if isinstance(t, torch.Tensor)]
            return self._rounded(_storages(tensors).values()), 0
        sizes = [paged_adamw_8bit_bytes(p.numel()) for p in engine.parameters.values()]
        return self._rounded(kept for kept, _ in sizes), sum(paged for _, paged in sizes)

    def _engine_knobs(self) -> Knobs:
        """Paged states are no tensors of torch's allocator: their step is one without state."""
        paged = self._knobs["optimizer"] == "paged_adamw_8bit"
        return {**self._knobs, "optimizer": "sgd"} if paged else self._knobs

    @contextlib.contextmanager
    def _marks(self, live: LiveBytes) -> Iterator[None]:
        """Tells `live` which phase begins when the backward pass has come to a block's input."""
        last = len(self._blocks) - 1
        begins = {last: BACKWARD_BETWEEN, 1: "backward_of_first_block"}
        head = self._base.model.get_output_embeddings()
        hooks = [head.register_forward_hook(_marking_output(live, "backward_of_last_block"))]
        for index, phase in begins.items():
            if 0 < index < len(self._blocks):
                mark, block = _marking_input(live, phase), self._blocks[index]
                hooks.append(block.register_forward_pre_hook(mark, with_kwargs=True))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _rounded(self, sizes: Iterable[int]) -> int:
        unit = self._row.granularity_bytes
        return sum(-(-size // unit) * unit for size in sizes)


@contextlib.contextmanager
def _masks_can_be_read() -> Iterator[None]:
    """transformers asks no fake mask whether it masks anything; LiveBytes would answer."""
    from transformers import masking_utils

    found = masking_utils.is_tracing
    masking_utils.is_tracing = lambda tensor=None: False
    try:
        yield
    finally:
        masking_utils.is_tracing = found


def _marking_output(live: LiveBytes, phase: str) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, output: torch.Tensor) -> None:
        output.register_hook(lambda gradient: live.enter_phase(phase))  # type: ignore[no-untyped-call]

    return hook


def _marking_input(live: LiveBytes, phase: str) -> Callable[..., None]:
    """Marks it the first time: with checkpointing the block runs again in the backward pass."""
    asked = False

    def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
        nonlocal asked
        hidden = args[0] if args else kwargs["hidden_states"]
        if hidden.requires_grad and not asked:
            asked = True
            hidden.register_hook(lambda gradient: live.enter_phase(phase))

    return hook


def _gradients(engine: Engine) -> list[torch.Tensor]:
    return [p.grad for p in engine.parameters.values() if p.grad is not None]


def _blocks(model: Any) -> nn.ModuleList:
    depth = model.config.get_text_config().num_hidden_layers
    lists = (m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth)
    return next(lists, nn.ModuleList())


def _borrowed(model: Any, dtype: torch.dtype) -> Base:
    from transformers import GenerationConfig

    vocabulary = model.get_output_embeddings().weight.shape[0]
    model.generation_config = GenerationConfig(do_sample=False, eos_token_id=None, pad_token_id=0)
    return Base(
        model=model,
        tokenizer=None,
        key="",
        device=torch.device("cpu"),
        compute_dtype=dtype,
        seconds=0.0,
        weight_bytes=0,
        end_tokens=(),
        pad_token=0,
        line_ends=torch.zeros(vocabulary, dtype=torch.bool),
        blanks=torch.zeros(vocabulary, dtype=torch.bool),
        tokenizer_digest="",
    )


def _batch(rows: int, length: int) -> Batch:
    ids, mask, labels = (torch.zeros((rows, length), dtype=torch.int64) for _ in range(3))
    return Batch(ids, mask, labels)


def _storages(tensors: Iterable[torch.Tensor]) -> dict[int, int]:
    found = (tensor.untyped_storage() for tensor in tensors)
    return {storage._cdata: storage.nbytes() for storage in found}
