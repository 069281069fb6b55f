"""Base: a frozen, possibly quantized causal language model with its tokenizer.

Weights are loaded from safetensors or, if the space allows it, from the tensors of a pickle. Code
that comes with a model is never run.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from trainables.errors import InputError
from trainables.methods.loading_faults import key_faults, refuse_faults
from trainables.models.device import default_device
from trainables.models.hub import HubModel, fetched
from trainables.models.imports import without_compiler
from trainables.models.model_folder import check_model_folder
from trainables.models.quantized import (
    DTYPES,
    keep_weights_unpacked,
    quantization_config,
    refuse_unquantized,
    replacing_subclasses,
    with_compute_dtype,
)
from trainables.models.tensors import tensor_bytes
from trainables.models.tokenizer import load_tokenizer, pad_token_fault, pad_token_of
from trainables.models.weight_faults import weight_faults
from trainables.spec.quantization import stored_fault
from trainables.spec.trial_spec import TrialSpec


@dataclass(frozen=True)
class Base:
    """One loaded base, frozen and in evaluation mode; trials use it one after another.

    `line_ends` and `blanks` are booleans (vocabulary,) on the model's device: the tokens that
    contain a newline, and those of white space only. `weight_bytes` includes the quantization's
    scales and codebooks.
    """

    model: Any
    tokenizer: Any
    key: str
    device: torch.device
    compute_dtype: torch.dtype
    seconds: float
    weight_bytes: int
    end_tokens: tuple[int, ...]
    pad_token: int
    line_ends: torch.Tensor
    blanks: torch.Tensor
    tokenizer_digest: str

    @property
    def longest_sequence(self) -> int | None:
        """The number of positions of the model, or None if its configuration has no limit."""
        limit = getattr(self.model.config, "max_position_embeddings", None)
        return int(limit) if limit else None


def warm_imports() -> None:
    """Imports what the first trial would wait for, and silences what prints no news.

    Takes about 3 s of CPU.
    """
    with without_compiler():
        import bitsandbytes  # noqa: F401
        import peft  # noqa: F401

    quiet()


def quiet() -> None:
    """Disables progress bars, and bitsandbytes' message at every int8 matmul on a CPU."""
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")


def load_base(spec: TrialSpec, *, device: str = "") -> Base:
    """Loads the spec's base on `device` ("cpu", "cuda:0", ...; by default `default_device()`).

    `spec.model_source` is an absolute folder or a hub id. Raises InputError if the folder is not
    that of a base model, its weights are not those of its architecture, or its tokenizer has no
    token to pad with.
    """
    started = time.perf_counter()
    quiet()
    device = device or default_device()
    name, revision = _source(spec)
    tokenizer = load_tokenizer(name, revision=revision, offline=True)
    pad_token = pad_token_of(tokenizer, name)
    dtype = DTYPES[spec.knobs["compute_dtype"]]
    model = _load_model(spec, name=name, revision=revision, device=device)
    fault = pad_token_fault(tokenizer, name, embedded=_vocabulary_size(model))
    if fault is not None:
        raise InputError(fault)
    end_tokens = _end_tokens(model, tokenizer)
    model.generation_config = GenerationConfig(  # replaces the model's own, which may sample
        do_sample=False, eos_token_id=list(end_tokens) or None, pad_token_id=pad_token
    )
    line_ends, blanks = _line_tokens(tokenizer, size=_vocabulary_size(model))
    return Base(
        model=model,
        tokenizer=tokenizer,
        key=spec.base_key,
        device=torch.device(device),
        compute_dtype=dtype,
        seconds=time.perf_counter() - started,
        weight_bytes=tensor_bytes(model),
        end_tokens=end_tokens,
        pad_token=pad_token,
        line_ends=line_ends.to(device),
        blanks=blanks.to(device),
        tokenizer_digest=_tokenizer_digest(tokenizer),
    )


def _source(spec: TrialSpec) -> tuple[str, str | None]:
    """The spec's absolute folder, or its hub id and revision, whose files are on this node now.

    They are fetched if they are not (`trainables.models.hub`).
    """
    model = spec.model_source or str(spec.knobs["model"])
    allow_bin = spec.execution.allow_bin_weights
    if Path(model).is_absolute():
        check_model_folder(model, allow_bin=allow_bin)
        refuse_faults(model, weight_faults(Path(model), allow_bin=allow_bin))
        return model, None
    if Path(model).exists():
        raise InputError(
            f"model: {model} is a model of the hub, but a file or folder of that name lies in "
            f"{Path.cwd()} and would be loaded in its place. Move it, or give its full path."
        )
    folder = fetched(HubModel(model, spec.revision, allow_bin=allow_bin))
    refuse_faults(model, weight_faults(folder, allow_bin=allow_bin))
    return model, spec.revision or None


def _load_model(spec: TrialSpec, *, name: str, revision: str | None, device: str) -> Any:
    config = AutoConfig.from_pretrained(
        name, revision=revision, local_files_only=True, trust_remote_code=False
    )
    if fault := stored_fault(config.to_dict(), spec.knobs):
        raise InputError(fault)
    is_saved_quantized = with_compute_dtype(config, spec.knobs)
    quantization = None if is_saved_quantized else quantization_config(spec.knobs)
    with replacing_subclasses():
        model, found = AutoModelForCausalLM.from_pretrained(
            name,
            config=config,
            revision=revision,
            local_files_only=True,  # see `_source`
            adapter_kwargs={"local_files_only": True},  # or transformers looks for one at the hub
            use_safetensors=None if spec.execution.allow_bin_weights else True,
            weights_only=True,  # applies to pickles
            trust_remote_code=False,
            dtype=DTYPES[spec.knobs["compute_dtype"]],
            device_map={"": device},
            output_loading_info=True,
            **({} if quantization is None else {"quantization_config": quantization}),
        )
    refuse_faults(name, key_faults(found))
    refuse_unquantized(model, spec.knobs)
    model.requires_grad_(False)
    model.eval()
    keep_weights_unpacked(model)
    return model


def _end_tokens(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """The end tokens of the tokenizer and of the model's generation configuration."""
    named = model.generation_config.eos_token_id
    given = named if isinstance(named, list) else [named]
    return tuple(sorted({int(t) for t in (*given, tokenizer.eos_token_id) if t is not None}))


def _vocabulary_size(model: Any) -> int:
    return int(model.get_output_embeddings().weight.shape[0])


def _line_tokens(tokenizer: Any, *, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    texts = tokenizer.batch_decode([[token] for token in range(min(size, len(tokenizer)))])
    texts += [""] * (size - len(texts))
    line_ends = torch.tensor(["\n" in text for text in texts])
    return line_ends, torch.tensor([not text.strip() for text in texts])


def _tokenizer_digest(tokenizer: Any) -> str:
    if tokenizer.is_fast:
        content = tokenizer.backend_tokenizer.to_str()
    else:
        content = repr(sorted(tokenizer.get_vocab().items()))
    whole = f"{content}\0{tokenizer.chat_template}\0{tokenizer.special_tokens_map}"
    return hashlib.sha256(whole.encode()).hexdigest()
