"""The simulator's process: it answers, refuses, or dies."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from orchestrator.planning.simulator import SimulatorClient
from tests.orchestrator.predicted import estimate_of

REQUEST: dict[str, Any] = {
    "trial": {"knobs": {"quantization": "none", "method": "lora"}},
    "micro_batch": 2,
    "eval_batch": 4,
}
ANSWERS = f"""
import sys
for count, line in enumerate(sys.stdin):
    if '"bad"' in line:
        print('{{"id": null, "error": "ValueError: no such model"}}', flush=True)
    elif '"deadly"' in line:
        sys.exit("Killed by a test")
    else:
        print({json.dumps(json.dumps({"prediction": estimate_of(REQUEST).to_json()}))}, flush=True)
"""


def program(tmp_path: Path, text: str = ANSWERS) -> tuple[str, ...]:
    file = tmp_path / "answers.py"
    file.write_text(text)
    return (sys.executable, str(file))


def asking(tmp_path: Path, **more: Any) -> tuple[SimulatorClient, list[str]]:
    said: list[str] = []
    made = SimulatorClient(cache=None, warn=said.append, command=program(tmp_path), **more)
    return made, said


def test_an_answer_comes_back_as_it_was_made_and_is_kept(tmp_path: Path) -> None:
    predictions, said = asking(tmp_path)
    first = predictions.of(REQUEST)
    assert first == estimate_of(REQUEST)
    assert predictions.of(REQUEST) is first
    predictions.close()
    assert said == []


def test_one_that_can_not_be_predicted_spoils_no_other_and_is_said_once(tmp_path: Path) -> None:
    predictions, said = asking(tmp_path)
    assert predictions.of({**REQUEST, "config": "bad"}) is None
    assert predictions.of({**REQUEST, "config": "bad", "again": 1}) is None
    assert predictions.of(REQUEST) == estimate_of(REQUEST)
    predictions.close()
    assert said == ["warning: a configuration can't be predicted: ValueError: no such model"]


def test_one_that_is_only_proposed_is_not_warned_of_until_it_is_meant(tmp_path: Path) -> None:
    predictions, said = asking(tmp_path)
    assert predictions.of({**REQUEST, "config": "bad"}, warns=False) is None
    assert said == []
    assert predictions.of({**REQUEST, "config": "bad"}) is None
    predictions.close()
    assert len(said) == 1


def test_a_process_that_dies_is_said_once_and_nothing_is_predicted_from_then_on(
    tmp_path: Path,
) -> None:
    predictions, said = asking(tmp_path)
    known = predictions.of(REQUEST)
    assert predictions.of({**REQUEST, "config": "deadly"}) is None
    assert predictions.of({**REQUEST, "config": "fine"}) is None
    assert predictions.of(REQUEST) is known
    [line] = said
    assert "has ended: Killed by a test" in line
    assert "runs without a prediction" in line


def test_a_process_that_can_not_be_started_is_no_predictions(tmp_path: Path) -> None:
    said: list[str] = []
    predictions = SimulatorClient(cache=None, warn=said.append, command=(str(tmp_path / "absent"),))
    predictions.start()
    assert predictions.of(REQUEST) is None
    assert len(said) == 1


def test_it_ends_with_the_driver_however_that_ends(tmp_path: Path) -> None:
    """A driver that is killed can close nothing; its end of the pipe goes all the same."""
    mark = tmp_path / "ended"
    text = f"import sys\nfor line in sys.stdin: pass\nopen({str(mark)!r}, 'w').close()\n"
    driver = (
        "import os\nfrom orchestrator.planning.simulator import SimulatorClient\n"
        f"SimulatorClient(cache=None, warn=print, command={program(tmp_path, text)!r}).start()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    repository = Path(__file__).resolve().parent.parent.parent.parent
    subprocess.run([sys.executable, "-c", driver], cwd=repository, check=False)
    until = time.monotonic() + 10
    while not mark.exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert mark.exists()


def test_a_plan_fetches_nothing_from_the_hub(tmp_path: Path) -> None:
    text = "import os, sys\nfor line in sys.stdin: sys.exit(os.environ['HF_HUB_OFFLINE'])\n"
    said: list[str] = []
    command = program(tmp_path, text)
    predictions = SimulatorClient(cache=None, warn=said.append, offline=True, command=command)
    assert predictions.of(REQUEST) is None
    assert "has ended: 1." in said[0]
