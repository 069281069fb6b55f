"""The live display: plain lines without a terminal, a table on a terminal, from many threads."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console

from orchestrator.execution.display import SweepDisplay
from orchestrator.execution.observers import DisplayWatcher
from orchestrator.formatting import format_bytes, format_duration
from orchestrator.runs.ledger import TrialRecord
from tests.orchestrator.run_builder import label_of, new_spec, trial_label
from trainables.spec.events import Event
from trainables.spec.knobs import canonical
from trainables.storage.run_folder import RunFolder
from trainables.tasks.exact_match import EM_ACC

LABEL = "small nf4 r8"
RUNG = Event("rung", 10, 80, {"em_acc": 0.25, "eval_loss": 1.5}, fraction=0.25, seconds=4.0)
PROGRESS = Event("progress", 12, 96, {"train_loss": 1.25, "train_peak_memory_bytes": 2**26})


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def shown(display: SweepDisplay) -> str:
    console = Console(file=io.StringIO(), width=140)
    with console.capture() as capture:
        console.print(display)
    return capture.get()


def test_labels_tell_trials_apart_in_a_line() -> None:
    knobs = {"model": "base_models/small/", "quantization": "nf4", "learning_rate": 1.3e-3,
             "gradient_accumulation": 2}  # fmt: skip
    assert trial_label(canonical(knobs)) == "small nf4 r8 a16 lr1.3e-03 b8x2"
    base = canonical({"model": "meta/Llama", "quantization": "nf4", "method": "untrained",
                      "double_quantization": True})  # fmt: skip
    assert trial_label(base) == "Llama nf4+dq untrained"
    automatic = canonical({"model": "small", "batch_size": "auto", "effective_batch_size": 32})
    assert trial_label(automatic) == "small none r8 a16 lr2.0e-04 b32auto"
    process_group = canonical({"model": "small", "method": "full", "zero_stage": 3, "workers": 4})
    assert trial_label(process_group) == "small none full z3 w4 lr2.0e-04 b8x1"
    assert (format_bytes(2**26), format_bytes(3 * 2**29)) == ("64.0 MiB", "1.50 GiB")
    assert [format_duration(s) for s in (8.2, 250, 7500)] == ["8 s", "4 min 10 s", "2 h 05 min"]


def test_without_a_terminal_there_is_a_line_per_rung_end_and_message() -> None:
    file = io.StringIO()
    display = SweepDisplay(EM_ACC, file)
    display.start(total=4, done=1)
    display.trial_event("abc", LABEL, PROGRESS)
    display.trial_event("abc", LABEL, RUNG)
    display.message("resuming: [1] trial is done")
    display.trial_ended("abc", LABEL, "stopped", "ASHA: below 0.3", {"em_acc": 0.25})
    display.stop()
    lines = file.getvalue().splitlines()
    values = "train loss 1.250, eval loss 1.500, EmAcc 25.0%, memory 64.0 MiB"
    assert lines == [
        f"abc small nf4 r8: rung 25%, {values}",
        "resuming: [1] trial is done",
        "[2/4] abc small nf4 r8: stopped, EmAcc 25.0% (ASHA: below 0.3)",
    ]


def test_on_a_terminal_the_table_shows_the_running_trials_and_the_sweep() -> None:
    clock = Clock()
    file = Terminal()
    display = SweepDisplay(EM_ACC, file, clock=clock)
    display.start(total=4, done=1)
    try:
        clock.now = 30.0
        display.trial_event("abc", LABEL, PROGRESS)
        display.trial_event("abc", LABEL, RUNG)
        display.trial_ended("xyz", "large none r4", "finished", "", {"em_acc": 0.5})
        text = shown(display)
        for part in ("abc", LABEL, "25%", "1.250", "1.500", "25.0%", "64.0 MiB", "4 s"):
            assert part in text
        assert "2/4 trials · 1 running · about 1 min 00 s to go" in text
        assert "best EmAcc 50.0% (large none r4)" in text
    finally:
        display.stop()
        display.stop()
    assert "[2/4] xyz large none r4: finished, EmAcc 50.0%" in file.getvalue()


def test_a_trial_is_shown_from_its_start_on(tmp_path: Path) -> None:
    clock = Clock()
    display = SweepDisplay(EM_ACC, io.StringIO(), clock=clock)
    display.start(total=2)
    record = TrialRecord(new_spec(rank=4), RunFolder(tmp_path).trial("abc"), "running")
    DisplayWatcher(display, label_of).trial_started(record)
    clock.now = 40.0
    row = next(line for line in shown(display).splitlines() if line.startswith("abc"))
    assert "small none r4" in row and "starting" in row and row.rstrip().endswith("40 s")
    display.trial_event("abc", LABEL, PROGRESS)
    assert "starting" not in shown(display) and "1 running" in shown(display)


def test_what_earlier_sessions_found_is_the_best_until_a_better_one() -> None:
    display = SweepDisplay(EM_ACC, io.StringIO())
    display.start(total=4, done=2, best=(0.4, "earlier"))
    assert "2/4 trials · 0 running · best EmAcc 40.0% (earlier)" in shown(display)
    display.trial_ended("a", "worse", "finished", "", {"em_acc": 0.3})
    assert "best EmAcc 40.0% (earlier)" in shown(display)
    display.trial_ended("b", "better", "finished", "", {"em_acc": 0.5})
    assert "best EmAcc 50.0% (better)" in shown(display)


def test_the_pace_is_that_of_trials_that_did_their_work() -> None:
    clock = Clock()
    display = SweepDisplay(EM_ACC, io.StringIO(), clock=clock)
    display.start(total=6)
    for name in "abc":
        display.trial_ended(name, LABEL, "failed", "no such module", {})
    assert "to go" not in shown(display)
    clock.now = 60.0
    display.trial_ended("d", LABEL, "stopped", "ASHA", {})
    assert "4/6 trials · 0 running · about 2 min 00 s to go" in shown(display)


def test_an_infeasible_trial_does_not_count_and_an_unknown_total_is_no_matter() -> None:
    display = SweepDisplay(EM_ACC, io.StringIO())
    display.start(total=None)
    display.trial_ended("a", LABEL, "infeasible", "needs 117 GiB", {})
    display.trial_ended("b", LABEL, "failed", "loss is nan", {})
    assert "1 trial · 0 running" in shown(display)


def test_events_may_come_from_many_threads() -> None:
    file = io.StringIO()
    display = SweepDisplay(EM_ACC, file)
    display.start(total=60)

    def one(number: int) -> None:
        name = f"t{number}"
        display.trial_event(name, LABEL, RUNG)
        shown(display)
        display.trial_ended(name, LABEL, "finished", "", RUNG.metrics)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(60)))
    assert len(file.getvalue().splitlines()) == 120
    assert "60/60 trials · 0 running" in shown(display)


def test_a_note_is_printed_once_and_stands_below_the_table_to_the_end() -> None:
    file = Terminal()
    display = SweepDisplay(EM_ACC, file)
    display.note("small at 128 tokens: 873 of 881 prompts of the train split are cut")
    display.start(total=2)
    try:
        display.note("small at 128 tokens: 873 of 881 prompts of the train split are cut")
        display.trial_started("abc", LABEL)
        lines = shown(display).splitlines()
        assert "abc" in lines[1] and "873 of 881" in lines[2] and "0/2 trials" in lines[3]
        for number in range(20):
            display.note(f"note {number}")
        text = shown(display)
        assert "note 4" in text and "note 5" not in text and "... and 15 above" in text
    finally:
        display.stop()
    assert file.getvalue().splitlines()[0].startswith("small at 128 tokens: 873 of 881")
    assert file.getvalue().count("note 19") == 1
