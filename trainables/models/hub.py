"""Models of the hub on this node: their files are fetched once, whoever asks for them. LIGHT.

One process at a time fetches on a node, under a lock beside the hub's cache; the others wait and
find what it has brought. The hub's list of the commit's files, which huggingface_hub keeps in the
cache, says when all are there. Afterwards nothing is asked of the hub any more.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from trainables.errors import InputError, first_line
from trainables.models.model_folder import _CONFIG, check_model_folder

_LOCK = "sweep-download.lock"
_WANTED = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken")
_PICKLES = "pytorch_model*.bin"
_NOT_WANTED = ("*/*", "consolidated*.safetensors")  # other formats of the same weights
_INDEX = "model.safetensors.index.json"
_TRUE = ("1", "ON", "YES", "TRUE")  # as huggingface_hub reads HF_HUB_OFFLINE


@dataclass(frozen=True)
class HubModel:
    """A model of the hub at a commit."""

    name: str
    revision: str
    allow_bin: bool = False  # pickled weights, where it has no others


@dataclass(frozen=True)
class HubAccess:
    """How the hub is reached, from the driver's environment; the token stays out of any text.

    It travels as the argument of a call, which Ray keeps in memory only: a runtime environment,
    an actor's constructor or a Ray Train configuration can be read in Ray's dashboard or store.
    """

    endpoint: str = ""
    offline: bool = False
    home: str = ""
    token: str = field(default="", repr=False)

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> HubAccess:
        return cls(
            endpoint=environment.get("HF_ENDPOINT", ""),
            offline=environment.get("HF_HUB_OFFLINE", "").upper() in _TRUE,
            home=environment.get("HF_HOME", ""),
            token=environment.get("HF_TOKEN", ""),
        )

    def use(self) -> None:
        """This process reaches the hub so; before it imports huggingface_hub.

        Where the driver says nothing, and for HF_HOME, a node's own environment counts.
        """
        own = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_OFFLINE": "1" if self.offline else "",
            "HF_TOKEN": self.token,
        }
        os.environ.update({name: value for name, value in own.items() if value})
        if self.home:
            os.environ.setdefault("HF_HOME", self.home)


def fetch_all(models: Sequence[HubModel], access: HubAccess) -> list[str]:
    """Brings models to this node, one after another; where each lies.

    Raises InputError with all that can't be had.
    """
    access.use()
    places: list[str] = []
    faults: list[str] = []
    for model in models:
        try:
            places.append(str(fetched(model)))
        except InputError as error:
            faults += error.messages
    if faults:
        raise InputError(faults)
    return places


def fetched(model: HubModel) -> Path:
    """The folder of a model's files on this node, which are fetched if they aren't all there.

    Waits while another process of the node fetches. Nothing is asked of the hub for a model that
    is known to be there. One that something else has put into the cache, without the hub's list
    of its files, is completed by that list; offline, or where the cache can't be written, it is
    taken as it lies if it can be loaded. Raises InputError where a model isn't there, and can't be
    fetched or the hub is not to be asked.
    """
    from filelock import FileLock
    from huggingface_hub import constants

    found = cached(model)
    if found is not None:
        return found
    cache = Path(constants.HF_HUB_CACHE)
    if constants.HF_HUB_OFFLINE or _is_read_only(cache):
        found = _unlisted(model)
        if found is not None:
            return found
    if constants.HF_HUB_OFFLINE:
        raise InputError(
            f"model: {model.name} at {model.revision} is not, or not whole, in the hub's cache "
            f"{cache} of {os.uname().nodename}, and HF_HUB_OFFLINE is set, so it is not fetched. "
            f"Fetch it there while online (hf download {model.name} --revision {model.revision}), "
            "unset HF_HUB_OFFLINE, or give a local folder."
        )
    lock = cache / ".locks" / _LOCK
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        found = cached(model)
        return found if found is not None else _downloaded(model)


def cached(model: HubModel) -> Path | None:
    """The folder of a model's files, if all that the hub lists are on this node; asks nobody.

    None as well where the list isn't here: what an optional file would have said can't be told.
    """
    names = _listed(model)
    return None if names is None else _found(model, _wanted(model, names))


def cached_bytes(models: Sequence[HubModel], access: HubAccess) -> int:
    """How much of the models lies on this node, half-fetched files among it."""
    access.use()
    from huggingface_hub import constants

    folders = {f"models--{model.name.replace('/', '--')}" for model in models}
    places = [Path(constants.HF_HUB_CACHE) / folder / "blobs" for folder in folders]
    return sum(_size(file) for place in places for file in place.glob("*"))


def _listed(model: HubModel) -> list[str] | None:
    """The names of a commit's files, where the hub has been asked for them before."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        files = get_cached_repo_tree(model.name, revision=model.revision or None)
    except (CachedRepoTreeNotFoundError, OSError):
        return None
    return [file.path for file in files]


