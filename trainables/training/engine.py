"""Engine: gradients, optimizer steps and checkpoints of a model that is whole on each worker.

`trainables.training.deepspeed_engine` has the same methods for a model that is split over workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from trainables.data.batches import Batch
from trainables.evaluation.loss import summed_loss
from trainables.methods.method import Method
from trainables.models.base import Base
from trainables.storage.trial_folder import TrialFolder
from trainables.training import checkpoint
from trainables.training.checkpoint import Tensors, rng_states, set_rng_states
from trainables.training.optimizer import Knobs, learning_rate, make_optimizer
from trainables.training.process_group import ProcessGroup, SingleProcess

_MODEL, _OPTIMIZER, _RNG, _RNG_OF = "model.", "optimizer.", "rng.", "rng-of."


class Engine:
    """A model in training, with its optimizer, schedule and loss scaler.

    Several workers sum their gradients before each step, so that their models stay equal.
    """

    def __init__(
        self,
        model: Any,
        base: Base,
        knobs: Knobs,
        *,
        total_steps: int,
        process_group: ProcessGroup | None = None,
    ) -> None:
        self.model = model
        self.device = base.device
        self._process_group = process_group or SingleProcess()
        self._base = base
        self._knobs = knobs
        self._total_steps = total_steps
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._trained = list(self.parameters.values())
        self.optimizer = make_optimizer(self._trained, knobs, base.device)
        self._scaler = torch.amp.GradScaler(
            base.device.type, enabled=base.compute_dtype == torch.float16
        )

    def accumulate(self, batch: Batch, *, completion_tokens: int, is_last: bool = True) -> float:
        """Adds the gradients of a micro-batch; returns its loss, summed over completion tokens.

        `completion_tokens` is their number in the whole accumulated batch, so that the gradients
        sum up to those of the mean loss. `is_last` marks the last micro-batch.
        """
        del is_last  # unused: gradients are reduced in `step`
        loss = summed_loss(self.model, batch, self._base)
        scaled: Any = self._scaler.scale(loss / completion_tokens)
        scaled.backward()
        return loss.item()

    def step(self, step: int) -> None:
        """Clips the gradients and takes the optimizer's step number `step`, counted from 0."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        self._process_group.all_reduce_gradients(self._trained)
        self._scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self._trained, self._knobs["max_gradient_norm"])
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.drop_gradients()

    def drop_gradients(self) -> None:
        """Discards the gradients that `accumulate` has added since the last step."""
        self.optimizer.zero_grad(set_to_none=True)

    def learning_rate(self, step: int) -> float:
        """The learning rate of the optimizer's step number `step`, counted from 0."""
        return learning_rate(self._knobs, step=step, total_steps=self._total_steps)

    @property
    def peak_bytes(self) -> int:
        """0: `peak_step.measure_training` and a GPU's allocator measure the peak."""
        return 0

    @property
    def trainable_parameters(self) -> int:
        """The number of trained parameters."""
        return sum(parameter.numel() for parameter in self._trained)

    def save(self, folder: TrialFolder, *, step: int, progress: Mapping[str, Any]) -> None:
        """Writes a checkpoint with `progress`, a JSON value; see `checkpoint.save`."""
        state = {"engine": self.state(), "progress": progress}
        tensors = self.tensors() | self._rng_of_other_workers()
        if self._process_group.rank == 0:
            made = checkpoint.Checkpoint(step=step, state=state, tensors=tensors)
            place = folder.checkpoints_folder
            checkpoint.save(place, made, guard=folder.guard, mirror=folder.mirror)
        self._process_group.barrier()

    def load_latest(self, folder: TrialFolder) -> Mapping[str, Any] | None:
        """Restores the newest undamaged checkpoint; returns its `progress`, or None."""
        last = checkpoint.load_latest(folder.checkpoints_folder)
        self._process_group.check_same("last checkpoint", None if last is None else last.step)
        if last is None:
            return None
        own = self._process_group.rank
        tensors = last.tensors if own == 0 else {**last.tensors, **_rng_of(own, last.tensors)}
        self.restore(tensors, last.state["engine"])
        progress: Mapping[str, Any] = last.state["progress"]
        return progress

    def export(self, method: Method, folder: TrialFolder, tokenizer: Any) -> None:
        """Writes the result: an adapter, or a model with its tokenizer."""
        if self._process_group.rank != 0:
            return
        if not method.saves_model:
            folder.write_adapter(lambda place: method.save(self.model, place))
            return

        def save(place: Path) -> None:
            method.save(self.model, place)
            tokenizer.save_pretrained(place)

        folder.write_model(save)

    def tensors(self) -> Tensors:
        """The tensors of a checkpoint, by name."""
        found = {f"{_MODEL}{name}": p.detach() for name, p in self.parameters.items()}
        for index, state in self._optimizer_states():
            for name, value in state.items():
                if isinstance(value, torch.Tensor):
                    found[f"{_OPTIMIZER}{index}.{name}"] = value
        found |= {f"{_RNG}{name}": state for name, state in rng_states(self.device).items()}
        return found

    def state(self) -> dict[str, Any]:
        """The other part of a checkpoint, as JSON."""
        numbers = {
            f"{index}.{name}": value
            for index, state in self._optimizer_states()
            for name, value in state.items()
            if not isinstance(value, torch.Tensor)
        }
        return {"optimizer": numbers, "scaler": self._scaler.state_dict()}

    def restore(self, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
        """Restores what `tensors` and `state` returned."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[f"{_MODEL}{name}"])
        self._restore_optimizer({**_under(_OPTIMIZER, tensors), **state["optimizer"]})
        if state["scaler"]:
            self._scaler.load_state_dict(state["scaler"])
        set_rng_states(_under(_RNG, tensors), self.device)

    def _rng_of_other_workers(self) -> Tensors:
        """The states of the random generators of all workers except the first."""
        found: Tensors = {}
        for name, state in rng_states(self.device).items():
            for rank, other in enumerate(self._process_group.gather(bytes(state.tolist()))):
                if rank > 0:
                    found[f"{_RNG_OF}{rank}.{name}"] = torch.frombuffer(
                        bytearray(other), dtype=torch.uint8
                    )
        return found

    def _optimizer_states(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """The optimizer's state of each parameter; bitsandbytes nests it in its `state_dict`."""
        for index, parameter in enumerate(self._trained):
            yield index, self.optimizer.state.get(parameter, {})

    def _restore_optimizer(self, saved: Mapping[str, Any]) -> None:
        for name, value in saved.items():
            index, _, part = name.partition(".")
            parameter = self._trained[int(index)]
            if parameter not in self.optimizer.state:
                self.optimizer.state[parameter] = self._initial_state(int(index))
            state = self.optimizer.state[parameter]
            if isinstance(state.get(part), torch.Tensor):
                state[part].copy_(value)
            elif isinstance(value, torch.Tensor):
                state[part] = value.to(parameter.device, copy=True)
            else:
                state[part] = value

    def _initial_state(self, index: int) -> dict[str, Any]:
        """The state with buffers that the optimizer must allocate itself: bitsandbytes' paged ones;
        empty for other optimizers."""
        from bitsandbytes.optim.optimizer import Optimizer8bit

        optimizer: Any = self.optimizer
        if not isinstance(optimizer, Optimizer8bit):
            return {}
        parameter = self._trained[index]
        for number, group in enumerate(optimizer.param_groups):
            for place, member in enumerate(group["params"]):
                if member is parameter:
                    optimizer.init_state(group, parameter, number, place)
        return dict(optimizer.state[parameter])


@contextmanager
def less_activation_memory(model: Any, *, wanted: bool) -> Iterator[None]:
    """Enables gradient checkpointing, if wanted, and restores the model afterwards."""
    if not wanted:
        yield
        return
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    try:
        yield
    finally:
        model.activation_checkpointing_disable()
        model.disable_input_require_grads()  # else its hook stays, which causes more gradients


def _rng_of(rank: int, tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """The states of a worker's random generators, under the names of the first worker's."""
    return {f"{_RNG}{n}": state for n, state in _under(f"{_RNG_OF}{rank}.", tensors).items()}


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> Tensors:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
