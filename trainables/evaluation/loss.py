"""The loss on completions, summed."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.nn import functional

from trainables.data.batches import IGNORED, Batch
from trainables.models.base import Base
from trainables.models.states import States, inputs_after


def summed_loss(
    model: Any, batch: Batch, base: Base, *, begun: States | None = None
) -> torch.Tensor:
    """The cross entropy summed over a batch's completion tokens, in float32.

    Logits are computed only at positions where any row has a completion token to predict. `begun`:
    the states of the first tokens, the same in all rows.
    """
    return _token_losses(model, batch, base, begun, reduction="sum")[0]


def row_log_likelihoods(model: Any, batch: Batch, base: Base) -> torch.Tensor:
    """For each row the sum of the log-likelihoods of its completion tokens, (batch,) in float32."""
    losses, rows = _token_losses(model, batch, base, None, reduction="none")
    return torch.zeros(len(batch.labels), device=losses.device).index_add_(0, rows, -losses)


def _token_losses(
    model: Any, batch: Batch, base: Base, begun: States | None, *, reduction: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """The losses of all completion tokens, and the row of each."""
    labels = batch.labels[:, 1:].to(base.device)
    positions = (batch.labels[:, 1:] != IGNORED).any(dim=0).nonzero().squeeze(1).to(base.device)
    with torch.autocast(
        base.device.type, dtype=base.compute_dtype, enabled=base.compute_dtype != torch.float32
    ):
        logits = _logits(model, batch, base, positions, begun)
    kept = labels[:, positions]
    counted = kept != IGNORED
    losses = functional.cross_entropy(logits[counted].float(), kept[counted], reduction=reduction)
    return losses, counted.nonzero()[:, 0]


def _logits(
    model: Any, batch: Batch, base: Base, positions: torch.Tensor, begun: States | None
) -> torch.Tensor:
    ids, mask = batch.input_ids.to(base.device), batch.attention_mask.to(base.device)
    if begun is not None:
        at = begun.length
        inputs = inputs_after(begun, ids[:, at:], mask[:, at:])
        cache = begun.lent(len(ids))
        after: torch.Tensor = model(
            **inputs, past_key_values=cache, use_cache=True, logits_to_keep=positions - at
        ).logits
        return after
    plain = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
    if "logits_to_keep" in inspect.signature(base.model.forward).parameters:
        chosen: torch.Tensor = model(**plain, logits_to_keep=positions).logits
        return chosen
    whole: torch.Tensor = model(**plain).logits
    return whole[:, positions]
