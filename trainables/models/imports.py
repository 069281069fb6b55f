"""Imports without the compiler that the imported libraries load and this project never uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def without_compiler() -> Iterator[None]:
    """Inside, `torch.compile` and `torch.compiler.disable` return each function as it is.

    While they are imported, bitsandbytes and transformers decorate functions with these two, which
    imports `torch._inductor`, a second of CPU in each process. No model is compiled in this
    project, so the decorated functions run as they are written with and without the decorators.
    Both functions of torch are themselves again when the context ends, whatever ends it; functions
    that were decorated inside stay as they are.
    """
    compile_, disable = torch.compile, torch.compiler.disable
    torch.compile, torch.compiler.disable = _undecorated, _undecorated  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compile, torch.compiler.disable = compile_, disable


def _undecorated(function: Any = None, *_: Any, **__: Any) -> Any:
    """The function; where only options are given, a decorator that returns its function."""
    return _undecorated if function is None else function
