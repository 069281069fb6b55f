"""ask answers with the best finished trial within the limits, or with the closest ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.analysis.best_within import Requirements, best_within
from orchestrator.ask import main
from orchestrator.reporting.load_snippet import loading_lines
from orchestrator.runs.lease import Lease
from orchestrator.runs.results import read_trials
from tests.orchestrator.run_builder import add_baseline, add_trial, new_run, new_spec, outcomes
from trainables.spec.rows.chat_formats import CHAT_FORMATS
from trainables.storage.run_folder import RunFolder
from trainables.storage.trial_folder import TrialFolder
from trainables.tasks.exact_match import EM_ACC

GIBIBYTE = 2**30


def add(run: RunFolder, right: int, memory: float, flops: float, **given: Any) -> TrialFolder:
    """A finished trial with `right` of 100, `memory` GiB at its peak, `flops` TFLOP of training."""
    metrics = {"train_peak_memory_bytes": memory * GIBIBYTE, "train_flops": flops * 1e12}
    return add_trial(run, right=outcomes(right), metrics=metrics, **given)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = new_run(tmp_path / "quickstart")
    add(run, 90, 20, 9.0, rank=64)
    add(run, 70, 8, 4.0, rank=8, quantization="nf4")
    add(run, 68, 10, 3.0, rank=16)
    add(run, 40, 4, 1.0, rank=2)
    add(run, 95, 1, 0.1, rank=1, state="stopped")
    add_baseline(run, outcomes(99))
    return run


def best(run: RunFolder, **asked: Any) -> Any:
    found = best_within(read_trials(run), Requirements(**asked), metric=EM_ACC)
    return None if found.best is None else found.best.knobs["rank"]


def test_the_best_is_the_least_of_what_is_minimized_within_the_limits(run: RunFolder) -> None:
    assert best(run) == 64
    assert best(run, gpu_memory=12 * GIBIBYTE) == 8
    assert best(run, gpu_memory=12 * GIBIBYTE, reach=0.6, minimize="train_flops") == 16
    assert best(run, reach=0.6, minimize="memory") == 8
    assert best(run, minimize="memory") == 2
    assert best(run, gpu_memory=3 * GIBIBYTE) is None
    assert best(run, reach=0.95) is None  # the stopped one does not count, nor the baseline


def test_a_limit_holds_what_cuda_takes_beside_the_tensors(run: RunFolder) -> None:
    assert best(run, gpu_memory=int(8.6 * GIBIBYTE)) == 8
    assert best(run, gpu_memory=int(8.5 * GIBIBYTE)) == 2


def test_ties_are_those_within_the_limits_whose_answers_do_not_differ(run: RunFolder) -> None:
    found = best_within(read_trials(run), Requirements(gpu_memory=12 * GIBIBYTE), metric=EM_ACC)
    (tie,) = found.ties
    assert tie.trial.knobs["rank"] == 16 and tie.p_value == 0.5  # 2 questions, both one way
    everywhere = best_within(read_trials(run), Requirements(), metric=EM_ACC)
    assert everywhere.ties == [] and everywhere.not_compared == 0


def test_a_trial_whose_predictions_are_damaged_is_said_not_to_be_compared(run: RunFolder) -> None:
    damaged = next(item for item in read_trials(run) if item.knobs.get("rank") == 16)
    damaged.folder.predictions_file().write_text("")
    found = best_within(read_trials(run), Requirements(gpu_memory=12 * GIBIBYTE), metric=EM_ACC)
    assert found.ties == [] and found.not_compared == 1


def test_where_none_qualifies_the_nearest_are_told_with_what_they_miss_by(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    found = best_within(
        read_trials(run), Requirements(gpu_memory=12 * GIBIBYTE, reach=0.8), metric=EM_ACC
    )
    near = {miss.trial.knobs["rank"]: miss for miss in found.misses}
    assert set(near) == {8, 64}
    assert near[8].lacking == pytest.approx(0.1) and near[8].excess_bytes == 0
    assert near[64].lacking == 0 and near[64].excess_bytes > 8.5 * GIBIBYTE
    assert main([str(run.path), "--gpu-memory", "12GiB", "--min-em-acc", "0.8"]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "None of 4 finished trials is within the limits" in text
    assert "lacks 10.0 points of the EmAcc asked for" in text
    assert "needs 8.53 GiB more than 12.00 GiB" in text and "PeftModel" not in text


def test_trials_that_did_not_count_flops_are_said_not_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run(tmp_path / "old")
    add_trial(run, right=outcomes(60))
    assert main([str(run.path), "--minimize", "train_flops"]) == 1
    assert "none with train_flops measured: they had no prediction" in capsys.readouterr().out
    assert main([str(run.path)]) == 0
    assert "not counted" in capsys.readouterr().out


def test_an_answer_has_its_numbers_its_ties_and_how_to_load_it(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with Lease(run):  # a sweep that runs
        assert main([str(run.path), "--gpu-memory", "12GiB", "--min-em-acc", "0.65"]) == 0
    text = capsys.readouterr().out
    words = " ".join(text.split())
    assert "The highest EmAcc in 12.00 GiB with EmAcc of 65.0% or more" in words
    assert "small nf4 r8" in words and "70.0% (60.4–78.1) of 100 questions" in words
    assert "8.53 GiB: tensors 8.00 GiB, 545.0 MiB assumed for CUDA" in words
    assert "reaches below the 65.0%" in words and "flatters it" in words
    assert "r16" in words.split("It ties with")[1] and "measured on a CPU" not in words
    assert "load_in_4bit=True" in text and "PeftModel.from_pretrained" in text


def test_json_holds_the_same(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run.path), "--gpu-memory", "12GiB", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["asked"] == {
        "minimize": "em_error",
        "gpu_memory_bytes": 12 * GIBIBYTE,
        "min_em_acc": None,
    }
    assert found["best"]["configuration"]["rank"] == 8 and found["best"]["em_acc"] == 0.7
    assert found["best"]["train_flops"] == 4e12 and found["considered"] == 4
    assert [tie["configuration"]["rank"] for tie in found["ties"]] == [16]
    assert any("from_pretrained" in line for line in found["load"])


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--gpu-memory", "12 parsecs", "needs a size, as 40GiB"),
        ("--gpu-memory", "-3", "needs a size"),
        ("--min-em-acc", "60", "needs a share from 0 to 1, as 0.6 for 60%"),
        ("--min-em-acc", "nan", "needs a share"),
        ("--minimize", "joy", "needs one of em_error, memory, train_flops"),
    ],
)
def test_options_that_can_not_be_read_are_refused_with_what_is_allowed(
    run: RunFolder, option: str, value: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(run.path), f"{option}={value}"]) == 2
    error = capsys.readouterr().err
    assert option in error and value in error and told in error


def test_reach_is_the_general_name_of_an_older_option(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    told = []
    for option in ("--reach", "--min-em-acc"):
        assert main([str(run.path), option, "0.65", "--json"]) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1] and json.loads(told[0])["asked"]["min_em_acc"] == 0.65
    assert main([str(run.path), "--reach", "0.6", "--min-em-acc", "0.6"]) == 2
    assert "given with --reach; give one of them" in capsys.readouterr().err
    assert main([str(run.path), "--reach", "60"]) == 2
    assert "--reach: got '60'; needs a share from 0 to 1" in capsys.readouterr().err


def test_all_faults_are_told_at_once_and_a_folder_that_is_no_run_too(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(run.path), "--gpu-memory", "x", "--min-em-acc", "y", "--minimize", "z"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3
    assert main([str(run.path.parent / "quikstart")]) == 2
    assert "Did you mean 'quickstart'" in capsys.readouterr().err


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    for part in ("--gpu-memory 12GiB --reach 0.6 --minimize train_flops", "exit codes", "tie"):
        assert part in text


def test_the_lines_name_base_revision_quantization_and_adapter(tmp_path: Path) -> None:
    spec = new_spec(quantization="nf4", double_quantization=True, compute_dtype="bfloat16",
                    model="meta-llama/It's 1B")  # fmt: skip
    folder = RunFolder(tmp_path).trial(spec.trial_id)
    folder.write_spec(spec, {})
    lines = loading_lines(folder)
    text = "\n".join(lines)
    compile(text, "lines", "exec")
    assert '"meta-llama/It\'s 1B"' in text and "dtype=torch.bfloat16" in text
    assert "bnb_4bit_quant_type='nf4',\n        bnb_4bit_use_double_quant=True" in text
    assert repr(str(folder.adapter_folder)) in text


@pytest.mark.parametrize("chat_format", ["auto", "none", *CHAT_FORMATS])
def test_the_printed_lines_set_the_chat_format_of_the_trial(
    chat_format: str, tmp_path: Path
) -> None:
    spec = new_spec(method="lora", chat_format=chat_format)
    folder = RunFolder(tmp_path).trial(spec.trial_id)
    folder.write_spec(spec, {})
    lines = [line for line in loading_lines(folder) if "chat_template" in line]
    if chat_format == "auto":
        assert lines == []
        return
    tokenizer = SimpleNamespace(chat_template="its own")
    exec("\n".join(lines), {"tokenizer": tokenizer})  # our own text
    row = CHAT_FORMATS.get(chat_format)
    assert tokenizer.chat_template == (row.template if row else None)


def test_the_answer_needs_no_torch(run: RunFolder) -> None:
    code = (
        "import sys; from orchestrator.ask import main; "
        f"main([{str(run.path)!r}, '--gpu-memory', '12GiB']); "
        "assert not {'torch', 'transformers', 'peft', 'ray', 'mlflow'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
