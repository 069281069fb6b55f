"""Every shipped space loads, and samples, suggestions and grids of it are valid configurations."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.config.reader import from_mapping, load_config
from orchestrator.config.sections import SweepConfig
from orchestrator.config.writer import to_mapping
from orchestrator.space.constraints import cells, count, idle_rules
from orchestrator.space.enumeration import combinations, grid
from orchestrator.space.rules import excluded
from orchestrator.space.sampling import sample, suggest
from trainables.spec import knobs
from trainables.spec.constraints import violations

FOLDER = Path(__file__).resolve().parents[2] / "search_spaces"
FILES = sorted(FOLDER.glob("*.yaml"))


@pytest.fixture(params=FILES, ids=[path.stem for path in FILES])
def config(request: pytest.FixtureRequest) -> SweepConfig:
    return load_config(request.param)


def _refused(configuration: dict[str, Any]) -> list[str]:
    return [name for name, value in configuration.items() if knobs.check(name, value)]


def test_the_folder_holds_only_spaces_and_their_grammar() -> None:
    assert FILES
    assert {path.suffix for path in FOLDER.iterdir()} == {".yaml", ".md"}


def test_samples_are_accepted(config: SweepConfig) -> None:
    rng = random.Random(0)
    assert not [found for _ in range(200) if (found := _refused(sample(config.space, rng)))]


def test_suggestions_are_accepted(config: SweepConfig) -> None:
    import optuna

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    assert not [found for _ in range(50) if (found := _refused(suggest(config.space, study.ask())))]


def test_every_combination_of_choices_is_accepted(config: SweepConfig) -> None:
    for configuration, _ in combinations(config.space, lambda choice: True):
        assert not _refused(configuration)
        knobs.canonical(configuration)


def test_no_configuration_is_one_that_no_machine_can_run(config: SweepConfig) -> None:
    rng = random.Random(1)
    for configuration in (sample(config.space, rng) for _ in range(200)):
        if not excluded(configuration, config.exclude):
            assert violations(knobs.canonical(configuration)) is None


def test_a_space_without_ranges_is_counted_by_its_grid(config: SweepConfig) -> None:
    expected = count(config.space, config.exclude)
    if expected is not None:
        left = [found for found in grid(config.space) if not excluded(found, config.exclude)]
        assert len(left) == expected


def test_every_cell_has_something_left_and_every_rule_something_to_do(config: SweepConfig) -> None:
    assert all(cell.excluded < cell.configurations for cell in cells(config.space, config.exclude))
    assert idle_rules(config.space, config.exclude) == []


def test_the_run_folder_keeps_all_of_it(config: SweepConfig) -> None:
    text = yaml.safe_dump(to_mapping(config), sort_keys=False)
    assert from_mapping(yaml.safe_load(text)) == config


def test_every_space_is_told_of_in_the_readme() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"`{file.name}`" in text for file in FILES)


def test_the_study_of_batch_sizes_varies_nothing_else_and_keeps_the_effective_batch() -> None:
    config = load_config(FOLDER / "batch_size.yaml")
    found = [knobs.canonical(configuration) for configuration in grid(config.space)]
    varied = {name for name in found[0] if len({str(each[name]) for each in found}) > 1}
    assert varied == {"batch_size", "gradient_accumulation", "seed"}
    assert len({knobs.step_examples(each) for each in found}) == 1
    assert config.search.trials == len(found) and config.resources.placement == "exclusive"


@pytest.mark.parametrize("name", ["full_vs_lora", "full_vs_lora_small"])
def test_the_studies_of_methods_give_each_its_rates_and_all_the_same_batch(name: str) -> None:
    config = load_config(FOLDER / f"{name}.yaml")
    rng = random.Random(2)
    found = [knobs.canonical(sample(config.space, rng)) for _ in range(400)]
    rates = {
        method: [each["learning_rate"] for each in found if each["method"] == method]
        for method in ("lora", "full")
    }
    assert max(rates["full"]) < max(rates["lora"]) and min(rates["full"]) < min(rates["lora"])
    assert len({knobs.step_examples(each) for each in found}) == 1
    assert config.resources.placement == "exclusive"


def test_full_fine_tuning_has_four_devices_under_zero_3_and_lora_one() -> None:
    config = load_config(FOLDER / "full_vs_lora.yaml")
    rng = random.Random(3)
    found = [knobs.canonical(sample(config.space, rng)) for _ in range(200)]
    shapes = {(each["method"], each.get("workers", 1), each.get("zero_stage", 0)) for each in found}
    assert shapes == {("lora", 1, 0), ("full", 4, 3)}
    assert config.task == "tatqa" and len({each["model"] for each in found}) == 2


def test_the_grammar_of_the_readme_is_read_as_it_says() -> None:
    from orchestrator.space.grammar import parse_space

    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    example, *_ = [part.split("```")[0] for part in text.split("```yaml")[1:]]
    space = parse_space(yaml.safe_load(example)["space"])
    assert {"model.base_models/large.batch_size", "quantization.nf4.double_quantization"} <= {
        question.path for question in _questions(space)
    }
    grammar = text.split("## The space")[1].split("## The rest")[0]
    rows = [line.split("`")[1] for line in grammar.splitlines() if line[:3] == "| `"]
    assert rows
    for row in rows:
        parse_space({"model": "m", **yaml.safe_load(row)})


def _questions(space: Any) -> list[Any]:
    from orchestrator.space.tree import questions

    return list(questions(space))