def _wanted(model: HubModel, names: Sequence[str]) -> tuple[str, ...]:
    """Patterns of the files that are needed of `names`."""
    weights = [name for name in names if fnmatch(name, "*.safetensors")]
    loaded = [name for name in weights if not any(fnmatch(name, each) for each in _NOT_WANTED)]
    return (*_WANTED, _PICKLES) if model.allow_bin and not loaded else _WANTED


def _found(model: HubModel, wanted: Sequence[str]) -> Path | None:
    """Where the files lie; None where one is missing that the hub is known to list."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(
                model.name,
                revision=model.revision or None,
                allow_patterns=list(wanted),
                ignore_patterns=list(_NOT_WANTED),
                local_files_only=True,
            )
        )
    except (LocalEntryNotFoundError, OSError):
        return None
    return folder if _can_be_loaded(folder, allow_bin=model.allow_bin) else None


def _unlisted(model: HubModel) -> Path | None:
    """The folder of a model of which nobody knows what belongs to it, if it can be loaded."""
    return _found(model, _WANTED) if _listed(model) is None else None


def _can_be_loaded(folder: Path, *, allow_bin: bool) -> bool:
    try:
        check_model_folder(folder, allow_bin=allow_bin)
        index = folder / _INDEX
        files = json.loads(index.read_text())["weight_map"].values() if index.exists() else ()
    except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    weights = [*folder.glob("*.safetensors"), *(folder / str(name) for name in files)]
    return all(file.is_file() for file in weights)


def _is_read_only(cache: Path) -> bool:
    return cache.is_dir() and not os.access(cache, os.W_OK)


def _downloaded(model: HubModel) -> Path:
    folder = _download(model, _WANTED)
    if model.allow_bin and not any(folder.glob("*.safetensors")):
        folder = _download(model, (*_WANTED, _PICKLES))
    check_model_folder(folder, allow_bin=model.allow_bin)
    return folder


def _download(model: HubModel, wanted: Sequence[str]) -> Path:
    from httpx2 import HTTPError
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(
            snapshot_download(
                model.name,
                revision=model.revision or None,
                allow_patterns=list(wanted),
                ignore_patterns=list(_NOT_WANTED),
            )
        )
    except (HTTPError, OSError, HFValidationError) as error:
        raise InputError(
            f"model: {model.name} can't be fetched by {os.uname().nodename}: {first_line(error)} "
            "For a gated model accept its terms and set HF_TOKEN where the sweep is started."
        ) from error


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # it is moved to its place just now
        return 0


def resolve_revision(model: str, revision: str = "main") -> str:
    """The commit that `revision` of a hub's model is now, or was when it was last asked for here.

    It is noted in the hub's cache, so that it is known without the hub later. Raises InputError
    where the hub can't be reached and nothing is noted.
    """
    from httpx2 import HTTPError
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        commit = str(HfApi().model_info(model, revision=revision, timeout=10).sha)
        _note_commit(model, revision)
        return commit
    except HFValidationError as error:
        raise InputError(f"model: {model!r} is neither a folder nor a hub id: {error}") from error
    except (HTTPError, OSError) as error:  # HTTPError: refused, unreachable, timed out
        reason = first_line(error)
    try:
        snapshot = snapshot_download(
            model, revision=revision, allow_patterns=[_CONFIG], local_files_only=True
        )
        return Path(snapshot).name
    except (LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise InputError(
            f"model: {model} (revision {revision}) is not to be had from the hub ({reason}) "
            "and no snapshot of it is cached. Give a local folder, or log in and be online."
        ) from error


def _note_commit(model: str, revision: str) -> None:
    """huggingface_hub notes it when a file is asked for by the revision's name."""
    from httpx2 import HTTPError
    from huggingface_hub import hf_hub_download

    with contextlib.suppress(HTTPError, OSError):  # a model without a configuration is told later
        hf_hub_download(model, _CONFIG, revision=revision)
