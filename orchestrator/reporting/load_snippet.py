"""Lines of Python that load a trained model without this project."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.errors import InputError
from trainables.spec.quantization import quantization_of
from trainables.spec.rows.chat_formats import AUTO, CHAT_FORMATS, chat_format_of
from trainables.spec.trial_spec import TrialSpec
from trainables.storage.trial_folder import TrialFolder


def loading_lines(folder: TrialFolder) -> list[str]:
    """Code that loads `model` and `tokenizer` of a finished trial, for any Python program.

    Only a comment, if that takes a later version of this project. Raises FileNotFoundError, or
    DamagedError, if the trial's spec can't be read.
    """
    spec = folder.spec()
    try:
        return _loading_lines(folder, spec)
    except InputError as error:
        return [f"# {error}"]


def _loading_lines(folder: TrialFolder, spec: TrialSpec) -> list[str]:
    method = spec.method
    trained = str(folder.trained_folder(spec).resolve())
    source = trained if method.saves_model else spec.model_source or str(spec.knobs["model"])
    revision = None if method.saves_model else spec.revision or None
    repacks = _repacks(folder, spec.knobs)
    return [
        "import torch",
        *(["from bitsandbytes.nn import Linear4bit"] if repacks else []),
        *method.loading_imports,
        f"from transformers import {', '.join(_names(spec.knobs))}",
        "",
        *_model_lines(spec, source, revision=revision),
        *(_UNPACKED if repacks else []),
        *method.loading_lines(trained),
        _tokenizer_line(spec),
        *_chat_lines(spec.knobs),
    ]


_UNPACKED = (
    "for module in model.modules():  # a CPU with AVX512-BF16 repacks 4-bit weights otherwise",
    "    if isinstance(module, Linear4bit):",
    "        module.support_avx512bf16_for_cpu = False",
)


def _repacks(folder: TrialFolder, knobs: Mapping[str, Any]) -> bool:
    """Whether the lines must keep bitsandbytes from repacking, as `trainables.models.base` does."""
    device = ((folder.summary() or {}).get("provenance") or {}).get("device_type")
    return device == "cpu" and "load_in_4bit" in quantization_of(knobs).loader


def _names(knobs: Mapping[str, Any]) -> list[str]:
    quantized = ["BitsAndBytesConfig"] if quantization_of(knobs).loader else []
    return ["AutoModelForCausalLM", "AutoTokenizer", *quantized]


def _model_lines(spec: TrialSpec, source: str, *, revision: str | None) -> list[str]:
    dtype = f"torch.{spec.knobs['compute_dtype']}"
    arguments = [_quoted(source), *([f"revision={_quoted(revision)}"] if revision else [])]
    arguments += [f"dtype={dtype}", *_quantization(spec.knobs, dtype), 'device_map="auto"']
    return [
        "model = AutoModelForCausalLM.from_pretrained(",
        *(f"    {item}," for item in arguments),
        ")",
    ]


def _quantization(knobs: Mapping[str, Any], dtype: str) -> list[str]:
    loader = quantization_of(knobs).loader
    if not loader:
        return []
    arguments = [f"{name}={_quoted(value)}" for name, value in loader.items()]
    if "load_in_4bit" in loader:
        double = bool(knobs.get("double_quantization", False))
        arguments += [f"bnb_4bit_use_double_quant={double}", f"bnb_4bit_compute_dtype={dtype}"]
    lines = "".join(f"        {item},\n" for item in arguments)
    return [f"quantization_config=BitsAndBytesConfig(\n{lines}    )"]


def _tokenizer_line(spec: TrialSpec) -> str:
    source = spec.model_source or str(spec.knobs["model"])
    revision = f", revision={_quoted(spec.revision)}" if spec.revision else ""
    return f"tokenizer = AutoTokenizer.from_pretrained({_quoted(source)}{revision})"


def _chat_lines(knobs: Mapping[str, Any]) -> list[str]:
    """Gives the tokenizer the format in which the trial's prompts were written."""
    chat_format = chat_format_of(knobs)
    if chat_format in CHAT_FORMATS:
        return [f"tokenizer.chat_template = {_quoted(CHAT_FORMATS[chat_format].template)}"]
    return [] if chat_format == AUTO else ["tokenizer.chat_template = None  # plain text"]


def _quoted(value: object) -> str:
    """A literal of Python: names and paths from files must not become code."""
    return repr(value)
