"""Obeys the modes of files also where the tests run as root, who may read and write everything."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3: two sets of 32 bits each
_MAY_DO_ALL = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
_LIBC = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Set(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable"))


@contextmanager
def modes_obeyed() -> Iterator[None]:
    """Within it, this thread may do with its user's files only what their modes say."""
    header, sets = _Header(_VERSION, 0), (_Set * 2)()
    _call("capget", header, sets)
    kept = sets[0].effective
    sets[0].effective = kept & ~_MAY_DO_ALL
    _call("capset", header, sets)
    try:
        yield
    finally:
        sets[0].effective = kept
        _call("capset", header, sets)


def _call(name: str, header: _Header, sets: ctypes.Array[_Set]) -> None:
    if getattr(_LIBC, name)(ctypes.byref(header), sets) != 0:
        raise OSError(ctypes.get_errno(), f"{name} failed")
