"""The feasibility model: few launches are spent on configurations that do not fit.

An oracle replaces the hardware: half of the cells that three knobs span do not fit.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.reader import from_mapping
from orchestrator.search.feasibility import FREE_REFUSALS, FeasibilityModel
from orchestrator.space.enumeration import grid
from tests.orchestrator import tiny_sweep
from tests.orchestrator.tiny_sweep import finish
from trainables.spec.knobs import canonical
from trainables.storage.run_folder import RunFolder

Knobs = Mapping[str, Any]
MODELS, QUANTIZATIONS = ["a", "b", "c", "d"], ["none", "int8", "nf4", "fp4"]


@dataclass(frozen=True)
class Hardware:
    """A space, and what of it fits: by three knobs together, about half."""

    space: Mapping[str, Any]
    fits: Callable[[Knobs, int], bool]  # seeded


def _drawn(knobs: Knobs, seed: int, *names: str) -> bool:
    cell = repr((seed, *(knobs[name] for name in names)))
    return hashlib.sha256(cell.encode()).digest()[0] % 2 == 0


CAP = 2**14


def _product(knobs: Knobs) -> int:
    return int(knobs["batch_size"] * knobs["sequence_length"] * knobs["rank"])


FREE = {
    "alpha": [8, 16],
    "schedule": ["linear", "cosine"],
    "learning_rate": {"log_uniform": [1e-5, 1e-2]},
}
HARDWARE: dict[str, Hardware] = {
    "a product has a cap": Hardware(
        {
            "model": "a",
            "quantization": "none",
            "batch_size": [1, 2, 4, 8, 16],
            "sequence_length": [128, 256, 512, 1024],
            "rank": [4, 8, 16, 32],
        },
        lambda knobs, _: _product(knobs) <= CAP,
    ),
    "each cell by itself": Hardware(
        {
            "model": MODELS,
            "quantization": QUANTIZATIONS,
            "compute_dtype": ["float32", "bfloat16", "float16"],
            "rank": [4, 8, 16],
            "batch_size": [1, 2, 4],
        },
        lambda knobs, seed: _drawn(knobs, seed, "model", "quantization", "compute_dtype"),
    ),
    "against the order of memory": Hardware(
        {
            "model": MODELS,
            "quantization": QUANTIZATIONS,
            "batch_size": [1, 2, 4, 8],
            "rank": [4, 8, 16],
            "sequence_length": [128, 256],
        },
        lambda knobs, _: (
            (
                MODELS.index(knobs["model"])
                + QUANTIZATIONS.index(knobs["quantization"])
                + knobs["batch_size"].bit_length()
            )
            % 2
            == 0
        ),
    ),
}


def live(
    folder: Path, hardware: Hardware, *, algorithm: str, seed: int, launches: int, **more: Any
) -> list[tuple[Knobs, bool]]:
    """What a sweep launched, two at a time, and whether it fitted."""
    search = {"algorithm": algorithm, "trials": 10_000, "seed": seed}
    value = tiny_sweep.mapping(search=search, scheduler="none")
    value["space"] = {"prompt": "statements", **hardware.space, **more}
    trial_queue, ledger, _ = tiny_sweep.trial_queue(RunFolder(folder), from_mapping(value))
    launched: list[tuple[Knobs, bool]] = []
    running = [record for _ in range(2) if (record := trial_queue.next()) is not None]
    while running and len(launched) < launches:
        record = running.pop(0)
        knobs = record.spec.knobs
        fits = not record.is_trial or hardware.fits(knobs, seed)
        if fits:
            finish(trial_queue, ledger, record, value=knobs.get("rank", 1) / 64)
        else:
            ledger.infeasible(record, "OutOfMemoryError: CUDA out of memory.")
            trial_queue.ended(record)
        launched += [(knobs, fits)] if record.is_trial else []
        while len(running) < 2 and (following := trial_queue.next()) is not None:
            running.append(following)
    return launched


def refused_later(launched: list[tuple[Knobs, bool]]) -> tuple[int, int]:
    """Of how many launches after the first ten refusals how many were refused."""
    places = [place for place, (_, fits) in enumerate(launched) if not fits]
    later = launched[places[9] + 1 :] if len(places) > 9 else []
    return sum(not fits for _, fits in later), len(later)


def check(folder: Path, kind: str, algorithm: str, seed: int) -> None:
    hardware = HARDWARE[kind]
    launched = live(folder, hardware, algorithm=algorithm, seed=seed, launches=70, **FREE)
    refused, of = refused_later(launched)
    assert refused <= of / 5, (kind, algorithm, seed, refused, of)
    assert sum(not fits for _, fits in launched) <= 10 + of / 5


def test_after_ten_refusals_one_launch_in_five_is_refused_at_most(tmp_path: Path) -> None:
    check(tmp_path, "a product has a cap", "random", seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("algorithm", ["random", "tpe", "nsga2"])
@pytest.mark.parametrize("kind", HARDWARE)
def test_that_is_so_for_each_sampler_and_seed(
    tmp_path: Path, kind: str, algorithm: str, seed: int
) -> None:
    check(tmp_path, kind, algorithm, seed)


def test_half_of_each_hardware_can_not_run() -> None:
    for hardware in HARDWARE.values():
        value = tiny_sweep.mapping()
        value["space"] = dict(hardware.space)
        cells = [hardware.fits(each, 1) for each in grid(from_mapping(value).space)]
        assert 0.35 < sum(cells) / len(cells) < 0.65


@pytest.mark.slow
@pytest.mark.parametrize("kind", HARDWARE)
def test_nothing_that_fits_is_left_out_for_good(tmp_path: Path, kind: str) -> None:
    """Run to its end, a space has had all that fits; where memory follows its order, hardly more
    of the rest was tried than the smallest of what does not fit, which nothing rules out."""
    hardware = HARDWARE[kind]
    fixed = {"learning_rate": 1e-3, "alpha": 8}
    launched = live(tmp_path, hardware, algorithm="random", seed=1, launches=10_000, **fixed)
    value = tiny_sweep.mapping(scheduler="none")
    value["space"] = {**hardware.space, **fixed}
    cells = [hardware.fits(each, 1) for each in grid(from_mapping(value).space)]
    assert sum(fits for _, fits in launched) >= 0.95 * sum(cells)
    if kind == "a product has a cap":
        refused = [knobs for knobs, fits in launched if not fits]
        smallest = [knobs for knobs in refused if _product(knobs) == 2 * CAP]
        assert len(smallest) == 13  # all there are, counted by hand
        assert len(refused) <= 1.5 * len(smallest)


def knobs(**given: Any) -> dict[str, Any]:
    return canonical({"model": "a", **given})


def test_a_refusal_rules_out_what_needs_at_least_as_much() -> None:
    fitting = FeasibilityModel(["batch_size", "rank"])
    fitting.update("small", knobs(batch_size=4), fits=False)
    assert fitting.rules_out(knobs(batch_size=8, learning_rate=0.5)) == "small"
    assert fitting.rules_out(knobs(batch_size=2)) is None
    assert fitting.rules_out(knobs(batch_size=8, model="b")) is None


def test_a_refusal_that_a_larger_success_contradicts_rules_out_nothing() -> None:
    """Somebody else may have had the memory at that time."""
    fitting = FeasibilityModel(["batch_size", "rank"])
    for place in range(20):
        fitting.update(str(place), knobs(model="b", batch_size=64 + place), fits=False)
    fitting.update("unlucky", knobs(batch_size=4), fits=False)
    fitting.update("large", knobs(batch_size=8), fits=True)
    assert fitting.rules_out(knobs(batch_size=4, alpha=1)) is None
    assert fitting.rules_out(knobs(model="b", batch_size=99)) is not None


def test_the_last_word_on_a_trial_counts() -> None:
    fitting = FeasibilityModel(["batch_size"])
    before = fitting.fit_probability(knobs(batch_size=4))
    fitting.update("one", knobs(batch_size=4), fits=True)
    fitting.update("one", knobs(batch_size=4), fits=False)
    assert fitting.rules_out(knobs(batch_size=4)) == "one"
    assert fitting.fit_probability(knobs(batch_size=4)) < before


def test_what_needs_less_than_a_success_fits_almost_surely() -> None:
    fitting = FeasibilityModel(["batch_size", "sequence_length"])
    assert fitting.fit_probability(knobs(batch_size=2)) == pytest.approx(0.5)
    fitting.update("large", knobs(batch_size=8), fits=True)
    assert fitting.fit_probability(knobs(batch_size=2)) > 0.9


def test_an_interaction_of_knobs_is_learnt() -> None:
    fitting = FeasibilityModel(["model", "quantization", "optimizer"])
    cells = itertools.product("ab", ["none", "nf4"], ["adamw", "sgd"])
    unseen = [("b", "nf4", "sgd"), ("a", "nf4", "sgd")]
    for place, cell in enumerate([*cells] * 3):
        if cell not in unseen:
            model, quantization, optimizer = cell
            seen = knobs(model=model, quantization=quantization, optimizer=optimizer)
            fitting.update(str(place), seen, fits=(model == "a") == (quantization == "none"))
    assert fitting.fit_probability(knobs(model="b", quantization="nf4", optimizer="sgd")) > 0.7
    assert fitting.fit_probability(knobs(model="a", quantization="nf4", optimizer="sgd")) < 0.3


def test_only_a_share_of_launches_is_risked_once_enough_were_refused() -> None:
    fitting = FeasibilityModel(["model"])
    assert fitting.is_worth_trying(0.01)
    for place in range(FREE_REFUSALS):
        fitting.update(str(place), knobs(model=f"m{place}"), fits=False)
    assert not fitting.is_worth_trying(0.1)
    assert fitting.is_worth_trying(0.5)
    fitting.launched("risky", knobs(model="another"))
    assert not fitting.is_worth_trying(0.5)
    for place in range(20):
        fitting.launched(f"good {place}", knobs(model="good"))
        fitting.update(f"good {place}", knobs(model="good"), fits=True)
    assert fitting.is_worth_trying(0.5)
