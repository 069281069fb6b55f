"""Whether the weights in a model's folder are those of its architecture, from the files' headers.

transformers loads a checkpoint that does not match: what is missing gets random values. Here the
model is built on the meta device and "loaded" from tensors without content, so that transformers'
own renaming, merging and tying of weights apply.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from trainables.errors import first_line
from trainables.methods.loading_faults import key_faults, listed
from trainables.models.architectures import architecture_fault
from trainables.models.model_folder import CONFIG

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLE, _PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
_LFS_POINTER = b"version https://git-lfs"
_QUANTIZED_PARTS = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map")
_STATE_4BIT, _SCALES_8BIT, _FORMAT_8BIT = ".quant_state.bitsandbytes__", ".SCB", ".weight_format"

State = dict[str, torch.Tensor]


def holds_tensors(folder: Path) -> bool:
    """Whether there is a tensor in any of the weight files; without one a model can be planned for
    and not be loaded.

    A file that can't be read counts as one with tensors: `weight_faults` says what is wrong.
    """
    files = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
    return any(file.suffix != ".safetensors" or not _is_empty(file) for file in files)


def weight_faults(folder: Path, *, allow_bin: bool = False) -> list[str]:
    """Why the model in `folder` would not be the one whose weights are saved there; [] if it is.

    Finds missing shards, files that are no safetensors, weights that are missing, that the
    architecture does not know, or of another shape, and architectures that can't generate. Reads
    headers only, except of pickles, which are read as a whole if `allow_bin`.
    """
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    fault = architecture_fault(config)
    if fault is not None:
        return [fault]
    files, faults = _weight_files(folder, allow_bin=allow_bin)
    faults += [fault for file in files if (fault := _unreadable(file)) is not None]
    if faults:
        return faults
    state: State = {}
    for file in files:
        state |= _headers(file)
    if not state:
        return ["has no weights: its files hold no tensor. Fetch the whole model."]
    return key_faults(_loading_info(folder, _dequantized(state)))


def _weight_files(folder: Path, *, allow_bin: bool) -> tuple[list[Path], list[str]]:
    """The files that transformers would load, in its order of preference, and what is missing."""
    choices = [(_WEIGHTS, _INDEX), *([(_PICKLE, _PICKLE_INDEX)] if allow_bin else [])]
    for single, index in choices:
        if (folder / single).exists():
            return [folder / single], []
        if (folder / index).exists():
            return _shards(folder, folder / index)
    other = sorted(file.name for file in folder.glob("*.safetensors"))
    found = f" It has {listed(other)}." if other else ""
    return [], [f"has no {_WEIGHTS} and no {_INDEX}, so it can't be loaded.{found}"]


def _shards(folder: Path, index: Path) -> tuple[list[Path], list[str]]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [], [f"has an {index.name} that can't be read ({first_line(error)})."]
    missing = [name for name in names if not (folder / name).is_file()]
    if not missing:
        return [folder / name for name in names], []
    return [], [
        f"lacks {len(missing)} of {len(names)} files that {index.name} names: {listed(missing)}. "
        "Copy or fetch the whole model."
    ]


def _unreadable(file: Path) -> str | None:
    from safetensors import SafetensorError, safe_open

    with file.open("rb") as stream:
        if stream.read(len(_LFS_POINTER)) == _LFS_POINTER:
            return (
                f"has a Git LFS pointer in place of {file.name}: the weights were not fetched. "
                "Run `git lfs pull` in its repository, or fetch the model again."
            )
    if file.suffix != ".safetensors":
        return None
    try:
        with safe_open(file, framework="pt"):
            return None
    except SafetensorError as error:
        return f"has a {file.name} that is damaged or cut off ({error}). Fetch it again."


def _is_empty(file: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            return not opened.keys()
    except SafetensorError:
        return False


def _headers(file: Path) -> State:
    """The tensors of a file, without their content except for the descriptions of 4-bit ones."""
    from safetensors import safe_open

    if file.suffix != ".safetensors":
        loaded: State = torch.load(file, map_location="meta", weights_only=True)
        return loaded
    with safe_open(file, framework="pt") as opened:
        return {
            name: opened.get_tensor(name)
            if _STATE_4BIT in name
            else torch.empty(opened.get_slice(name).get_shape(), device="meta")
            for name in opened.keys()  # noqa: SIM118  # no mapping
        }


def _dequantized(state: State) -> State:
    """The weights that bitsandbytes' codes stand for, without its scales and descriptions."""
    shapes = dict(_shapes_4bit(state))
    parts = tuple(name + part for name in shapes for part in _QUANTIZED_PARTS)
    return {
        name: torch.empty(shapes[name], device="meta") if name in shapes else tensor
        for name, tensor in state.items()
        if name not in parts and _STATE_4BIT not in name and not _is_of_8bit(name, state)
    }


def _shapes_4bit(state: State) -> Iterator[tuple[str, list[int]]]:
    for name, tensor in state.items():
        if _STATE_4BIT in name:
            described = json.loads(bytes(tensor.tolist()))
            yield name.partition(_STATE_4BIT)[0], described["shape"]


def _is_of_8bit(name: str, state: State) -> bool:
    for ending in (_SCALES_8BIT, _FORMAT_8BIT):
        if name.endswith(ending):
            return name.removesuffix(ending) + _SCALES_8BIT in state
    return False


def _loading_info(folder: Path, state: State) -> Mapping[str, Collection[Any]]:
    """What transformers finds when it loads `state` into the model of the folder's config.json."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    for part in {id(c): c for c in (config, config.get_text_config())}.values():
        if hasattr(part, "quantization_config"):
            del part.quantization_config
    model_class: Any = AutoModelForCausalLM._model_mapping[type(config)]
    info: Mapping[str, Collection[Any]]
    with _without_table():
        _, info = model_class.from_pretrained(
            None,
            config=config,
            state_dict=state,
            device_map={"": "meta"},
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # they are named here with all others
            output_loading_info=True,
        )
    return info


@contextlib.contextmanager
def _without_table() -> Iterator[None]:
    """Inside, transformers does not print what it found."""
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(_nothing)
    try:
        yield
    finally:
        logger.removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    del record
    return False
