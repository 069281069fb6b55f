"""Phases of a simulated step: their names, and the hooks that begin one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from trainables.methods.blocks import blocks_of
from trainables.simulation.blocks import Pattern
from trainables.simulation.live_bytes import LiveBytes

BACKWARD_BETWEEN = "backward_between"
TRAIN_PHASES = (
    "loss",
    "backward_of_last_block",
    BACKWARD_BETWEEN,
    "backward_of_first_block",
    "optimizer",
)
EVAL_PHASES = ("eval_beginning", "eval_loss", "prefill", "generation", "eval_choices")


@contextmanager
def backward_phases(base_model: Any, live: LiveBytes, *, repeated: Pattern) -> Iterator[None]:
    """While it is open, the backward pass of `base_model` enters its phases of `live`.

    A phase begins when the gradient of a block's input is computed. The last and the first block
    stand for as many as it takes for each kind of block to be among them.
    """
    blocks = blocks_of(base_model)
    first = repeated.lead + repeated.period
    begins = {len(blocks) - repeated.period: BACKWARD_BETWEEN, first: "backward_of_first_block"}
    head = base_model.get_output_embeddings()
    hooks = [head.register_forward_hook(_on_output(live, "backward_of_last_block"))]
    for index, phase in begins.items():
        if 0 < index < len(blocks):
            hook = _on_input(live, phase)
            hooks.append(blocks[index].register_forward_pre_hook(hook, with_kwargs=True))
    try:
        yield
    finally:
        for hook_of_block in hooks:
            hook_of_block.remove()


def _on_output(live: LiveBytes, phase: str) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, output: torch.Tensor) -> None:
        output.register_hook(lambda gradient: live.enter_phase(phase))  # type: ignore[no-untyped-call]

    return hook


def _on_input(live: LiveBytes, phase: str) -> Callable[..., None]:
    """Acts on the first call: with checkpointing the block runs again in the backward pass."""
    is_registered = False

    def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
        nonlocal is_registered
        hidden = args[0] if args else kwargs["hidden_states"]
        if hidden.requires_grad and not is_registered:
            is_registered = True
            hidden.register_hook(lambda gradient: live.enter_phase(phase))

    return hook
