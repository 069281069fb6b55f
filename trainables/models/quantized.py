"""Quantized loading: the configuration for transformers, and a correction after loading."""

from __future__ import annotations

from typing import Any

import torch

from trainables.spec.quantization import QUANTIZATIONS
from trainables.spec.trial_spec import TrialSpec

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def quantization_config(spec: TrialSpec) -> Any:
    """The BitsAndBytesConfig of the spec's quantization, or None without one."""
    from transformers import BitsAndBytesConfig

    row = QUANTIZATIONS[spec.knobs["quantization"]]
    if not row.loader:
        return None
    return BitsAndBytesConfig(
        **row.loader,
        bnb_4bit_use_double_quant=bool(spec.knobs.get("double_quantization", False)),
        bnb_4bit_compute_dtype=DTYPES[spec.knobs["compute_dtype"]],
    )


def keep_weights_unpacked(model: Any) -> None:
    """Keeps bitsandbytes 0.50 from repacking 4-bit weights in place at the first evaluation on a
    CPU with AVX512-BF16: training after it would run a kernel without a gradient."""
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
