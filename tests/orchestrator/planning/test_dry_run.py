"""The dry run: the number of trials, the cells, and the excluded configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.config.reader import from_mapping
from orchestrator.planning.dry_run import describe
from orchestrator.planning.planner import Planner
from tests.orchestrator import tiny_sweep
from trainables.storage.run_folder import RunFolder


def described(**sections: Any) -> str:
    settings = from_mapping(tiny_sweep.mapping("./a-model", **sections))
    return describe(Planner(settings), RunFolder(Path("runs") / "tiny"))


def test_it_counts_trials_and_configurations() -> None:
    assert "4 trials of 4 configurations, by random" in described()
    fewer = described(search={"algorithm": "grid", "trials": 3})
    assert "3 trials of 4 configurations, by grid" in fewer
    more = described(search={"algorithm": "random", "trials": 99})
    assert "4 trials of 4 configurations" in more
    around = described(search={"algorithm": "one_factor", "trials": 99})
    assert "3 trials of 4 configurations, by one_factor" in around


def test_a_range_has_no_end() -> None:
    space = tiny_sweep.mapping("./a-model")["space"]
    space["learning_rate"] = {"uniform": [0.1, 0.2]}
    text = described(space=space)
    assert "4 trials of unlimited configurations" in text
    assert "a continuous range counts once" in text


def test_an_automatic_batch_size_is_counted_with_what_it_reads() -> None:
    space = tiny_sweep.mapping("./a-model")["space"]
    space |= {"batch_size": [4, 8, "auto"], "gradient_accumulation": [1, 2, 4]}
    text = described(space=space)
    assert "4 trials of 28 configurations" in text  # 2 x 2 bases and ranks, 2 x 3 + 1 batches
    space["batch_size"] = [4, {"auto": {"effective_batch_size": [8, 16]}}]
    assert "4 trials of 20 configurations" in described(space=space)


def test_it_names_every_cell_and_what_is_excluded() -> None:
    text = described(exclude=[{"quantization": "nf4"}, {"quantization": "none", "rank": 2}])
    assert "./a-model  none  lora: 1 configuration, 1 excluded" in text
    assert "./a-model  nf4  lora: excluded" in text


def test_it_says_what_each_trial_does() -> None:
    text = described()
    assert "trains on 32 examples of task finqa" in text
    assert "judged at 0.25, 0.5, 1 of that; early stopping: asha" in text
    assert text.endswith("Nothing was run.")


def test_it_says_what_the_hub_will_be_asked_for() -> None:
    assert "the hub" not in described()
    settings = from_mapping(tiny_sweep.mapping("someone/some-model"))
    text = describe(Planner(settings), RunFolder(Path("runs") / "tiny"))
    assert "someone/some-model is no folder here: the hub will be asked for it" in text


def one_factor(**search: Any) -> dict[str, Any]:
    """A space around a reference of which some knob is in no cell and some in no label."""
    space = tiny_sweep.mapping("./a-model")["space"]
    space |= {"rank": [4, 2, 8], "optimizer": ["adamw", "sgd"]}
    modules = {"value": ["q_proj", "v_proj"]}
    space |= {"target_modules": ["all-linear", modules], "schedule": ["linear", "cosine"]}
    return {"space": space, "search": {"algorithm": "one_factor", "trials": 99, **search}}


def test_the_trials_of_one_factor_are_listed_as_many_as_are_counted() -> None:
    text = described(**one_factor())
    assert "7 trials of 48 configurations, by one_factor" in text
    listed = text.partition("differs from the reference:\n")[2].partition("\n  and ")[0]
    assert listed.splitlines() == [
        "    the reference: a-model none r4 a8 lr1.0e-03 b4x1 all-linear adamw linear",
        "    quantization nf4, double_quantization false",
        "    rank 2",
        "    rank 8",
        '    target_modules ["q_proj", "v_proj"]',
        "    optimizer sgd",
        "    schedule cosine",
    ]
    assert "./a-model  none  lora: 6 trials of 24 configurations" in text
    assert "./a-model  nf4  lora: 1 trial of 24 configurations" in text


def test_start_with_adds_to_one_factor_and_trials_cut_it_off() -> None:
    given = {"start_with": [{"rank": 2, "optimizer": "sgd"}, {"rank": 2}]}
    text = described(**one_factor(**given))
    assert "8 trials of 48" in text and "    rank 2, optimizer sgd\n" in text
    few = described(**one_factor(trials=3))
    assert "3 trials of 48" in few and "rank 2" in few and "rank 8" not in few
