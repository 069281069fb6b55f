"""The doctor's table, its exit codes, and its findings from the answers of nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cluster.nodes import Node, NodeResult
from orchestrator.doctor.__main__ import main
from orchestrator.doctor.checks import differing
from orchestrator.doctor.findings import Finding, all_passed, table
from orchestrator.doctor.node_probes import node_reaches, read_ops
from tests.conftest import REPOSITORY
from tests.orchestrator.tracking.mlflow_servers import free_port
from trainables.command_line import BAD_INPUT, DONE, FAILED

REPORT = """\
ninja .................. [OKAY]
op name ................ installed .. compatible
cpu_adam ............... \x1b[93m[NO]\x1b[0m ....... \x1b[92m[OKAY]\x1b[0m
\x1b[93m [WARNING] \x1b[0m async_io requires the dev libaio .so object and headers
fused_adam ............. [NO] ....... [NO]
evoformer_attn ......... [YES] ...... [OKAY]
torch version .................... 2.13.0
"""


def test_each_failure_is_shown_with_its_mend_and_nothing_else_is() -> None:
    shown = table(
        [
            Finding("nodes", True, "3 up", "not needed"),
            Finding("GPUs", None, "none"),
            Finding("storage", False, "10.0.0.2: it is another folder there", "Mount it there."),
        ]
    )
    assert shown.splitlines() == [
        "nodes          pass  3 up",
        "GPUs           -     none",
        "storage        FAIL  10.0.0.2: it is another folder there",
        "                     mend: Mount it there.",
    ]


def test_what_was_not_looked_at_is_no_failure() -> None:
    assert all_passed([Finding("a", True, ""), Finding("b", None, "")])
    assert not all_passed([Finding("a", True, ""), Finding("b", False, "")])


def test_long_lines_are_folded_below_what_was_found() -> None:
    lines = table([Finding("versions", False, "word " * 40, "mend " * 40)]).splitlines()
    assert all(len(line) <= 100 for line in lines)
    assert all(line.startswith(" " * 21) for line in lines[1:])


def test_the_node_that_differs_is_named_not_the_many() -> None:
    versions = [{"ray": "2", "torch": "1"}, {"ray": "2", "torch": "1"}, {"ray": "2", "torch": "9"}]
    answers = [
        NodeResult(Node(f"node {place}", f"node {place}", 1, 0, False), found)
        for place, found in enumerate(versions)
    ]
    assert list(differing(answers)) == ["torch: node 2 has 9, the others 1"]


def test_deepspeeds_report_is_read() -> None:
    ops = read_ops(REPORT)
    assert ops["cpu_adam"] and not ops["fused_adam"] and ops["evoformer_attn"]
    assert "torch" not in ops


def test_a_server_that_is_not_there_is_said() -> None:
    assert "refused" in node_reaches(f"http://127.0.0.1:{free_port()}/health")


def test_a_cluster_file_that_is_not_ready_fails_with_all_that_is_to_mend(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert main(["--cluster", "clusters/kuberay/raycluster.yaml"]) == FAILED
    said = capsys.readouterr().out
    assert "is not ready" in said and "2 to mend." in said


def test_a_cluster_file_that_is_ready_passes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from orchestrator.doctor.cluster_file import FILL_IN

    shipped = (REPOSITORY / "clusters" / "kuberay" / "rayjob.yaml").read_text()
    file = tmp_path / "job.yaml"
    file.write_text("\n".join(FILL_IN.sub("x:1", shipped).splitlines()[9:]))
    assert main(["--cluster", str(file)]) == DONE
    assert "nothing wrong" in capsys.readouterr().out


def test_a_space_that_is_not_there_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--space", "no-such.yaml"]) == BAD_INPUT
    assert "no such file" in capsys.readouterr().err
