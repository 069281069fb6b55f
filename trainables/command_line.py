"""What all commands share: exit codes, the parser's form, and errors as messages on stderr."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from trainables.errors import InputError
from trainables.storage.errors import StorageError

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def run_command(
    work: Callable[[], int],
    *,
    prefix: str = "error: ",
    next_step: Callable[[], str] = lambda: "",
    failures: Mapping[type[Exception], str] = MappingProxyType({}),
) -> int:
    """Calls `work` and returns its exit code, or that of the error that ended it, which is printed.

    InputError and StorageError give BAD_INPUT, KeyboardInterrupt gives INTERRUPTED. `failures` are
    the exceptions that give FAILED, each with a line printed after its message. `prefix` precedes
    a message. `next_step` is called after a StorageError or an interruption: how to continue.
    """
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


def _print(*lines: str) -> None:
    print(*lines, sep="\n", file=sys.stderr)
