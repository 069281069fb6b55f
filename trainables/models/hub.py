"""The hub's models on this node: fetches the files of each once, for all processes.

One process of a node fetches at a time, under a lock in the hub's cache; the others wait and then
find the files. The list of a commit's files, which huggingface_hub keeps in the cache, tells when
all are there. From then on the hub is not asked.
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
from trainables.models.model_folder import CONFIG, check_model_folder, is_complete

_LOCK = "sweep-download.lock"
_WANTED = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken")
_PICKLES = "pytorch_model*.bin"
_NOT_WANTED = ("*/*", "consolidated*.safetensors")  # the same weights in other formats
_INDEX = "model.safetensors.index.json"
_TRUE = ("1", "ON", "YES", "TRUE")  # as huggingface_hub reads HF_HUB_OFFLINE


@dataclass(frozen=True)
class HubModel:
    """A model of the hub at one commit."""

    name: str
    revision: str
    allow_bin: bool = False  # fetch pickled weights if it has no others


@dataclass(frozen=True)
class HubAccess:
    """The driver's settings for the hub; `repr` leaves out the token.

    They are passed as arguments of calls, which Ray keeps in memory only: a runtime environment, an
    actor's constructor and a Ray Train configuration can be read in Ray's dashboard or store.
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
        """Sets the environment of this process; call it before huggingface_hub is imported.

        Settings that the driver does not have, and HF_HOME, keep the node's own values.
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
    """Fetches the models to this node, one after another; returns their folders.

    Raises InputError with all models that can't be fetched.
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
    """The folder of a model's files on this node; fetches those that are missing.

    Waits while another process of the node fetches. The hub is not asked if the cached list shows
    that all files are there. A model in the cache without that list, as other programs leave it,
    is completed by the hub's list; offline, or if the cache is read-only, it is used as it is if
    it is complete. Raises InputError if the model is missing and can't be fetched, or is none that
    can be loaded.
    """
    folder = _fetched(model)
    check_model_folder(folder, allow_bin=model.allow_bin, name=model.name)
    return folder


def cached(model: HubModel) -> Path | None:
    """The folder of a model's files if all that the hub lists are on this node, else None.

    Also None if the list is not cached. The hub is not asked.
    """
    names = _listed(model)
    return None if names is None else _found(model, _wanted(model, names))


def cached_bytes(models: Sequence[HubModel], access: HubAccess) -> int:
    """The bytes of the models on this node, including partly fetched files."""
    access.use()
    from huggingface_hub import constants

    folders = {f"models--{model.name.replace('/', '--')}" for model in models}
    places = [Path(constants.HF_HUB_CACHE) / folder / "blobs" for folder in folders]
    return sum(_size(file) for place in places for file in place.glob("*"))


def resolve_revision(model: str, revision: str = "main") -> str:
    """The commit of `revision` at the hub, or the one in the cache if the hub can't be reached.

    It is recorded in the cache for later starts without the hub. Raises InputError if the hub
    can't be reached and no commit is recorded.
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
            model, revision=revision, allow_patterns=[CONFIG], local_files_only=True
        )
        return Path(snapshot).name
    except (LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise InputError(
            f"model: {model} (revision {revision}) is not to be had from the hub ({reason}) "
            "and no snapshot of it is cached. Give a local folder, or log in and be online."
        ) from error


def _fetched(model: HubModel) -> Path:
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


def _listed(model: HubModel) -> list[str] | None:
    """The names of a commit's files if the hub's list is cached, else None."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        files = get_cached_repo_tree(model.name, revision=model.revision or None)
    except (CachedRepoTreeNotFoundError, OSError):
        return None
    return [file.path for file in files]


def _wanted(model: HubModel, names: Sequence[str]) -> tuple[str, ...]:
    """The patterns of the files to fetch, for a commit with the files `names`."""
    weights = [name for name in names if fnmatch(name, "*.safetensors")]
    loaded = [name for name in weights if not any(fnmatch(name, each) for each in _NOT_WANTED)]
    return (*_WANTED, _PICKLES) if model.allow_bin and not loaded else _WANTED


def _found(model: HubModel, wanted: Sequence[str]) -> Path | None:
    """The folder of the files, or None if one of the hub's list is missing."""
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
    return folder if _is_whole(folder, allow_bin=model.allow_bin) else None


def _unlisted(model: HubModel) -> Path | None:
    """The folder of a model without a cached list of its files, if it is whole."""
    return _found(model, _WANTED) if _listed(model) is None else None


def _is_whole(folder: Path, *, allow_bin: bool) -> bool:
    try:
        index = folder / _INDEX
        files = json.loads(index.read_text())["weight_map"].values() if index.exists() else ()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    weights = [*folder.glob("*.safetensors"), *(folder / str(name) for name in files)]
    return is_complete(folder, allow_bin=allow_bin) and all(file.is_file() for file in weights)


def _is_read_only(cache: Path) -> bool:
    return cache.is_dir() and not os.access(cache, os.W_OK)


def _downloaded(model: HubModel) -> Path:
    folder = _download(model, _WANTED)
    if model.allow_bin and not any(folder.glob("*.safetensors")):
        folder = _download(model, (*_WANTED, _PICKLES))
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
    except OSError:  # another process has just moved it to its place
        return 0


def _note_commit(model: str, revision: str) -> None:
    """Records the commit: huggingface_hub does so when a file is requested by revision."""
    from httpx2 import HTTPError
    from huggingface_hub import hf_hub_download

    with contextlib.suppress(HTTPError, OSError):  # a missing configuration is reported later
        hf_hub_download(model, CONFIG, revision=revision)
