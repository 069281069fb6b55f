"""RunFolder: the files of one sweep, which only it and TrialFolder write.

A file is written to a temporary file and moved into place, so a reader sees the old or the new one.
`summary.json` is a trial's last file: if it can be read, the trial is done. Every JSON file has a
checksum (`trainables.storage.sealed_json`), and a summary has the digests of the files that belong
to it, so incomplete, altered and swapped files are recognized as damaged and then ignored.

A folder's `guard` is called right before a file is moved into place. It raises if the writer has
lost the right to write: a host to a later one (`trainables.storage.ownership`), a driver to the one
that has taken the sweep over (`orchestrator.runs.lease`).

A folder in a bucket (s3://, gs://) has a `mirror`: its path is this machine's working copy, and
each write publishes its file before it returns (`trainables.storage.mirror`).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.errors import InputError
from trainables.storage.atomic_files import Guard, Json, finite, unguarded, write_bytes, write_json
from trainables.storage.layout import RunFiles
from trainables.storage.object_store import is_url
from trainables.storage.sealed_json import DamagedError, verified, with_checksum
from trainables.storage.trial_folder import TrialFolder

if TYPE_CHECKING:
    from trainables.storage.mirror import Mirror

_PLAIN_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]*")


@dataclass(frozen=True)
class RunFolder(RunFiles):
    """The folder of one sweep: `storage/name`."""

    guard: Guard = field(default=unguarded, compare=False, repr=False)
    mirror: Mirror | None = field(default=None, compare=False, repr=False)

    @classmethod
    def at(cls, place: str | Path) -> RunFolder:
        """The folder at a path, or the working copy of a URL, as it is on this disk now (see
        `pull`). Raises InputError for a URL that is not one of a bucket."""
        if not is_url(str(place)):
            return cls(Path(place))
        from trainables.storage.mirror import Mirror

        mirror = Mirror.of_run(str(place))
        return cls(mirror.folder, mirror=mirror)

    @property
    def place(self) -> str:
        """The path or URL by which `at` finds this folder."""
        return str(self.path) if self.mirror is None else self.mirror.url

    @property
    def storage(self) -> str:
        """The folder or URL that holds this run and others."""
        return self.place.rpartition("/")[0]

    def pull(self, *, prune: bool = False) -> None:
        """Fetches the bucket's files, except checkpoints, adapters and models, to the working copy.

        `prune` deletes files that were never published. Raises StorageError.
        """
        if self.mirror is not None:
            self.mirror.pull_run(prune=prune)

    def discard(self) -> None:
        """Deletes the whole run, also in its bucket."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self.mirror is not None:
            self.mirror.store.delete(item.key for item in self.mirror.store.list())

    def write_state(self, state: Mapping[str, Any]) -> None:
        """Writes sweep.json: `sweep_id`, `resume_command`, and at the end `trials_done` and
        `exhausted`."""
        content = with_checksum(finite(state), place=self.state_file.name)
        write_json(self.state_file, content, guard=self.guard)
        self._publish(self.state_file)

    def state(self) -> Json | None:
        """The content of sweep.json, or None if it is missing or damaged."""
        try:
            return self.read_state()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, DamagedError):
            return None

    def read_state(self) -> Json:
        """The content of sweep.json; raises FileNotFoundError, or DamagedError."""
        return verified(self.state_file.read_bytes(), place=self.state_file.name)

    def trial(self, trial_id: str) -> TrialFolder:
        """The folder of a trial; raises InputError for an id that is not a plain name."""
        if not _PLAIN_NAME.fullmatch(trial_id):
            raise InputError(
                f"trial {trial_id!r}: no trial has such an id; needs letters, digits, - and _."
            )
        return self._trial(self.trials_folder / trial_id)

    def trials(self) -> Iterator[TrialFolder]:
        """Every trial that has a spec, in the order in which the specs were written.

        Symbolic links are not followed (see `links`).
        """
        specs = [] if self.trials_folder.is_symlink() else self.trials_folder.glob("*/spec.json")
        plain = [spec for spec in specs if not spec.parent.is_symlink() and not spec.is_symlink()]
        for spec in sorted(plain, key=lambda file: (file.stat().st_mtime_ns, file.parent.name)):
            if _PLAIN_NAME.fullmatch(spec.parent.name):
                yield self._trial(spec.parent)

    def links(self) -> list[Path]:
        """The symbolic links among the trials' files, by which a trial could write elsewhere."""
        if self.trials_folder.is_symlink():
            return [self.trials_folder]
        below = os.walk(self.trials_folder, followlinks=False)
        entries = (
            Path(place, name) for place, folders, files in below for name in (*folders, *files)
        )
        # not Path.is_symlink, which raises where a folder is closed
        return sorted(entry for entry in entries if os.path.islink(entry))  # noqa: PTH114

    def closed(self) -> dict[Path, str]:
        """Files and folders of the run that this process may not read, each with the reason."""
        files = (self.sweep_file, self.state_file, self.lock_file)
        folders = (self.trials_folder, *_entries(self.trials_folder))
        found = {place: refusal(place) for place in (*files, *folders)}
        return {place: reason for place, reason in found.items() if reason}

    def without_spec(self) -> list[Path]:
        """Folders of trials without a spec that was not set aside as damaged; none of those that
        may not be read (see `closed`)."""
        folders = (place for place in _entries(self.trials_folder) if not refusal(place))
        gone = (item for item in folders if not [*item.glob("spec.json*")] and _entries(item))
        return sorted(gone)

    def write_text(self, file: Path, text: str) -> None:
        self.write_bytes(file, text.encode())

    def write_bytes(self, file: Path, content: bytes) -> None:
        write_bytes(file, content, guard=self.guard)
        self._publish(file)

    def _publish(self, file: Path) -> None:
        if self.mirror is not None:
            self.mirror.publish(file)

    def _trial(self, path: Path) -> TrialFolder:
        mirror = None if self.mirror is None else self.mirror.below(f"trials/{path.name}")
        return TrialFolder(path, self.guard, mirror)


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder; nothing if it is none or may not be read."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def refusal(place: Path) -> str:
    """Why a file or a folder may not be read; "" if it may, or is not there."""
    try:
        if place.is_dir():
            next(place.iterdir(), None)
            os.stat(f"{place}/.")  # noqa: PTH116  # to pass through a folder is a right of its own
        else:
            place.open("rb").close()
    except PermissionError as error:
        return error.strerror or "not permitted"
    except OSError:
        return ""
    return ""


def trial_at(place: str) -> TrialFolder:
    """The folder whose `place` another process, perhaps on another machine, has named."""
    if not is_url(place):
        return TrialFolder(Path(place))
    run, _, trial_id = place.rpartition("/trials/")
    return RunFolder.at(run).trial(trial_id)
