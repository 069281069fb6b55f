"""Full and read-only disks: the message is clear, and no incomplete file is used.

The disk is real: a tmpfs of a few megabytes, or one mounted read-only, in a mount namespace of the
test's own process. The tests are skipped if that is not allowed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.orchestrator import tiny_sweep
from tests.orchestrator.run_builder import add_trial, new_run, outcomes
from tests.tiny_models import make_llama

pytestmark = pytest.mark.slow

Script = Callable[..., str]
LONGEST_SECONDS = 600.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("model"))


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Where a script may mount a disk."""
    place = tmp_path / "disk"
    place.mkdir()
    probe = ["unshare", "--mount", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        done = subprocess.run(probe, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if done.returncode:
        pytest.skip(f"disks can't be mounted here: {done.stderr.strip()}")
    return place


def mounted(*commands: str) -> subprocess.CompletedProcess[str]:
    """Runs shell commands in a mount namespace of their own; what they mount goes with them."""
    return subprocess.run(
        ["unshare", "--mount", "bash", "-euc", "\n".join(commands)],
        cwd=tiny_sweep.REPOSITORY,
        env=tiny_sweep.environment(),
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )


def python(text: str, *arguments: object) -> str:
    """A shell command that runs Python."""
    script = Path(os.environ["PYTEST_SCRIPT_FOLDER"]) / f"script{abs(hash(text))}.py"
    script.write_text(textwrap.dedent(text))
    return " ".join([sys.executable, str(script), *map(str, arguments)])


@pytest.fixture(autouse=True)
def script_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_SCRIPT_FOLDER", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tiny_sweep.REPOSITORY))


FILL_UP = """
    '''A host trains on a disk that fills up, and again once there is room.'''
    import sys
    from pathlib import Path

    from tests.tiny_trials import make_spec
    from trainables.training.checkpoint import load_latest
    from trainables.workers.host import HostProcess
    from trainables.workers.outcomes import Failure
    from trainables.storage.run_folder import RunFolder

    disk, model, moment = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    run = RunFolder(disk / "run")
    spec = make_spec(model)
    folder = run.trial(spec.trial_id)
    folder.write_spec(spec, {})
    host = HostProcess({})
    host.warm_up()

    def fill(free: int) -> None:
        '''Leaves so many bytes free.'''
        with (disk / "filler").open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError:
                pass
            filler.truncate(max(0, filler.tell() - free))

    def steps() -> list:
        told = []
        while not told or not (isinstance(told[-1], Failure) or told[-1].kind == "finished"):
            told.append(host.next())
            if moment == "training" and len(told) == 2:
                fill(8192)
        return told

    if moment == "start":
        fill(0)
    begun = host.start(str(folder.path))
    told = steps() if not isinstance(begun, Failure) else [begun]
    print("FIRST", told[-1])
    assert isinstance(told[-1], Failure) and not told[-1].infeasible
    assert not folder.done and folder.summary() is None
    assert not [*disk.rglob("*.part")], "what was half written takes room"
    last = load_latest(folder.checkpoints_folder)
    print("CHECKPOINT", last and last.step)
    (disk / "filler").unlink()
    moment = "with room"
    past = host.start(str(folder.path))
    told = [*past, *steps()]
    print("AGAIN", told[-1].kind, [event.step for event in told if event.kind == "rung"])
    assert folder.done and folder.is_sound()
"""


@pytest.mark.parametrize("moment", ["start", "training"])
def test_a_trial_on_a_full_disk_fails_with_the_reason_and_goes_on_once_there_is_room(
    disk: Path, model: Path, moment: str
) -> None:
    mount = f"mount -t tmpfs -o size=2m tmpfs {disk}"
    done = mounted(mount, python(FILL_UP, disk, model, moment))
    assert done.returncode == 0, done.stdout + done.stderr
    first = next(line for line in done.stdout.splitlines() if line.startswith("FIRST"))
    assert "StorageError" in first and "No space left on device" in first and str(disk) in first
    assert "MiB are free there" in first
    again = next(line for line in done.stdout.splitlines() if line.startswith("AGAIN"))
    assert again == "AGAIN finished [1, 2, 4]"


def test_a_sweep_in_a_place_that_cannot_be_written_is_refused_in_one_line(
    disk: Path, model: Path, tmp_path: Path
) -> None:
    space = tiny_sweep.write_space(tmp_path / "tiny.yaml", tiny_sweep.mapping(str(model)))
    mount = f"mount -t tmpfs -o size=1m,ro tmpfs {disk}"
    command = " ".join(tiny_sweep.command(space, disk / "runs"))
    done = mounted(mount, f"set +e; {command}; exit $?")
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and "Read-only file system" in lines[0] and "--storage" in lines[0]


def test_a_report_of_a_place_that_cannot_be_written_is_printed(disk: Path) -> None:
    run = new_run(disk.parent / "quickstart")
    add_trial(run, right=outcomes(60))
    mount = f"mount --bind {run.path} {disk}; mount -o remount,bind,ro {disk}"
    done = mounted(mount, f"{sys.executable} -m orchestrator.report {disk}")
    assert done.returncode == 0, done.stderr
    assert "60.0%" in done.stdout and "Traceback" not in done.stderr
    assert "only printed" in done.stderr and "Read-only file system" in done.stderr


def test_a_sweep_whose_disk_is_full_ends_says_so_and_goes_on_with_room(
    disk: Path, model: Path, tmp_path: Path
) -> None:
    """Full once a host has begun with the first trial, which is not failed for it, nor is any: the
    same command finishes them all.
    """
    value = tiny_sweep.mapping(str(model), search={"algorithm": "random", "trials": 2})
    value["space"]["quantization"] = "none"
    space = tiny_sweep.write_space(tmp_path / "tiny.yaml", value)
    tracked = f"--tracking-uri sqlite:///{tmp_path}/a.db"
    command = " ".join([*tiny_sweep.command(space, disk / "runs"), tracked])
    done = mounted(
        f"mount -t tmpfs -o size=2m tmpfs {disk}",
        f"(until ls {disk}/runs/tiny/trials/*/owner.json; do sleep 0.1; done; cat /dev/zero > "
        f"{disk}/filler) > /dev/null 2>&1 &",
        f"set +e; {command}; echo CODE $?",
        f"cat {disk}/runs/tiny/trials/*/summary.json > {tmp_path}/first.txt 2> /dev/null",
        f"rm {disk}/filler",
        f"{command}; echo CODE $?",
        f"cp -r {disk}/runs/tiny {tmp_path}/second",
    )
    told = done.stdout + done.stderr
    first, _, second = done.stdout.partition("CODE ")
    assert second.startswith("2"), told
    assert "No space left on device" in first + done.stderr, told
    assert "Traceback" not in told
    assert '"state": "failed"' not in (tmp_path / "first.txt").read_text()
    assert second.rstrip().endswith("CODE 0"), told
    summaries = tiny_sweep.summaries(tmp_path / "second").values()
    assert Counter(summary["role"] for summary in summaries) == {"trial": 2, "baseline": 1}
    assert {summary["state"] for summary in summaries} <= {"finished", "stopped"}
