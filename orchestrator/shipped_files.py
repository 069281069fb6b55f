"""Where the files that ship with the project are, in a checkout or installed."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # the checkout, or where the wheel is installed
_FOLDERS = ("base_models", "search_spaces")  # an installed ROOT holds other projects' folders too


def existing_path(text: str) -> Path | None:
    """The absolute path of a file or folder as given, else of the shipped one; None without one.

    The shipped ones are named as in the repository: `base_models/small`,
    `search_spaces/quickstart.yaml`.
    """
    given = Path(text).expanduser()
    if given.exists():
        return given.resolve()
    shipped = ROOT / given
    is_shipped = given.parts[:1] and given.parts[0] in _FOLDERS and ".." not in given.parts
    return shipped.resolve() if is_shipped and shipped.exists() else None
