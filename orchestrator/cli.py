"""What every command shares: exit codes, error printing, paths."""

from __future__ import annotations

from pathlib import Path

from orchestrator.shipped_files import existing_path

DEFAULT_SPACE = "search_spaces/quickstart.yaml"


def storage_place(given: str) -> str:
    """`--storage` as it is named everywhere: an absolute path, or a URL. Raises InputError."""
    from trainables.storage.object_store import checked_url, is_url

    return checked_url(given) if is_url(given) else str(Path(given).expanduser().resolve())


def space_file(given: str) -> Path:
    """The file as given, or the shipped one by that path from any working directory."""
    file = Path(given)
    return file if file.exists() else existing_path(given) or file
