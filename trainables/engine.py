"""One device: the loss, gradients, the optimizer's step, and what of them a checkpoint holds."""

from __future__ import annotations

import gc
import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional

from trainables.data import IGNORED, Batch
from trainables.models import Base

Knobs = Mapping[str, Any]
Tensors = dict[str, torch.Tensor]

OUT_OF_MEMORY = (torch.OutOfMemoryError, MemoryError)  # what `memory_errors` lets through
_FAILED_ALLOCATIONS = (
    "DefaultCPUAllocator",
    "bad_alloc",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
_MODEL, _OPTIMIZER, _RNG = "model.", "optimizer.", "rng."


class DoesNotFitError(MemoryError):
    """The trial can't run on this device: its memory or its kind."""


class Engine:
    """A model in training on one device, with its optimizer, schedule and loss scaler."""

    def __init__(self, model: Any, base: Base, knobs: Knobs, *, total_steps: int) -> None:
        self.model = model
        self.device = base.device
        self._base = base
        self._knobs = knobs
        self._total_steps = total_steps
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._trained = list(self.parameters.values())
        self.optimizer = _optimizer(self._trained, knobs, base.device)
        self._scaler = torch.amp.GradScaler(
            base.device.type, enabled=base.compute_dtype == torch.float16
        )

    def accumulate(self, batch: Batch, *, completion_tokens: int) -> float:
        """Adds a micro-batch's gradients; returns its loss, summed over completion tokens.

        `completion_tokens` are those of the whole accumulated batch: the gradients add up to
        those of the mean loss over all of them.
        """
        loss = summed_loss(self.model, batch, self._base)
        scaled: Any = self._scaler.scale(loss / completion_tokens)
        scaled.backward()
        return loss.item()

    def step(self, step: int) -> None:
        """Clips the gradients and takes the optimizer's step number `step`, from 0."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
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
        factor = schedule_factor(
            self._knobs["schedule"],
            step=step,
            total_steps=self._total_steps,
            warmup=self._knobs["warmup"],
        )
        return float(self._knobs["learning_rate"]) * factor

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
        optimizer.init_state(optimizer.param_groups[0], parameter, 0, index)
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


def _optimizer(
    parameters: list[torch.nn.Parameter], knobs: Knobs, device: torch.device
) -> torch.optim.Optimizer:
    rate, decay = knobs["learning_rate"], knobs["weight_decay"]
    if knobs["optimizer"] == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, fused=True)
    if knobs["optimizer"] == "sgd":
        return torch.optim.SGD(parameters, lr=rate, weight_decay=decay, fused=True)
    if device.type != "cuda":
        raise DoesNotFitError(
            "optimizer: paged_adamw_8bit needs a CUDA device; this trial is on a CPU. Use adamw."
        )
    from bitsandbytes.optim import PagedAdamW8bit

    paged: torch.optim.Optimizer = PagedAdamW8bit(parameters, lr=rate, weight_decay=decay)
    return paged


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> Tensors:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
