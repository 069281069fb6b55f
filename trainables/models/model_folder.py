"""The folder of a base model: whether it is complete and safe, and the digest of its content."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trainables.errors import CHANGED, InputError
from trainables.models.architectures import architecture_fault, is_known, is_tokenizer
from trainables.spec.trial_spec import TrialSpec

CONFIG = "config.json"
_TOKENIZER_CONFIG = "tokenizer_config.json"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")
_ENDINGS_THAT_COUNT = (".json", ".safetensors", ".jinja", ".model", ".txt", ".tiktoken")
_PICKLES = "pytorch_model*.bin"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


def check_model_folder(
    folder: str | Path, *, allow_bin: bool = False, needs_weights: bool = True, name: str = ""
) -> None:
    """Raises InputError with every reason why `folder` can't be loaded as a base model.

    Without `needs_weights` a folder that has none yet is accepted: one can plan for its model.
    Pickled weights are refused unless `allow_bin`, and so is a model that needs code of its own or
    whose architecture generates no text. Of the weights only their names are looked at; see
    `trainables.models.weight_faults`. `name` stands for the folder in the messages.
    """
    place = _expanded(folder)
    if not os.path.isdir(place):  # noqa: PTH112  # pathlib's raises for a name that is too long
        state = "is a file, not a folder" if os.path.exists(place) else "does not exist"  # noqa: PTH110
        raise InputError(f"model: {folder} {state}. Give a model's folder or a hub id.")
    faults = [*_missing(place, allow_bin, needs_weights), *_refused(place)]
    if faults:
        raise InputError([f"model: {name or folder} {fault}" for fault in faults])


def _expanded(folder: str | Path) -> Path:
    """With a leading ~ replaced if its user is known."""
    return Path(os.path.expanduser(folder))  # noqa: PTH111  # pathlib's raises for another user


def is_complete(folder: Path, *, allow_bin: bool = False) -> bool:
    """Whether a folder has a configuration, a tokenizer and weights, whatever their content."""
    return not _missing(folder, allow_bin, needs_weights=True)


def model_digest(folder: str | Path, *, allow_bin: bool = False, needs_weights: bool = True) -> str:
    """The sha256 over names and contents of the configuration, the tokenizer and the weights.

    It does not depend on the folder's path, on a README or on a training log. A process reads a
    file again only if its size or modification time has changed.
    """
    place = _expanded(folder)
    check_model_folder(place, allow_bin=allow_bin, needs_weights=needs_weights)
    return _digest(place, tuple(map(_stamp, _files(place))))


def encoder_digest(folder: str | Path) -> str:
    """As `model_digest`, for a model that need not generate text.

    Raises InputError if the folder has not the files of a model with a tokenizer.
    """
    place = _expanded(folder)
    if not os.path.isdir(place):  # noqa: PTH112  # as in `check_model_folder`
        raise InputError(f"{folder} is no folder. Give the folder of a model.")
    if faults := _missing(place, allow_bin=False, needs_weights=True):
        raise InputError([f"{folder} {fault}" for fault in faults])
    return _digest(place, tuple(map(_stamp, _files(place))))


def has_weights(folder: str | Path) -> bool:
    """Whether a folder has files of weights, of any format. Without, it can only be planned for."""
    return any(file.suffix in _WEIGHTS for file in Path(folder).iterdir())


def check_model(spec: TrialSpec) -> None:
    """Raises InputError if the content of the spec's model folder has changed since planning.

    Not checked: a model of the hub, which is bound to its revision, and a spec without a digest.
    """
    place = spec.model_source
    if not spec.model_digest or not Path(place).is_absolute():
        return
    if model_digest(place, allow_bin=spec.execution.allow_bin_weights) != spec.model_digest:
        raise InputError(f"model: the model folder {place} {CHANGED}")


@functools.lru_cache(maxsize=64)
def _digest(place: Path, stamps: tuple[tuple[str, int, int], ...]) -> str:
    del stamps  # a part of the cache's key: changed files are read again
    total = hashlib.sha256()
    for file in _files(place):
        total.update(f"{file.name}\0{_sha256(file)}\n".encode())
    return total.hexdigest()


def _stamp(file: Path) -> tuple[str, int, int]:
    state = file.stat()
    return file.name, state.st_size, state.st_mtime_ns


def _files(place: Path) -> list[Path]:
    """The files that decide the digest; pickled weights only if there are no safetensors."""
    files = sorted(file for file in place.iterdir() if _counts(file))
    has_safetensors = any(file.suffix == ".safetensors" for file in files)
    return files if has_safetensors else sorted([*files, *place.glob(_PICKLES)])


def _missing(place: Path, allow_bin: bool, needs_weights: bool) -> list[str]:
    names = {file.name for file in place.iterdir()}
    faults = []
    if CONFIG not in names:
        faults.append("has no config.json. Give the folder that save_pretrained wrote.")
    elif _json_object(place / CONFIG) is None:
        faults.append("has a config.json that is not a JSON object.")
    if not any(name.endswith(".safetensors") for name in names):
        faults += _without_safetensors(place, allow_bin, needs_weights)
    if not names & set(_TOKENIZER_FILES):
        faults.append("has no tokenizer. Save the tokenizer beside the weights.")
    return faults


def _refused(place: Path) -> list[str]:
    faults = []
    if (place / "adapter_config.json").exists():
        faults.append(
            "holds an adapter (adapter_config.json), which would be loaded into the base. "
            "Move it elsewhere."
        )
    config = _json_object(place / CONFIG)
    return faults if config is None else [*faults, *_architecture_faults(place, config)]


def _without_safetensors(place: Path, allow_bin: bool, needs_weights: bool) -> list[str]:
    if not has_weights(place):
        missing = "has no *.safetensors. Save it with safe_serialization, or fetch its weights."
        return [missing] if needs_weights else []
    if allow_bin and any(place.glob(_PICKLES)):
        return []
    return [
        "has weights only as pickles, which can hold code. Save it with safe_serialization, or, "
        f"if you trust whoever wrote its {_PICKLES}, set execution.allow_bin_weights: true."
    ]


def _architecture_faults(place: Path, config: dict[str, Any]) -> list[str]:
    faults = []
    if "auto_map" in config and not is_known(config):
        of_type = f"for its model_type {config.get('model_type')!r}"
        faults.append(_own_code(CONFIG, f"has no causal language model {of_type}"))
    elif (fault := architecture_fault(config)) is not None:
        faults.append(fault)
    tokenizer = _json_object(place / _TOKENIZER_CONFIG) or {}
    if _has_own_tokenizer(tokenizer):
        of_class = f"no tokenizer {tokenizer.get('tokenizer_class')!r}"
        faults.append(_own_code(_TOKENIZER_CONFIG, f"has {of_class}"))
    return faults


def _has_own_tokenizer(settings: dict[str, Any]) -> bool:
    """Whether the tokenizer is code of the model and of no class that transformers has."""
    named = settings.get("auto_map") or {}
    needs_code = not isinstance(named, dict) or "AutoTokenizer" in named
    return needs_code and not is_tokenizer(settings.get("tokenizer_class"))


def _own_code(file: str, reason: str) -> str:
    return (
        f"needs code of its own ({file}: auto_map), which is never run, and transformers "
        f"{version('transformers')} {reason}. Use a model of an architecture that transformers "
        "has, or a version of transformers that has this one."
    )


def _json_object(file: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _counts(file: Path) -> bool:
    """Whether a file is part of the model; a README and a training log are not."""
    is_log = file.suffix == ".txt" and file.name not in {"merges.txt", "vocab.txt"}
    return file.is_file() and file.name.endswith(_ENDINGS_THAT_COUNT) and not is_log


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
