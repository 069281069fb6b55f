"""Standard output and standard error of a command: what they can't take never breaks the work."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import select
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

SHOWN = "shown"  # the error handler of the streams, by which they show what they can't encode
_STANDARD_STREAMS = 3
_LOOK_ALIKE = {
    "\N{EN DASH}": "-",
    "\N{EM DASH}": "-",
    "\N{MIDDLE DOT}": "*",
    "\N{HORIZONTAL ELLIPSIS}": "...",
    "\N{LEFT SINGLE QUOTATION MARK}": "'",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{LEFT DOUBLE QUOTATION MARK}": '"',
    "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
}


class OutputGoneError(BaseException):
    """Standard output takes nothing any more: its reader has ended, or its disk is full.

    Not an Exception, as KeyboardInterrupt: what is left of the command is only its cleaning up.
    """

    def __init__(self, reason: OSError) -> None:
        super().__init__(f"standard output: {reason.strerror or reason}")
        self.reader_has_ended = isinstance(reason, BrokenPipeError)


@contextlib.contextmanager
def standard_streams(*, needs_output: bool) -> Iterator[None]:
    """Inside it, writing to sys.stdout and sys.stderr raises neither OSError nor UnicodeError.

    What a stream can't encode is shown by characters that look alike, or escaped. What can't be
    written is dropped; if the command `needs_output`, because its output is its work, the first
    such text of standard output raises OutputGoneError instead. May be nested. A stream that the
    caller has put in place of Python's own is left alone.
    """
    _open_closed_descriptors()
    before = sys.stdout, sys.stderr
    if _is_standard(sys.stdout, sys.__stdout__):
        sys.stdout = _stream(1, sys.stdout, _stop if needs_output else _tell)
    if _is_standard(sys.stderr, sys.__stderr__):
        sys.stderr = _stream(2, sys.stderr, _drop)
    try:
        yield
        sys.stdout.flush()
    finally:
        with contextlib.suppress(OutputGoneError):
            sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def shows_everything(stream: TextIO) -> bool:
    """Whether the encoding of a stream has every character."""
    return codecs.lookup(stream.encoding or "ascii").name.startswith("utf")


class _Outlet(io.FileIO):
    """A descriptor that is written to as long as it takes anything; `on_loss` gets the error."""

    def __init__(self, descriptor: int, on_loss: Callable[[OSError], None]) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._on_loss = on_loss

    def write(self, data: ReadableBuffer) -> int:
        """Writes a part of the data at least; waits where the descriptor does not block."""
        try:
            while (written := super().write(data)) is None:
                select.select([], [self], [])
        except OSError as error:
            size = memoryview(data).nbytes
            on_loss, self._on_loss = self._on_loss, _drop
            on_loss(error)
            return size
        return int(written)


def _is_standard(stream: TextIO | None, pythons_own: TextIO | None) -> bool:
    return stream is pythons_own or stream is None or stream.errors == SHOWN


def _stream(
    descriptor: int, before: TextIO | None, on_loss: Callable[[OSError], None]
) -> io.TextIOWrapper:
    codecs.register_error(SHOWN, _shown)
    outlet = _Outlet(descriptor, on_loss)
    by_lines = ("line_buffering", "write_through")  # the second is `python -u`
    return io.TextIOWrapper(
        io.BufferedWriter(outlet),
        encoding=before.encoding if before is not None else "utf-8",
        errors=SHOWN,
        line_buffering=any(getattr(before, name, False) for name in by_lines),
    )


def _shown(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    shown = (_LOOK_ALIKE.get(each) or _escaped(each) for each in text)
    return "".join(shown), error.end


def _escaped(character: str) -> str:
    return character.encode("ascii", errors="backslashreplace").decode("ascii")


def _stop(error: OSError) -> None:
    raise OutputGoneError(error)


def _drop(error: OSError) -> None:
    """What is written from here on is lost, unless the stream takes it again."""


def _tell(error: OSError) -> None:
    """Past sys.stderr, which may be redirected to the stream that is being written to."""
    text = f"warning: standard output: {error.strerror}; going on without it.\n"
    with contextlib.suppress(OSError):
        os.write(2, text.encode())


def _open_closed_descriptors() -> None:
    """Connects closed standard streams to the null device, else the next file gets their number."""
    for descriptor in range(_STANDARD_STREAMS):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
