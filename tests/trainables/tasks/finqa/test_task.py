"""The FinQA task: all forms of its files, its contexts, splits, targets and scores."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from trainables.errors import InputError
from trainables.tasks.finqa.files import read_gold, read_records
from trainables.tasks.finqa.splits import page_of
from trainables.tasks.finqa.task import FinQA
from trainables.tasks.registry import make_task
from trainables.tasks.task import SPLITS, Task

QUICK = {"kinds": ["change", "fell"], "train": 6, "selection": 4, "report": 5, "seed": 3}


def official(record_id: str, **changes: Any) -> dict[str, Any]:
    qa = {
        "question": f"what changed in {record_id}?",
        "answer": "2",
        "program": "subtract(12, 10)",
        "exe_ans": 2.0,
        "gold_inds": {"table_1": "the net sales of 2016 is $ 12 ;"},
    }
    page = {
        "pre_text": ["acme reports ."],
        "table": [["", "2016", "2015"], ["net sales", "$ 12", "10"]],
        "post_text": ["see note 3 ."],
        "filename": "A/2016/page_1.pdf",
    }
    asked = {name: value for name, value in changes.items() if name in qa}
    other = {name: value for name, value in changes.items() if name not in qa}
    return {"id": record_id, **page, **other, "qa": {**qa, **asked}}


def flat(record_id: str, **changes: Any) -> dict[str, Any]:
    record = official(record_id)
    qa = record.pop("qa")
    evidence = list(qa.pop("gold_inds").values())
    return {**record, **qa, "evidence": evidence, "ctx": "full", "ev": "gold", **changes}


def write_list(path: Path, records: Sequence[dict[str, Any]]) -> str:
    path.write_text(json.dumps(records, indent=1))
    return str(path)


def write_lines(path: Path, records: Sequence[dict[str, Any]]) -> str:
    content = "".join(json.dumps(record) + "\n" for record in records).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


def files(folder: Path, **options: Any) -> dict[str, Any]:
    """Options over three small files, one of each form."""
    return {
        "train": write_list(folder / "train.json", [official("A/1-1"), official("A/1-2")]),
        "selection": write_lines(folder / "selection.jsonl", [flat("B/1-1")]),
        "report": write_lines(folder / "report.jsonl.gz", [flat("C/1-1"), flat("C/2-1")]),
        **options,
    }


def messages(options: dict[str, Any], split: str = "train") -> list[str]:
    with pytest.raises(InputError) as caught:
        make_task("finqa", options).load(split)
    return list(caught.value.messages)


def test_a_program_of_several_lines_is_learnt_in_one_that_is_right(tmp_path: Path) -> None:
    program = "subtract(12,\n 10)"
    train = write_list(tmp_path / "lines.json", [official("D/1-1", program=program)])
    task = make_task("finqa", files(tmp_path, train=train, target="program"))
    (example,) = task.load("train")
    assert task.target(example) == "subtract(12, 10)"
    assert task.score(example, " subtract(12, 10)\n")["em_acc"]


@pytest.mark.parametrize("split", SPLITS)
def test_one_split_alone_needs_no_other_file(tmp_path: Path, split: str) -> None:
    given = files(tmp_path)
    absent = {other: str(tmp_path / "absent.json") for other in SPLITS if other != split}
    alone = make_task("finqa", {split: given[split], **absent, "asked": split})
    assert alone.load(split) == make_task("finqa", given).load(split)
    assert [len(alone.load(other)) for other in SPLITS if other != split] == [0, 0]
    assert make_task("finqa", {"generated": QUICK, "asked": split}).load(split)


def test_one_half_alone_needs_no_other_file(tmp_path: Path) -> None:
    selection = write_lines(tmp_path / "s.jsonl", [flat(f"B/{page}-1") for page in range(9)])
    given = {"train": files(tmp_path)["train"], "selection": selection}
    for split in ("selection", "report"):
        alone = make_task("finqa", {"selection": selection, "asked": split})
        assert alone.load(split) == make_task("finqa", given).load(split)


def test_official_and_flat_files_give_the_same_examples_and_digests(tmp_path: Path) -> None:
    names = ["A/1-1", "A/1-2", "A/2-1"]
    forms = [
        write_list(tmp_path / "official.json", [official(name) for name in names]),
        write_lines(tmp_path / "official.jsonl", [official(name) for name in names]),
        write_list(tmp_path / "flat.json", [flat(name) for name in names]),
        write_lines(tmp_path / "flat.anything", [flat(name) for name in names]),
        write_lines(tmp_path / "flat.jsonl.gz", [flat(name) for name in names]),
    ]
    tasks = [make_task("finqa", files(tmp_path, train=form)) for form in forms]
    assert len({task.data_digest("train") for task in tasks}) == 1
    for task in tasks:
        loaded = task.load("train")
        assert [each.id for each in loaded] == names
        assert [each.group for each in loaded] == ["A/1", "A/1", "A/2"]
        assert [task.target(each) for each in loaded] == ["2", "2", "2"]


def test_the_digest_follows_the_content(tmp_path: Path) -> None:
    one = make_task("finqa", files(tmp_path)).data_digest("selection")
    other = write_lines(tmp_path / "other.jsonl", [flat("B/1-1", exe_ans=3.0)])
    assert make_task("finqa", files(tmp_path, selection=other)).data_digest("selection") != one


@pytest.mark.parametrize("split", ["train", "dev", "test"])
@pytest.mark.parametrize("target", ["answer", "program"])
def test_real_targets_score_one(shared_data: Path, split: str, target: str) -> None:
    folder = shared_data / "finqa"
    others = [name for name in ("train", "dev", "test") if name != split]
    options = {
        "train": str(folder / f"{split}.jsonl.gz"),
        "selection": str(folder / f"{others[0]}.jsonl.gz"),
        "report": str(folder / f"{others[1]}.jsonl.gz"),
        "context": "evidence",
        "target": target,
    }
    task = make_task("finqa", options)
    scores = [task.score(each, f" {task.target(each)}\n") for each in task.load("train")]
    measured = task.aggregate(scores)
    assert len(scores) == {"train": 589, "dev": 883, "test": 1147}[split]
    assert measured["em_acc"] == measured["em_acc_strict"] == 1.0
    assert measured["unparsed_rate"] == 0.0


def test_real_pages_train_to_dev_with_the_report_split_carved_out(shared_data: Path) -> None:
    folder = shared_data / "finqa"
    options: dict[str, Any] = {
        "train": str(folder / "train.jsonl.gz"),
        "selection": str(folder / "dev.jsonl.gz"),
    }
    (found,) = messages(options)
    assert "2 of the" in found
    assert "skip_missing_context: true" in found
    assert "dev.jsonl.gz:" in found
    task = make_task("finqa", {**options, "skip_missing_context": True})
    facts = {split: task.facts(split) for split in SPLITS}
    assert facts["train"] == {
        "context": "full",
        "evidence": "none",
        "examples": 589,
        "skipped_missing_context": 0,
    }
    parts = [facts[split]["examples"] for split in ("selection", "report")]
    assert sum(int(part) for part in parts) == 881
    assert all(430 <= int(part) <= 450 for part in parts)
    pages = [{each.group for each in task.load(split)} for split in SPLITS]
    assert not pages[0] & pages[1] and not pages[1] & pages[2] and not pages[0] & pages[2]


def test_the_carved_halves_are_always_the_same(tmp_path: Path) -> None:
    records = [flat(f"B/{page}-{n}") for page in range(20) for n in range(1 + page % 3)]
    carved = files(tmp_path, selection=write_lines(tmp_path / "b.jsonl", records))
    del carved["report"]
    first, second = make_task("finqa", carved), make_task("finqa", carved)
    for split in ("selection", "report"):
        assert first.load(split) == second.load(split)
        assert abs(len(first.load(split)) - len(records) / 2) <= 3
    reordered = write_lines(tmp_path / "r.jsonl", records[::-1])
    shuffled = make_task("finqa", {**carved, "selection": reordered})
    assert {each.id for each in shuffled.load("report")} == {
        each.id for each in first.load("report")
    }


def test_one_page_cannot_be_halved(tmp_path: Path) -> None:
    carved = files(tmp_path)
    del carved["report"]
    assert "one page only" in messages(carved)[0]


def test_splits_that_share_a_page_are_refused(tmp_path: Path) -> None:
    shared = write_lines(tmp_path / "shared.jsonl", [flat("A/1-9"), flat("B/1-1")])
    found = messages(files(tmp_path, report=shared))
    assert "the train and report splits share 1 pages, such as 'A/1'" in found[0]
    assert "the selection and report splits share 1 pages, such as 'B/1'" in found[1]


@pytest.mark.parametrize(
    ("kinds", "fact"),
    [
        (["gold", "gold"], "gold"),
        (["retrieved", "retrieved"], "retrieved"),
        (["gold", "retrieved"], "mixed"),
        (["gold+retrieved", "gold+retrieved"], "mixed"),
    ],
)
def test_results_say_whose_evidence_it_was(tmp_path: Path, kinds: list[str], fact: str) -> None:
    records = [flat(f"A/{n}-1", ev=kind) for n, kind in enumerate(kinds)]
    train = write_lines(tmp_path / "t.jsonl", records)
    task = make_task("finqa", files(tmp_path, train=train, context="evidence"))
    assert task.facts("train")["context"] == "evidence"
    assert task.facts("train")["evidence"] == fact
    assert make_task("finqa", files(tmp_path, train=train)).facts("train")["evidence"] == "none"


def test_records_that_lack_the_context_are_counted_in_one_error(tmp_path: Path) -> None:
    bare = {"pre_text": [], "post_text": [], "ctx": "evidence"}
    records = [flat("A/1-1"), flat("A/1-2", **bare), flat("A/1-3", **bare)]
    train = write_lines(tmp_path / "t.jsonl", records)
    (found,) = messages(files(tmp_path, train=train))
    assert found.startswith(
        f"{train}:2: 2 of the 3 records of the train split have no full context"
    )
    skipping = make_task("finqa", files(tmp_path, train=train, skip_missing_context=True))
    assert [each.id for each in skipping.load("train")] == ["A/1-1"]
    assert skipping.facts("train")["skipped_missing_context"] == 2


def test_skipping_never_empties_a_split(tmp_path: Path) -> None:
    train = write_lines(tmp_path / "t.jsonl", [flat("A/1-1", evidence=[], ev="none")])
    options = files(tmp_path, train=train, context="evidence", skip_missing_context=True)
    assert "1 of the 1 records" in messages(options)[0]


def test_a_flat_record_without_ctx_has_a_full_page_if_it_has_text(tmp_path: Path) -> None:
    with_text, without = flat("A/1-1"), flat("A/1-2", pre_text=[], post_text=[])
    for record in (with_text, without):
        del record["ctx"]
    path = write_lines(tmp_path / "t.jsonl", [with_text, without])
    assert [each.fields["ctx"] for each in read_records(path)] == ["full", "evidence"]


@pytest.mark.parametrize(
    ("exe_ans", "text"),
    [
        (94.0, "94"),
        (94, "94"),
        (0.0, "0"),
        (-0.0, "0"),
        (-0.03219, "-0.03219"),
        (1e-05, "0.00001"),
        (36003776400000.0, "36003776400000"),
        ("yes", "yes"),
    ],
)
def test_the_target_is_the_executed_answer(tmp_path: Path, exe_ans: float | str, text: str) -> None:
    train = write_list(tmp_path / "t.json", [official("A/1-1", exe_ans=exe_ans)])
    task = make_task("finqa", files(tmp_path, train=train))
    (example,) = task.load("train")
    assert task.target(example) == text
    assert task.score(example, f" {text}")["em_acc_strict"]


def test_a_program_is_executed_on_the_records_table_and_its_result_scored(tmp_path: Path) -> None:
    task = make_task("finqa", files(tmp_path, target="program"))
    example = task.load("train")[0]
    assert task.target(example) == "subtract(12, 10)"
    assert "as a program" in task.prompt(example).text
    assert task.score(example, " table_max(net sales, none), subtract(#0, 10)\nso")["em_acc"]
    for wrong in ("2", "", "subtract(12, 0)", "divide(1, 0)"):
        assert not task.score(example, wrong)["em_acc"]
    assert not task.score(example, "divide(1, 0)")["parsed"]


def test_a_program_target_needs_programs(tmp_path: Path) -> None:
    report = write_lines(tmp_path / "r.jsonl", [flat("C/1-1"), flat("C/1-2", program=None)])
    (found,) = messages(files(tmp_path, report=report, target="program"))
    assert f"{report}:2: 1 records have no program" in found


def test_generated_records_stand_in_the_place_of_files() -> None:
    task = make_task("finqa", {"generated": QUICK, "prompt": "statements"})
    sizes = [len(task.load(split)) for split in SPLITS]
    assert sizes == [6, 4, 5]
    groups = [{each.group for each in task.load(split)} for split in SPLITS]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 15
    again = make_task("finqa", {"generated": QUICK, "prompt": "statements"})
    assert task.data_digest("report") == again.data_digest("report")
    for example in task.load("train"):
        assert task.score(example, f" {task.target(example)}")["em_acc_strict"]
        assert "Question: " in task.prompt(example).text


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", r"f.jsonl: the file holds no records"),
        ("  \n", r"f.jsonl: the file holds no records"),
        ("[]", r"f.jsonl: the file holds no records"),
        ('{"id": "a-1"}\n{"id"\n', r"f.jsonl:2: not valid JSON"),
        ('[\n{"id": "a-1"},\n{"id" 3}\n]', r"f.jsonl:3: not valid JSON"),
        ('[\n{"id": "a-1"}\n{"id": 3}\n]', r"f.jsonl:3: not valid JSON: a comma"),
        ('[{"id": "a-1"},\n]', r"f.jsonl:2: not valid JSON"),
        ('[{"id": "a-1"}', r"f.jsonl:1: not valid JSON: a comma or the end"),
        ('[{"id": "a-1"}]\n[', r"f.jsonl:1: not valid JSON"),
        ("[" * 100_000, r"f.jsonl:1: not valid JSON"),
        ("3\n", r"f.jsonl:1: a record must be an object, not a number"),
        ("\n{}", r"f.jsonl:2: the field 'id' is missing"),
    ],
)
def test_a_malformed_file_is_told_with_its_line(tmp_path: Path, lines: str, message: str) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text(lines)
    with pytest.raises(InputError, match=message):
        read_records(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"exe_ans": "maybe"}, 'exe_ans is "maybe"; it must be a finite number, "yes" or "no"'),
        ({"exe_ans": None}, "'exe_ans' is missing"),
        ({"exe_ans": float("nan")}, "exe_ans is NaN"),
        ({"exe_ans": True}, "exe_ans is true"),
        ({"exe_ans": 10**400}, "exe_ans is 1000"),
        ({"question": " "}, "question is"),
        ({"table": [[1, 2]]}, "table is [[1, 2]]"),
        ({"pre_text": "text"}, 'pre_text is "text"; it must be a list of strings'),
        ({"id": 3}, "id is 3"),
        ({"ctx": "some"}, 'ctx is "some"; it must be one of full, evidence'),
        ({"ev": "oracle"}, 'ev is "oracle"'),
        ({"ev": None}, "ev is missing"),
        ({"id": "A/1-1"}, "the id 'A/1-1' is also at"),
    ],
)
def test_a_record_at_fault_is_told_with_its_line(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = write_lines(tmp_path / "f.jsonl", [flat("A/1-1"), {**flat("A/1-2"), **change}])
    with pytest.raises(InputError) as caught:
        read_records(path)
    (found,) = caught.value.messages
    assert found.startswith(f"{path}:2: ")
    assert message in found


def test_half_a_character_is_told_with_its_line_and_field(tmp_path: Path) -> None:
    halves = {"pre_text": ["fine", "the \udbc0 net"], "question": "\ude00?"}
    path = write_lines(tmp_path / "f.jsonl", [flat("A/1-1"), {**flat("A/1-2"), **halves}])
    with pytest.raises(InputError) as caught:
        read_records(path)
    question, page = sorted(caught.value.messages, key=lambda text: "pre_text" in text)
    assert question.startswith(f"{path}:2: question has half of a character (\\ude00)")
    assert page.startswith(f"{path}:2: pre_text has half of a character (\\udbc0)")
    write_lines(tmp_path / "f.jsonl", [flat("A/1-1", question="whole: \U0001f600?")])
    assert len(read_records(path)) == 1


def test_an_integer_that_python_refuses_to_read_is_a_fault_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    write_lines(path, [flat("A/1-1"), {**flat("A/1-2"), "exe_ans": 0.25}])
    path.write_text(path.read_text().replace("0.25", "9" * 5_000))
    with pytest.raises(InputError, match=r"f.jsonl:2: exe_ans is Infinity; it must be a finite"):
        read_records(path)


def test_an_official_list_is_told_by_line_too(tmp_path: Path) -> None:
    records = [official("A/1-1"), official("A/1-2", exe_ans="")]
    path = Path(write_list(tmp_path / "f.json", records))
    line = 1 + path.read_text().split('"A/1-2"')[0].count("\n") - 1
    with pytest.raises(InputError, match=f"f.json:{line}: exe_ans is"):
        read_records(path)


def test_many_faults_are_counted_and_few_shown(tmp_path: Path) -> None:
    records = [flat(f"A/1-{n}", exe_ans="?") for n in range(50)]
    with pytest.raises(InputError) as caught:
        read_records(write_lines(tmp_path / "f.jsonl", records))
    assert len(caught.value.messages) == 11
    assert "40 more faults" in caught.value.messages[-1]


@pytest.mark.parametrize(
    "content", [b"\x1f\x8b broken", b"\xff\xfe{", gzip.compress(b"{}", mtime=0)[:-9]]
)
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "f.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match="can't be read"):
        read_records(path)


def test_faults_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    found = messages(files(tmp_path, train="no/such.json", selection=str(tmp_path)))
    assert "no/such.json: no such file." in found[0]
    assert "trainables.tasks.download" in found[0]
    assert "can't be read" in found[1]


def test_gold_is_read_from_any_form_and_context(tmp_path: Path, shared_data: Path) -> None:
    assert len(read_gold(shared_data / "finqa" / "test.jsonl.gz")) == 1147
    path = write_lines(tmp_path / "g.jsonl", [{"id": "a", "exe_ans": 0}])
    assert read_gold(path) == {"a": 0.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contxt": "full"}, "data.contxt: unknown option. Did you mean 'context'?"),
        ({"to_long": "drop"}, "data.to_long: unknown option. Did you mean 'too_long'?"),
        ({"x": 1}, "data.x: unknown option. Allowed: context, generated, prompt, report"),
        ({"context": "page"}, "data.context: 'page'."),
        ({"target": "answers"}, "data.target: 'answers'. Did you mean 'answer'?"),
        ({"prompt": 3}, "data.prompt: 3"),
        ({"train": ["a"]}, "data.train: ['a']"),
        ({"skip_missing_context": "yes"}, "data.skip_missing_context: 'yes'"),
        ({"selection": None}, "data.selection: missing"),
        ({"generated": QUICK}, "data.train: a file beside data.generated"),
        ({"generated": [1]}, "data.generated: [1] is not a mapping"),
        ({"prompt": "defualt"}, "Did you mean 'default'?"),
    ],
)
def test_options_at_fault(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        make_task("finqa", files(tmp_path, **options))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kinds": ["chagne"]}, "unknown kind 'chagne'. Did you mean 'change'?"),
        ({"kinds": []}, "data.generated.kinds: []"),
        ({"kinds": "change"}, "data.generated.kinds: 'change'"),
        ({"kinds": [["change"]]}, "unknown kind ['change']"),
        ({"train": 0}, "data.generated.train: 0 is not a positive whole number"),
        ({"report": 2.5}, "data.generated.report: 2.5"),
        ({"sed": 1}, "data.generated.sed: unknown option. Did you mean 'seed'?"),
    ],
)
def test_generated_options_at_fault(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        make_task("finqa", {"generated": {**QUICK, **change}})
    assert message in str(caught.value)


def test_a_template_must_show_the_context_that_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "own.txt"
    file.write_text("{table}\n{question}")
    make_task("finqa", files(tmp_path, prompt=str(file)))
    with pytest.raises(InputError, match=r"shows nothing of the evidence context; it needs \{evid"):
        make_task("finqa", files(tmp_path, prompt=str(file), context="evidence"))


def test_the_version_names_rule_context_and_target(tmp_path: Path) -> None:
    versions = {
        make_task("finqa", files(tmp_path, context=context, target=target)).version
        for context in ("full", "evidence")
        for target in ("answer", "program")
    }
    assert len(versions) == 4
    assert all("emacc-1" in version for version in versions)


def test_an_unknown_task() -> None:
    with pytest.raises(InputError, match=r"no task named 'finqua'\. Did you mean 'finqa'\?"):
        make_task("finqua", {})


def test_finqa_keeps_the_contract_of_a_task(tmp_path: Path) -> None:
    task: Task = FinQA.from_options(files(tmp_path))
    assert (task.name, task.unit) == ("finqa", "examples")
    example = task.load("train")[0]
    assert {"em_acc", "em_acc_strict"} <= task.score(example, "2").keys()
    assert task.gold(example) == 2.0


@pytest.mark.parametrize(
    ("record_id", "page"),
    [("ETR/2016/page_23.pdf-2", "ETR/2016/page_23.pdf"), ("finqa_test_1051", "finqa_test_1051")],
)
def test_a_page_is_the_id_up_to_its_last_dash(record_id: str, page: str) -> None:
    assert page_of(record_id) == page


def test_a_question_is_of_the_kind_that_its_file_or_its_program_says(tmp_path: Path) -> None:
    generated = make_task("finqa", {"generated": QUICK}).load("train")
    assert all(example.kind in {"change", "fell"} for example in generated)
    examples = make_task("finqa", files(tmp_path)).load("train")
    assert {example.kind for example in examples} == {"difference"}
    assert "kind" not in examples[0].record  # it is no part of the content, nor of its digest
