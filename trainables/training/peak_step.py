"""Measures the peak memory of optimizer steps on the longest micro-batch."""

from __future__ import annotations

import torch

from trainables.data.batches import Batch
from trainables.resources.memory_peak import PeakMemory
from trainables.training.checkpoint import rng_states, set_rng_states
from trainables.training.engine import Engine


def measure_training(
    engine: Engine, longest: Batch, *, accumulated: bool, peak: PeakMemory
) -> None:
    """Measures optimizer steps on the longest micro-batch with `peak`, and undoes them.

    A first step on one row allocates the optimizer's state, so that the second step includes it;
    with accumulation the second one also includes earlier gradients. `engine` must not train
    afterwards. Parameters and random generators are restored exactly.
    """
    before = {name: parameter.detach().clone() for name, parameter in engine.parameters.items()}
    states = rng_states(engine.device)
    row = Batch(longest.input_ids[:1], longest.attention_mask[:1], longest.labels[:1])
    try:
        with peak.measure(representative=True):
            for batches in ([row], [longest] * (2 if accumulated else 1)):
                for batch in batches:
                    engine.accumulate(batch, completion_tokens=1)
                engine.step(0)
    finally:  # it may not fit
        engine.drop_gradients()
        with torch.no_grad():
            for name, parameter in engine.parameters.items():
                parameter.copy_(before[name])
        set_rng_states(states, engine.device)
