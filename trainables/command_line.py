"""What all commands share: exit codes, the parser's form, and errors as messages on stderr."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from trainables.errors import InputError
from trainables.standard_streams import OutputGoneError, standard_streams
from trainables.storage.errors import StorageError

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
READER_ENDED = 141  # of standard output, as `head` does; a shell's code for SIGPIPE


def run_command(
    work: Callable[[], int],
    *,
    prefix: str = "error: ",
    next_step: Callable[[], str] = lambda: "",
    failures: Mapping[type[Exception], str] = MappingProxyType({}),
    needs_output: bool = True,
) -> int:
    """Calls `work` and returns its exit code, or that of the error that ended it, which is printed.

    `work` begins with the reading of the arguments, so that `--help` is printed as all else is.
    InputError, StorageError and PermissionError give BAD_INPUT, KeyboardInterrupt INTERRUPTED.
    `failures` are the exceptions that give FAILED, each with a line printed after its message.
    `prefix` precedes a message. `next_step` is called after a StorageError or an interruption: how
    to continue.
    SIGTERM and SIGHUP interrupt as Ctrl-C does; of these, what is ignored at the start stays so.

    What can't be encoded is shown by something else. Where standard output takes nothing any more,
    the command goes on without it; one that `needs_output` ends quietly with READER_ENDED if its
    reader has ended, else with FAILED and the reason.
    """
    with standard_streams(needs_output=needs_output), _signals_like_ctrl_c():
        try:
            try:
                return _code(work, prefix=prefix, next_step=next_step, failures=failures)
            finally:
                sys.stdout.flush()
        except OutputGoneError as error:
            if error.reader_has_ended:
                return READER_ENDED
            _print(f"{prefix}{error}")
            return FAILED


def new_parser(
    module: str, *, description: str, epilog: str | None = None
) -> argparse.ArgumentParser:
    """A parser that prints both texts as they are; its usage names the command that was typed.

    That is `python -m MODULE` or the console command of pyproject.toml: `sweep` for
    orchestrator.sweep, `sweep-NAME` for a module called NAME.
    """
    name = module.rpartition(".")[2]
    console_command = name if name == "sweep" else f"sweep-{name}"
    typed = Path(sys.argv[0]).name
    return argparse.ArgumentParser(
        prog=typed if typed == console_command else f"python -m {module}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


@contextlib.contextmanager
def _signals_like_ctrl_c() -> Iterator[None]:
    """Inside it SIGTERM and SIGHUP have the effect of Ctrl-C, but for what was ignored before."""
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        found = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
        before = {number: how for number, how in found.items() if how is signal.SIG_DFL}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, how in before.items():
            signal.signal(number, how)


def _code(
    work: Callable[[], int],
    *,
    prefix: str,
    next_step: Callable[[], str],
    failures: Mapping[type[Exception], str],
) -> int:
    try:
        return work()
    except InputError as error:
        _print(*(f"{prefix}{message}" for message in error.messages))
        return BAD_INPUT
    except StorageError as error:
        _print(f"{prefix}{error} {next_step()}".rstrip())
        return BAD_INPUT
    except PermissionError as error:
        where = f"{error.filename}: " if error.filename else ""
        _print(f"{prefix}{where}{error.strerror}. Its owner can let you read it (chmod a+rX).")
        return BAD_INPUT
    except tuple(failures) as error:
        hint = next(text for kind, text in failures.items() if isinstance(error, kind))
        _print(f"{prefix}{error}", *([hint] if hint else []))
        return FAILED
    except KeyboardInterrupt:
        _print(f"\nInterrupted. {next_step()}".rstrip())
        return INTERRUPTED


def _print(*lines: str) -> None:
    print(*lines, sep="\n", file=sys.stderr)
