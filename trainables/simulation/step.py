"""One training step and one evaluation on fake tensors, by the code of the training loop.

The bytes of a phase are the most that were alive at once, besides what the model keeps (weights,
adapters).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses import FakeTensorMode

from trainables.data.batches import Batch
from trainables.evaluation.generation import EndOfLine
from trainables.evaluation.likelihood import continued_log_likelihoods
from trainables.evaluation.loss import summed_loss
from trainables.models.on_meta import base_on_meta
from trainables.models.quantized import DTYPES
from trainables.models.states import States, states_of
from trainables.resources.estimate import Workload
from trainables.simulation.blocks import ALL_ALIKE, Pattern, decoder_config
from trainables.simulation.devices import DEVICES, Device, functions_of, masks_can_be_read
from trainables.simulation.fake_model import (
    attached,
    base_of,
    fill,
    largest_quantized,
    multiply_in_int8,
    stored_tensors,
)
from trainables.simulation.live_bytes import LiveBytes
from trainables.simulation.phases import EVAL_PHASES, TRAIN_PHASES, backward_phases
from trainables.training.engine import Engine, less_activation_memory

Knobs = Mapping[str, Any]
Shapes = list[Any]  # per block the shapes of keys and values, or what holds others of fixed size

PARTS = TRAIN, EVALUATION = ("train", "evaluation")


@dataclass(frozen=True)
class Measured:
    """Bytes and FLOPs of a simulation, by name.

    Every number is linear in the number of blocks as long as each phase has its peak at the same
    operation.
    """

    bytes: dict[str, int]
    flops: dict[str, int]


def simulate(
    config: Any,
    knobs: Knobs,
    workload: Workload,
    *,
    device: str,
    parts: Sequence[str] = PARTS,
    repeated: Pattern = ALL_ALIKE,
) -> Measured:
    """Runs a training step and the evaluation of a batch on fake tensors, or only some `parts`.

    `config`: a model's, of transformers. `repeated`: how its kinds of blocks repeat. `bytes` holds
    the phases of `parts`, and what is kept: base, trained, gradients, optimizer_state. `flops`
    holds training.token and so on (see FlopRates), as sums over the batch. Replaces functions of
    torch and transformers while it runs, so nothing else may run a model in this process at the
    same time.
    """
    base_model = base_on_meta(config, knobs)
    model = attached(base_model, knobs)
    row = DEVICES[device]
    with FakeTensorMode(), functions_of(row), warnings.catch_warnings(), masks_can_be_read():
        warnings.simplefilter("ignore")
        run = _Simulation(base_model, model, knobs, workload, device=row)
        bytes_, flops = run.kept(), dict[str, int]()
        for part in parts:
            found = run.train(repeated) if part == TRAIN else run.evaluate()
            bytes_ |= found.bytes
            flops |= found.flops
    return Measured(bytes_, flops)


def paged_adamw_8bit_bytes(count: int) -> tuple[int, int]:
    """Bytes of state for a parameter of `count` numbers: on the device, and in managed memory.

    bitsandbytes 0.50, optim/optimizer.py: below 4,096 numbers the two states are float32, else a
    byte a number with a float32 scale per 256; from 100,000 numbers on they are paged.
    """
    states = 2 * count * (4 if count < 4096 else 1)
    scales = 0 if count < 4096 else 2 * 4 * -(-count // 256)
    return (scales, states) if count >= 100_000 else (scales + states, 0)


class _Simulation:
    """A model filled with fake tensors, and the work that it runs."""

    def __init__(
        self, base_model: Any, model: Any, knobs: Knobs, workload: Workload, *, device: Device
    ) -> None:
        fill(model)
        if not device.int8_trains_dequantized:
            multiply_in_int8(model)
        self._model = model
        self._knobs = knobs
        self._workload = workload
        self._device = device
        self._base = base_of(base_model, DTYPES[knobs["compute_dtype"]])

    def kept(self) -> dict[str, int]:
        """Bytes of the base and of the trained parameters."""
        trained = _storages(p for p in self._model.parameters() if p.requires_grad)
        stored = _storages(stored_tensors(self._model))
        base = {key: size for key, size in stored.items() if key not in trained}
        return {
            "base": self._rounded(base.values()),
            "trained": self._rounded(trained.values()),
            "dequantized_weight": largest_quantized(self._model)
            * self._base.compute_dtype.itemsize,
        }

    def train(self, repeated: Pattern) -> Measured:
        """The second step of a training: the optimizer has its state already, and there are
        gradients if the step accumulates."""
        work = self._workload
        batch = _batch(work.batch_size, work.sequence_length)
        count = work.batch_size * work.completion_tokens
        live = self._live(batch, work.positions, count)
        self._model.train()
        engine = Engine(self._model, self._base, self._engine_knobs(), total_steps=1)
        checkpointing = bool(self._knobs["gradient_checkpointing"])
        phases = backward_phases(self._base.model, live, repeated=repeated)
        with live, less_activation_memory(self._model, wanted=checkpointing), phases:
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
        for name in set(TRAIN_PHASES) - {"optimizer"}:  # that phase has created the state
            before = alone.get(name, 0) + made if work.accumulated else peaks[name]
            peaks[name] = before + kept
        return Measured(
            {**peaks, "gradients": made, "optimizer_state": kept, "paged_optimizer_state": paged},
            {f"training.{name}": n for name, n in live.flops.items()},
        )

    def evaluate(self) -> Measured:
        """What all rows begin with, the loss of a batch, and its answers: the pass over its prompts
        and the last token that is written, or the choices after these."""
        work = self._workload
        batch = _batch(work.eval_batch_size, work.eval_length)
        count = work.eval_batch_size * work.eval_completions
        live = self._live(batch, work.eval_positions, count)
        self._model.eval()
        mixed = self._base.compute_dtype != torch.float32
        cast = torch.autocast("cpu", dtype=self._base.compute_dtype, enabled=mixed)
        with live, torch.no_grad(), cast:
            begun = self._beginning(live) if work.eval_beginning else None
            done = dict(live.flops)  # of a pass over whole rows, as the one that is next otherwise
            with live.phase("eval_loss"):
                summed_loss(self._model, batch, self._base, begun=begun).item()
            done = done or dict(live.flops)
            if work.new_tokens:
                self._write_answers(live, begun)
            if work.eval_choice_tokens:
                self._score_choices(live, begun)
        peaks = {name: live.peaks.get(name, 0) for name in EVAL_PHASES}
        return Measured(peaks, {f"forward.{name}": n for name, n in done.items()})

    def _beginning(self, live: LiveBytes) -> States:
        ids = torch.zeros((1, self._workload.eval_beginning), dtype=torch.int64)
        length, live.length = live.length, self._workload.eval_beginning
        truth, live.truth = live.truth, True  # no padding
        with live.phase("eval_beginning"):
            states = states_of(self._model, ids, torch.ones_like(ids))
        live.length, live.truth = length, truth
        return states

    def _score_choices(self, live: LiveBytes, begun: States | None) -> None:
        """Scores one choice of each row after its prompt."""
        work = self._workload
        rows, known = work.answers_batch_size, work.eval_beginning
        live.truth = _is_unpadded(rows)
        ids, mask = (torch.zeros((rows, work.prompt_length), dtype=torch.int64) for _ in range(2))
        labels = torch.zeros((rows, work.eval_choice_tokens), dtype=torch.int64)
        with live.phase("prefill"):
            states = states_of(self._model, ids[:, known:-1], mask[:, known:-1], begun)
        with live.phase("eval_choices"):
            continued_log_likelihoods(self._model, states, ids[:, -1:], labels)

    def _write_answers(self, live: LiveBytes, begun: States | None) -> None:
        work = self._workload
        given = {"past_key_values": begun.growing(work.answers_batch_size)} if begun else {}
        with live.phase("prefill"):
            states = self._generate(live, work.prompt_length, **given)
        del given
        with live.phase("generation"):
            length = work.prompt_length + max(1, work.new_tokens - 1)
            self._generate(live, length, past_key_values=self._filled_cache(states))

    def _generate(self, live: LiveBytes, length: int, **given: Any) -> Shapes:
        """Generates one token after `length`; returns what the cache holds."""
        from transformers.cache_utils import DynamicLayer

        batch_size = self._workload.answers_batch_size

        def last(ids: torch.Tensor, scores: torch.Tensor, **rest: Any) -> torch.Tensor:
            live.truth = True  # the next condition of `generate` is whether all rows are done
            return torch.ones(batch_size, dtype=torch.bool)

        live.truth = _is_unpadded(batch_size)
        written = self._model.generate(
            input_ids=torch.zeros((batch_size, length), dtype=torch.int64),
            attention_mask=torch.ones((batch_size, length), dtype=torch.int64),
            max_new_tokens=1,
            stopping_criteria=[EndOfLine(self._base), last],
            return_dict_in_generate=True,
            **given,
        )
        return [
            (layer.keys.shape, layer.values.shape) if isinstance(layer, DynamicLayer) else layer
            for layer in written.past_key_values.layers
        ]

    def _filled_cache(self, states: Shapes) -> Any:
        """The cache before the last token of an answer, from what it holds after the prompt.

        Layers with a sliding window keep no more than the window, and count all tokens.
        """
        from transformers import DynamicCache

        cache = DynamicCache(config=decoder_config(self._base.model.config))
        seen = self._workload.prompt_length + max(0, self._workload.new_tokens - 2)
        for place, (layer, shapes) in enumerate(zip(cache.layers, states, strict=True)):
            if not isinstance(shapes, tuple):
                cache.layers[place] = shapes
                continue
            kept = min(seen, layer.sliding_window - 1) if layer.is_sliding else seen
            layer.update(*(self._empty_states(shape, kept) for shape in shapes))
            if layer.is_sliding:
                layer.cumulative_length = seen
        return cache

    def _empty_states(self, shape: Sequence[int], length: int) -> torch.Tensor:
        *outer, _, size = shape
        return torch.empty((*outer, length, size), dtype=self._base.compute_dtype)

    def _live(self, batch: Batch, positions: int, count: int) -> LiveBytes:
        batch_size, length = batch.input_ids.shape
        existing = [*stored_tensors(self._model), batch.input_ids, batch.attention_mask]
        live = LiveBytes(
            [*existing, batch.labels, self._base.line_ends, self._base.blanks],
            granularity_bytes=self._device.granularity_bytes,
            true_counts={(length - 1,): positions, (batch_size, positions): count},
            kernels=self._device.kernels,
            copies_operands=self._device.copies_operands,
            head=self._base.model.get_output_embeddings().weight,
            length=length,
        )
        live.truth = _is_unpadded(batch_size)
        return live

    def _optimizer_state(self, engine: Engine) -> tuple[int, int]:
        """Bytes of the optimizer's state in torch's allocator, and in managed memory."""
        if self._knobs["optimizer"] != "paged_adamw_8bit":
            state = engine.optimizer.state.values()
            tensors = [t for part in state for t in part.values() if isinstance(t, torch.Tensor)]
            return self._rounded(_storages(tensors).values()), 0
        sizes = [paged_adamw_8bit_bytes(p.numel()) for p in engine.parameters.values()]
        return self._rounded(kept for kept, _ in sizes), sum(paged for _, paged in sizes)

    def _engine_knobs(self) -> Knobs:
        """Paged states are not in torch's allocator, so their step is simulated without state."""
        paged = self._knobs["optimizer"] == "paged_adamw_8bit"
        return {**self._knobs, "optimizer": "sgd"} if paged else self._knobs

    def _rounded(self, sizes: Iterable[int]) -> int:
        unit = self._device.granularity_bytes
        return sum(-(-size // unit) * unit for size in sizes)


def _is_unpadded(batch_size: int) -> bool:
    """A single row needs no padding; of several, at least one is assumed to be shorter."""
    return batch_size == 1


def _gradients(engine: Engine) -> list[torch.Tensor]:
    return [p.grad for p in engine.parameters.values() if p.grad is not None]


def _batch(batch_size: int, length: int) -> Batch:
    ids, mask, labels = (torch.zeros((batch_size, length), dtype=torch.int64) for _ in range(3))
    return Batch(ids, mask, labels)


def _storages(tensors: Iterable[torch.Tensor]) -> dict[int, int]:
    found = (tensor.untyped_storage() for tensor in tensors)
    return {storage._cdata: storage.nbytes() for storage in found}
