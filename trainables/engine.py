"""One device: the loss, gradients, the optimizer's step, and what of them a checkpoint holds.

Several devices: `trainables.sharded`, with the same methods.
"""

from __future__ import annotations

import gc
import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from trainables import checkpoint
from trainables.data.batches import IGNORED, Batch
from trainables.methods.method import Method
from trainables.models.base import Base
from trainables.storage.trial_folder import TrialFolder
from trainables.team import Alone, Team

if TYPE_CHECKING:
    from trainables.sharded import ShardedEngine

Knobs = Mapping[str, Any]
Tensors = dict[str, torch.Tensor]

OUT_OF_MEMORY = (torch.OutOfMemoryError, MemoryError)  # what `memory_errors` lets through
_FAILED_ALLOCATIONS = (
    "DefaultCPUAllocator",
    "bad_alloc",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
_MODEL, _OPTIMIZER, _RNG, _RNG_OF = "model.", "optimizer.", "rng.", "rng-of."


class DoesNotFitError(MemoryError):
    """The trial can't run on this device: its memory or its kind."""


def make_engine(
    model: Any, base: Base, knobs: Knobs, *, total_steps: int, team: Team
) -> Engine | ShardedEngine:
    """What trains `model` as `knobs` say, with the other workers of the team if there are any.

    Raises ValueError where the trial's workers are not those of the team.
    """
    if int(knobs.get("workers", 1)) != team.size:
        raise ValueError(f"the trial has {knobs.get('workers', 1)} workers, the team {team.size}")
    if knobs.get("zero_stage", 0):
        from trainables.sharded import ShardedEngine

        return ShardedEngine(model, base, knobs, total_steps=total_steps, team=team)
    return Engine(model, base, knobs, total_steps=total_steps, team=team)


class Engine:
    """A model in training, with its optimizer, schedule and loss scaler; whole on each worker.

    Several workers add up their gradients before each step, and so stay equal.
    """

    def __init__(
        self, model: Any, base: Base, knobs: Knobs, *, total_steps: int, team: Team | None = None
    ) -> None:
        self.model = model
        self.device = base.device
        self._team = team or Alone()
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
        """Adds a micro-batch's gradients; returns its loss, summed over completion tokens.

        `completion_tokens` are those of the whole accumulated batch: the gradients add up to
        those of the mean loss over all of them. `is_last`: of that batch; workers that share it
        add up their gradients then.
        """
        del is_last  # there is one worker here
        loss = summed_loss(self.model, batch, self._base)
        scaled: Any = self._scaler.scale(loss / completion_tokens)
        scaled.backward()
        return loss.item()

    def step(self, step: int) -> None:
        """Clips the gradients and takes the optimizer's step number `step`, from 0."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        self._team.add_up(self._trained)
        self._scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self._trained, self._knobs["max_gradient_norm"])
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.drop_gradients()

    def drop_gradients(self) -> None:
        """Forgets what `accumulate` has added since the last step."""
        self.optimizer.zero_grad(set_to_none=True)

    def learning_rate(self, step: int) -> float:
        """The learning rate of the optimizer's step number `step`, from 0."""
        return learning_rate(self._knobs, step=step, total_steps=self._total_steps)

    @property
    def peak_bytes(self) -> int:
        """Nothing of its own: `cost.measure_training` and a GPU's allocator know."""
        return 0

    @property
    def trainable_parameters(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self._trained)

    def save(self, folder: TrialFolder, *, step: int, progress: Mapping[str, Any]) -> None:
        """A checkpoint of now, with `progress` (JSON) in it; see checkpoint.save."""
        state = {"engine": self.state(), "progress": progress}
        tensors = self.tensors() | self._others_rng()
        if self._team.rank == 0:
            made = checkpoint.Checkpoint(step=step, state=state, tensors=tensors)
            place = folder.checkpoints_folder
            checkpoint.save(place, made, guard=folder.guard, mirror=folder.mirror)
        self._team.wait()

    def load_latest(self, folder: TrialFolder) -> Mapping[str, Any] | None:
        """Goes back to the newest sound checkpoint; its `progress`, or None without one."""
        last = checkpoint.load_latest(folder.checkpoints_folder)
        self._team.check_same("last checkpoint", None if last is None else last.step)
        if last is None:
            return None
        own = self._team.rank
        tensors = last.tensors if own == 0 else {**last.tensors, **_moved(last.tensors, own)}
        self.restore(tensors, last.state["engine"])
        progress: Mapping[str, Any] = last.state["progress"]
        return progress

    def export(self, method: Method, folder: TrialFolder, tokenizer: Any) -> None:
        """Writes what was trained: an adapter, or a model with its tokenizer."""
        if self._team.rank != 0:
            return
        if not method.makes_model:
            folder.write_adapter(lambda place: method.save(self.model, place))
            return

        def save(place: Path) -> None:
            method.save(self.model, place)
            tokenizer.save_pretrained(place)

        folder.write_model(save)

    def tensors(self) -> Tensors:
        """All tensors that a checkpoint needs, by name."""
        found = {f"{_MODEL}{name}": p.detach() for name, p in self.parameters.items()}
        for index, state in self._optimizer_states():
            for name, value in state.items():
                if isinstance(value, torch.Tensor):
                    found[f"{_OPTIMIZER}{index}.{name}"] = value
        found |= {f"{_RNG}{name}": state for name, state in rng_states(self.device).items()}
        return found

    def state(self) -> dict[str, Any]:
        """What else a checkpoint needs, as JSON."""
        numbers = {
            f"{index}.{name}": value
            for index, state in self._optimizer_states()
            for name, value in state.items()
            if not isinstance(value, torch.Tensor)
        }
        return {"optimizer": numbers, "scaler": self._scaler.state_dict()}

    def restore(self, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
        """Goes back to what `tensors` and `state` returned."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[f"{_MODEL}{name}"])
        self._restore_optimizer({**_under(_OPTIMIZER, tensors), **state["optimizer"]})
        if state["scaler"]:
            self._scaler.load_state_dict(state["scaler"])
        set_rng_states(_under(_RNG, tensors), self.device)

    def _others_rng(self) -> Tensors:
        """The generators' states of the workers but the first."""
        found: Tensors = {}
        for name, state in rng_states(self.device).items():
            for rank, other in enumerate(self._team.gathered(bytes(state.tolist()))):
                if rank > 0:
                    found[f"{_RNG_OF}{rank}.{name}"] = torch.frombuffer(
                        bytearray(other), dtype=torch.uint8
                    )
        return found

    def _optimizer_states(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Each parameter's, as it is: in bitsandbytes' `state_dict` tensors are nested deeper."""
        for index, parameter in enumerate(self._trained):
            yield index, self.optimizer.state.get(parameter, {})

    def _restore_optimizer(self, saved: Mapping[str, Any]) -> None:
        for name, value in saved.items():
            index, _, part = name.partition(".")
            parameter = self._trained[int(index)]
            if parameter not in self.optimizer.state:
                self.optimizer.state[parameter] = self._blank_state(int(index))
            state = self.optimizer.state[parameter]
            if isinstance(state.get(part), torch.Tensor):
                state[part].copy_(value)
            elif isinstance(value, torch.Tensor):
                state[part] = value.to(parameter.device, copy=True)
            else:
                state[part] = value

    def _blank_state(self, index: int) -> dict[str, Any]:
        """What the optimizer must lay out itself: bitsandbytes' paged buffers; else nothing."""
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


def summed_loss(model: Any, batch: Batch, base: Base) -> torch.Tensor:
    """Cross entropy summed over a batch's completion tokens, in float32.

    Logits are computed only where some row has a completion token to predict.
    """
    labels = batch.labels[:, 1:].to(base.device)
    positions = (batch.labels[:, 1:] != IGNORED).any(dim=0).nonzero().squeeze(1).to(base.device)
    with torch.autocast(
        base.device.type, dtype=base.compute_dtype, enabled=base.compute_dtype != torch.float32
    ):
        logits = _logits(model, batch, base, positions)
    kept = labels[:, positions]
    asked = kept != IGNORED
    return functional.cross_entropy(logits[asked].float(), kept[asked], reduction="sum")


@contextmanager
def less_activation_memory(model: Any, *, wanted: bool) -> Iterator[None]:
    """Gradient checkpointing inside, the model as before outside."""
    if not wanted:
        yield
        return
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    try:
        yield
    finally:
        model.activation_checkpointing_disable()
        model.disable_input_require_grads()  # else its hook stays, and with it more gradients


@contextmanager
def memory_errors() -> Iterator[None]:
    """Failed allocations that have no class of their own raised as DoesNotFitError: a CPU's, and
    those that CUDA's libraries make themselves. torch.OutOfMemoryError passes as it is."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if any(sign in str(error) for sign in _FAILED_ALLOCATIONS):
            raise DoesNotFitError(str(error)) from error
        raise


def free_memory() -> None:
    """Gives back what nothing refers to any more; torch keeps a GPU's memory for itself else."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def learning_rate(knobs: Knobs, *, step: int, total_steps: int) -> float:
    """The learning rate of the optimizer's step number `step`, from 0."""
    factor = schedule_factor(
        knobs["schedule"], step=step, total_steps=total_steps, warmup=knobs["warmup"]
    )
    return float(knobs["learning_rate"]) * factor


def schedule_factor(schedule: str, *, step: int, total_steps: int, warmup: float) -> float:
    """The share of the learning rate at optimizer step `step`, from 0; that of transformers.

    It rises linearly from 0 over the first `warmup` of all steps (rounded up, so that step 0 of
    any warm-up changes nothing), then stays ("constant"), or falls towards 0, which the step after
    the last would reach ("linear", "cosine").
    """
    rising = math.ceil(warmup * total_steps)
    if step < rising:
        return step / rising
    done = (step - rising) / max(1, total_steps - rising)
    if schedule == "linear":
        return 1 - done
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1.0


def parameter_groups(
    parameters: Sequence[torch.nn.Parameter], weight_decay: float
) -> list[dict[str, Any]]:
    """An optimizer's groups: biases and the scales of norms do not decay, as in transformers'
    Trainer."""
    decaying = {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay}
    others = {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}
    return [group for group in (decaying, others) if group["params"]]


def draw_apart(seed: int, *, rank: int) -> None:
    """Workers that began alike draw differently from now on; the first goes on as it was."""
    if rank > 0:
        torch.manual_seed(seed * 1_000_003 + rank)


def rng_states(device: torch.device) -> Tensors:
    """The states of torch's generators that training on `device` draws from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_rng_states(states: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Sets what `rng_states` returned; a state of another kind of device is left aside."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def _logits(model: Any, batch: Batch, base: Base, positions: torch.Tensor) -> torch.Tensor:
    inputs = {
        "input_ids": batch.input_ids.to(base.device),
        "attention_mask": batch.attention_mask.to(base.device),
        "use_cache": False,
    }
    if "logits_to_keep" in inspect.signature(base.model.forward).parameters:
        chosen: torch.Tensor = model(**inputs, logits_to_keep=positions).logits
        return chosen
    whole: torch.Tensor = model(**inputs).logits
    return whole[:, positions]


def make_optimizer(
    parameters: list[torch.nn.Parameter], knobs: Knobs, device: torch.device
) -> torch.optim.Optimizer:
    rate, groups = knobs["learning_rate"], parameter_groups(parameters, knobs["weight_decay"])
    if knobs["optimizer"] == "adamw":
        return torch.optim.AdamW(groups, lr=rate, fused=True)
    if knobs["optimizer"] == "sgd":
        return torch.optim.SGD(groups, lr=rate, fused=True)
    if device.type != "cuda":
        raise DoesNotFitError(
            "optimizer: paged_adamw_8bit needs a CUDA device; this trial is on a CPU. Use adamw."
        )
    from bitsandbytes.optim import PagedAdamW8bit

    paged: torch.optim.Optimizer = PagedAdamW8bit(groups, lr=rate)
    return paged


def _moved(tensors: Mapping[str, torch.Tensor], rank: int) -> Tensors:
    """The generators' states of the worker `rank`, by the names of the first's."""
    return {f"{_RNG}{n}": state for n, state in _under(f"{_RNG_OF}{rank}.", tensors).items()}


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> Tensors:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
