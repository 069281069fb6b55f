"""The fork server: a command that it runs is as one that Python runs, but for its imports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from orchestrator.cluster.forked_python import ForkedPython
from tests.tiny_trials import make_spec
from trainables.storage.trial_folder import TrialFolder
from trainables.workers.fork_server import can_fork

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_fork(), reason="needs Linux, and no GPU"),
]
REPOSITORY = Path(__file__).resolve().parent.parent.parent.parent
WITHIN_SECONDS = 60


@pytest.fixture(scope="module")
def python() -> Iterator[tuple[str, ...]]:
    """The command that runs Python as a fork, of one server for all tests."""
    with ForkedPython(cpus=1) as forked:
        yield forked.python


def script(folder: Path, text: str) -> str:
    file = folder / "script.py"
    file.write_text(text)
    return str(file)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WITHIN_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_it_has_the_arguments_streams_environment_and_folder_of_its_client(
    python: tuple[str, ...], tmp_path: Path
) -> None:
    text = """
import os, sys
print(sys.argv[1:], os.environ["MARK"], "KEPT" in os.environ, os.getcwd(), __name__)
print(sys.stdin.read(), file=sys.stderr)
sys.exit(7)
"""
    done = subprocess.run(
        [*python, script(tmp_path, text), "one", "two words"],
        input="what it reads",
        cwd=tmp_path,
        env={**os.environ, "MARK": "its own"},
        capture_output=True,
        text=True,
        timeout=WITHIN_SECONDS,
        check=False,
    )
    assert done.stdout == f"['one', 'two words'] its own False {tmp_path} __main__\n"
    assert done.stderr.strip() == "what it reads"
    assert done.returncode == 7


def test_a_module_runs_as_with_m(python: tuple[str, ...]) -> None:
    done = subprocess.run(
        [*python, "-m", "trainables.simulation.service", "--help"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=WITHIN_SECONDS,
        check=True,
    )
    assert "--cache" in done.stdout


def test_it_starts_with_everything_imported_and_one_thread(
    python: tuple[str, ...], tmp_path: Path
) -> None:
    text = """
import os, sys
print("peft" in sys.modules, "trainables.training.loop" in sys.modules)
print(len(os.listdir("/proc/self/task")))
import torch
print(torch.get_num_threads(), torch.cuda.is_initialized())
"""
    done = subprocess.run(
        [*python, script(tmp_path, text)],
        capture_output=True,
        text=True,
        timeout=WITHIN_SECONDS,
        check=True,
    )
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    assert done.stdout.split() == ["True", "True", "1", threads, "False"]


def test_an_exception_is_a_traceback_and_1(python: tuple[str, ...], tmp_path: Path) -> None:
    done = subprocess.run(
        [*python, script(tmp_path, "raise ValueError('a mistake')")],
        capture_output=True,
        text=True,
        timeout=WITHIN_SECONDS,
        check=False,
    )
    assert done.returncode == 1
    assert "ValueError: a mistake" in done.stderr


def test_a_killed_client_takes_its_command_along_and_no_other(
    python: tuple[str, ...], tmp_path: Path
) -> None:
    """A command that holds the interpreter's lock for ever can't end by itself."""
    place = script(tmp_path, "import os\nprint(os.getpid(), flush=True)\n" + "9**9**9\n")
    killed, spared = (
        subprocess.Popen([*python, place], stdout=subprocess.PIPE, text=True) for _ in range(2)
    )
    assert killed.stdout is not None and spared.stdout is not None
    first, second = int(killed.stdout.readline()), int(spared.stdout.readline())
    killed.kill()
    until(lambda: not psutil.pid_exists(first))
    assert psutil.pid_exists(second)
    assert spared.poll() is None
    os.kill(second, signal.SIGKILL)
    assert spared.wait(WITHIN_SECONDS) == 128 + signal.SIGKILL


def test_without_a_server_the_command_runs_as_usual(
    python: tuple[str, ...], tmp_path: Path
) -> None:
    nobody = [*python[:-1], str(tmp_path / "no socket")]
    text = "import sys\nprint('torch' in sys.modules)\nsys.exit(3)"
    done = subprocess.run(
        [*nobody, script(tmp_path, text)],
        capture_output=True,
        text=True,
        timeout=WITHIN_SECONDS,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("False\n", 3)


def test_the_server_ends_with_whoever_holds_it_and_leaves_no_file(tmp_path: Path) -> None:
    """A driver that is killed can close nothing; its end of the pipe goes all the same."""
    driver = """if True:
        import os, sys
        from orchestrator.cluster.forked_python import ForkedPython
        with ForkedPython(cpus=1) as forked:
            print(forked._process.pid, forked.python[-1], flush=True)
            os.kill(os.getpid(), 9)
    """
    done = subprocess.run(
        [sys.executable, "-c", driver], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    server, place = done.stdout.split()
    until(lambda: not psutil.pid_exists(int(server)))
    assert not Path(place).parent.exists()


def test_a_trial_in_a_fork_gives_the_same_bytes_as_in_a_process_of_its_own(
    python: tuple[str, ...], tiny_llama: Path, tmp_path: Path
) -> None:
    text = """
import sys
from trainables.workers.host import HostProcess
host = HostProcess({})
host.warm_up()
assert host.start(sys.argv[1]) == []
while host.next().kind != "finished":
    pass
"""
    adapters = []
    for number, command in enumerate(((sys.executable,), python)):
        spec = make_spec(tiny_llama, quantization="nf4")
        folder = TrialFolder(tmp_path / str(number) / spec.trial_id)
        folder.write_spec(spec, {})
        subprocess.run(
            [*command, script(tmp_path, text), str(folder.path)],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
            timeout=300,
            check=True,
        )
        adapters.append((folder.path / "adapter" / "adapter_model.safetensors").read_bytes())
    assert adapters[0] == adapters[1]
