"""The driver's side of a preflight: what is asked, what is kept, and what refuses a sweep."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.reader import from_mapping
from orchestrator.planning.planner import Planner
from orchestrator.planning.simulator import SimulatorClient
from orchestrator.preflight import PreflightGate, preflight, preflight_specs
from orchestrator.sweep import main
from tests.orchestrator import tiny_sweep
from trainables.errors import InputError
from trainables.preflight.findings import Findings
from trainables.spec.rows.chat_formats import chat_format_of

SAYS = """
import json, sys
for line in sys.stdin:
    asked = len(json.loads(line)["preflight"])
    open({asked!r}, "a").write(f"{{asked}} ")
    print(json.dumps({{"id": None, "say": "the train split"}}), flush=True)
    print({answer!r}, flush=True)
"""
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


class Asked:
    """A simulator's process that answers every preflight with the same findings."""

    def __init__(self, tmp_path: Path, **found: list[str]) -> None:
        self._asked = tmp_path / "asked"
        answer = json.dumps({"id": None, "findings": Findings(**found).to_json()})
        file = tmp_path / "says.py"
        file.write_text(SAYS.format(asked=str(self._asked), answer=answer))
        self.said: list[str] = []
        command = (sys.executable, str(file))
        self.client = SimulatorClient(cache=None, warn=self.said.append, command=command)

    @property
    def specs(self) -> list[int]:
        """How many specs each preflight was about."""
        return [*map(int, self._asked.read_text().split())] if self._asked.exists() else []

    def gate(self, cache: Path) -> PreflightGate:
        say = self.said.append
        return PreflightGate(planner(), self.client, cache=cache, notify=say, note=say)


def planner(**space: Any) -> Planner:
    value = tiny_sweep.mapping()
    value["space"] |= space
    return tiny_sweep.planner(from_mapping(value))


def read(specs: Sequence[Any], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(spec.knobs[name] for name in names) for spec in specs]


def test_each_model_prompt_and_length_is_looked_at_once_whatever_else_varies() -> None:
    specs = preflight_specs(
        planner(
            model=["one", "other"],
            sequence_length=[256, 128],
            batch_size=[1, 2, 4],
            learning_rate={"log_uniform": [1.0e-5, 1.0e-3]},
        )
    )
    lengths = [("one", 256), ("one", 128), ("other", 256), ("other", 128)]
    assert sorted(read(specs, "model", "sequence_length")) == sorted(lengths * 2)
    assert set(read(specs, "quantization")) == {("none",), ("nf4",)}
    specs = preflight_specs(planner(quantization="none", prompt=["short", "statements"]))
    assert read(specs, "prompt") == [("short",), ("statements",)]


def test_of_a_range_of_lengths_the_shortest_is_looked_at() -> None:
    lengths = {"integers": [64, 4096]}
    specs = preflight_specs(planner(quantization="none", sequence_length=lengths))
    assert read(specs, "sequence_length") == [(64,)]


def test_shots_are_looked_at_where_they_are_refused() -> None:
    shots = {"shots": [0, 2, 8], "shot_seed": [0, 1]}
    for too_long, looked_at in (("drop", 1), ("refuse", 5)):
        method = [{"prompting": {**shots, "shots_too_long": too_long}}]
        specs = preflight_specs(planner(quantization="none", method=method))
        assert len(specs) == looked_at


def test_each_chat_format_is_looked_at() -> None:
    specs = preflight_specs(planner(quantization="none", chat_format=["auto", "none", "dolly"]))
    assert [chat_format_of(spec.knobs) for spec in specs] == ["auto", "none", "dolly"]


def test_a_result_without_faults_is_kept_for_the_next_start(tmp_path: Path) -> None:
    asked = Asked(tmp_path, notes=["prompts are cut"])
    for _ in range(2):
        asked.gate(tmp_path / "kept").pass_through(lambda: None)
    assert asked.said == ["prompts are cut"] * 2
    assert asked.specs == [2]
    preflight(planner(sequence_length=64), asked.client, cache=tmp_path / "kept")
    asked.client.close()
    assert asked.specs == [2, 2]


@pytest.mark.parametrize("found", [{"faults": ["a", "b"]}, {"without_weights": ["a", "b"]}])
def test_all_faults_refuse_a_sweep_at_once_and_are_looked_for_again(
    tmp_path: Path, found: dict[str, list[str]]
) -> None:
    asked = Asked(tmp_path, **found)
    for _ in range(2):
        with pytest.raises(InputError) as refused:
            asked.gate(tmp_path / "kept").pass_through(lambda: None)
        assert len(refused.value.messages) == 2
    asked.client.close()
    assert asked.specs == [2, 2]


def test_faults_of_a_sweep_with_finished_trials_are_warnings(tmp_path: Path) -> None:
    asked = Asked(tmp_path, faults=["a fault"])
    gate = asked.gate(tmp_path / "kept")
    gate.only_warns = True
    gate.pass_through(lambda: None)
    asked.client.close()
    assert asked.said == ["warning: a fault"]


def test_what_waits_for_it_is_refused_as_soon_as_faults_are_known(tmp_path: Path) -> None:
    asked = Asked(tmp_path, faults=["a fault"])
    check = asked.gate(tmp_path / "kept").checked(lambda: None)
    with pytest.raises(InputError, match="a fault"):
        while True:
            check()
    asked.client.close()


def test_models_that_were_fetched_meanwhile_are_looked_at_then(tmp_path: Path) -> None:
    asked = Asked(tmp_path, unchecked=["owner/name"])
    asked.gate(tmp_path / "kept").pass_through(lambda: None)
    asked.client.close()
    assert asked.specs == [2, 2]
    assert asked.said == [
        "model: owner/name is not on this machine yet; it is checked when it is loaded."
    ]


def test_without_the_process_nothing_is_refused(tmp_path: Path) -> None:
    said: list[str] = []
    client = SimulatorClient(cache=None, warn=said.append, command=(str(tmp_path / "absent"),))
    gate = PreflightGate(planner(), client, cache=tmp_path, notify=said.append, note=said.append)
    gate.pass_through(lambda: None)
    assert len(said) == 1


@pytest.mark.slow
def test_a_plan_and_a_sweep_are_refused_and_the_mended_sweep_runs(
    tmp_path: Path, base_models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that was not fetched, and examples that do not fit, are told in one go."""
    model = shutil.copytree(base_models / "small", tmp_path / "model")
    weights = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_text(POINTER)
    value = tiny_sweep.mapping(str(model), search={"algorithm": "grid", "trials": 1})
    value["space"] |= {"quantization": "none", "rank": 2, "sequence_length": 16}
    space = tiny_sweep.write_space(tmp_path / "tiny.yaml", value)
    told = ("has a Git LFS pointer", "examples need more than 16 tokens")
    assert main([str(space), "--storage", str(tmp_path / "runs"), "--dry-run"]) == 2
    planned = capsys.readouterr().err
    assert all(fault in planned for fault in told)
    refused = tiny_sweep.sweep(space, tmp_path / "runs")
    assert refused.returncode == 2
    assert all(fault in refused.stderr for fault in told) and "Resume" not in refused.stderr
    assert tiny_sweep.summaries(tmp_path / "runs" / "tiny") == {}
    (model / "model.safetensors").write_bytes(weights)
    value["space"] |= {"sequence_length": 256}
    done = tiny_sweep.sweep(tiny_sweep.write_space(space, value), tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    states = {found["state"] for found in tiny_sweep.summaries(tmp_path / "runs" / "tiny").values()}
    assert states == {"finished"}
