"""FinQA and TAT-QA with retrieved units: prompts, recall, identity, options, real files."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.trainables.tasks.finqa.test_task import flat, write_list
from tests.trainables.tasks.tatqa import tatqa_file
from trainables.errors import InputError
from trainables.spec.knobs import canonical
from trainables.tasks.identity import task_identity
from trainables.tasks.registry import make_task
from trainables.tasks.task import Example, Task
from trainables.tasks.tatqa.evidence import gold_places, header_rows, units_of

RETRIEVED = {"context": "retrieved", "retriever": "bm25", "k": 2, "scope": "page"}
TABLE = [["", "2016", "2015"], ["net sales", "$ 12", "10"], ["costs", "8", "7"], ["tax", "1", "2"]]
NET_SALES = "the net sales of 2016 is $ 12 ; the net sales of 2015 is 10 ;"
COSTS = "the costs of 2016 is 8 ; the costs of 2015 is 7 ;"


def finqa(folder: Path, **options: Any) -> Task:
    """One question a split; the one of the selection needs the net sales and a sentence."""
    texts = {"pre_text": ["acme makes bicycles .", "net sales rose ."], "post_text": ["see note ."]}
    page = {"table": TABLE, "evidence": [NET_SALES, "see note ."], **texts}
    files = {
        split: write_list(
            folder / f"{split}.json",
            [flat(f"{split}/page_1.pdf-1", **{**page, "question": "what were net sales in 2016?"})],
        )
        for split in ("train", "selection", "report")
    }
    return make_task("finqa", {**files, **RETRIEVED, **options})


def test_a_prompt_shows_the_best_units_in_the_order_of_the_page(tmp_path: Path) -> None:
    task = finqa(tmp_path)
    [example] = task.load("selection")
    assert f"\nnet sales rose .\n{NET_SALES}\n" in task.prompt(example).text
    assert COSTS not in task.prompt(example).text
    assert COSTS in finqa(tmp_path, k=100).prompt(example).text
    assert NET_SALES in finqa(tmp_path, k=100, prompt="statements").prompt(example).text


def test_recall_is_of_the_gold_facts(tmp_path: Path) -> None:
    task = finqa(tmp_path)
    [example] = task.load("selection")
    scores = task.score(example, "12")
    assert scores["evidence_recall"] == 0.5 and not scores["evidence_complete"]
    measured = task.aggregate([scores, {**scores, "evidence_recall": 1.0, "evidence_complete": 1}])
    assert measured["evidence_recall"] == 0.75 and measured["evidence_complete"] == 0.5
    assert measured["evidence_questions"] == 2
    everything = finqa(tmp_path, k=100).score(example, "12")
    assert everything["evidence_recall"] == 1.0 and everything["evidence_complete"]


@pytest.mark.parametrize("ev", ["retrieved", "gold+retrieved"])
def test_evidence_that_is_not_the_annotators_measures_no_recall(tmp_path: Path, ev: str) -> None:
    record = flat("a/page_1.pdf-1", ev=ev)
    file = write_list(tmp_path / "a.json", [record])
    options = {"selection": file, "report": file, "asked": "selection", **RETRIEVED}
    task = make_task("finqa", options)
    scores = [task.score(example, "2") for example in task.load("selection")]
    assert "evidence_recall" not in scores[0]
    assert "evidence_recall" not in task.aggregate(scores)


def test_other_contexts_are_as_before(tmp_path: Path) -> None:
    finqa(tmp_path)
    files = {name: str(tmp_path / f"{name}.json") for name in ("train", "selection", "report")}
    for context in ("full", "evidence"):
        task = make_task("finqa", {**files, "context": context})
        [example] = task.load("selection")
        assert task.version == f"finqa-1/emacc-1/{context}/answer"
        assert "evidence_recall" not in task.score(example, "12")


def test_the_identity_tells_retrieved_from_other_contexts(tmp_path: Path) -> None:
    found = task_identity(finqa(tmp_path))
    assert (found["context"], found["evidence"]) == ("retrieved", "retrieved")
    assert found["version"] == "finqa-1/emacc-1/retrieved-1/answer"
    tatqa = make_task("tatqa", tatqa_file.options(tmp_path, **RETRIEVED))
    assert task_identity(tatqa)["version"] == "tatqa-1/official-em-1/retrieved-1/answer"


def test_knobs_of_retrieval_are_read_with_it_only() -> None:
    assert not {"context", "retriever", "k", "scope"} & canonical({"model": "m", "k": 3}).keys()
    found = canonical({"model": "m", "context": "retrieved"})
    values = [found[name] for name in ("context", "retriever", "k", "scope")]
    assert values == ["retrieved", "bm25", 5, "page"]
    assert canonical({"model": "m", "context": "evidence"})["context"] == "evidence"


@pytest.mark.parametrize("name", ["finqa", "tatqa"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": "retrieved"}, r"data.context: retrieved has knobs of its own"),
        ({"context": "retrievd"}, r"data.context: 'retrievd'.*Did you mean 'retrieved'"),
        ({**RETRIEVED, "retriever": "bm52"}, r"space.retriever: got 'bm52'"),
        ({**RETRIEVED, "k": 0}, r"space.k: got 0; needs a whole number >= 1"),
        ({**RETRIEVED, "scope": "web"}, r"space.scope: got 'web'"),
    ],
)
def test_bad_options_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_task(name, {"train": "a", "selection": "b", **options})


def test_a_record_without_its_page_is_refused(tmp_path: Path) -> None:
    bare = flat("a/page_1.pdf-1", pre_text=[], post_text=[], ctx="evidence")
    file = write_list(tmp_path / "a.json", [bare])
    task = make_task("finqa", {"selection": file, "report": file, "asked": "report", **RETRIEVED})
    with pytest.raises(InputError, match=r"no\n? retrieved context .*use data.context: evidence"):
        task.load("report")


def test_the_corpus_is_the_pages_of_the_question_s_split(tmp_path: Path) -> None:
    def record(page: str, sentence: str) -> dict[str, Any]:
        text = {"pre_text": [sentence], "post_text": [], "table": [], "evidence": [sentence]}
        return flat(f"{page}/page_1.pdf-1", question="who makes bicycles?", **text)

    selection = [record("a", "acme makes bicycles ."), record("b", "nothing here .")]
    files = {
        "train": write_list(tmp_path / "t.json", [record("c", "bicycles who makes bicycles .")]),
        "selection": write_list(tmp_path / "s.json", selection),
        "report": write_list(tmp_path / "r.json", [record("d", "who makes bicycles ?")]),
    }
    task = make_task("finqa", {**files, **RETRIEVED, "k": 1, "scope": "corpus"})
    first, second = task.load("selection")
    assert all("acme makes bicycles ." in task.prompt(each).text for each in (first, second))
    recalls = [task.score(each, "2")["evidence_recall"] for each in (first, second)]
    assert recalls == [1.0, 0.0]


def tatqa_example(**record: Any) -> Example:
    table = [["", "Years ended", ""], ["", "2019", "2018"], ["Sales", "$ 1,496.5", "(12)"]]
    rows = [*table, ["Costs", "12", "8.0"]]
    text = ["Sales fell.", "Amounts are in millions."]
    base = {"question": "what?", "pre_text": text, "post_text": [], "table": rows}
    asked = {"items": ["-4"], "answer_type": "arithmetic", "answer_from": "table", "evidence": []}
    return Example("a", {**base, **asked, "derivation": "(1,496.5 - 8)/8", **record}, group="g")


@pytest.mark.parametrize(
    ("record", "places"),
    [
        ({}, [{2}, {3}]),
        ({"derivation": "12 / 2"}, [{2, 3}]),
        ({"derivation": "no figures"}, []),
        ({"answer_type": "span", "items": ["1,496.5"]}, [{2}]),
        ({"answer_type": "count", "derivation": "Sales##Costs"}, [{2}, {3}]),
        ({"answer_from": "text", "evidence": ["Sales fell."]}, [{0}]),
        ({"answer_from": "table-text", "evidence": ["Sales fell."]}, [{0}, {2}, {3}]),
    ],
)
def test_rows_of_tatqa_are_found_by_what_the_answer_is_derived_from(
    record: dict[str, Any], places: list[set[int]]
) -> None:
    example = tatqa_example(**record)
    assert header_rows(example.record["table"]) == 2
    assert list(map(set, gold_places(example, units_of(example)))) == places


def test_the_data_of_other_contexts_keep_their_digest(tmp_path: Path) -> None:
    """The derivation of an answer is read where rows are judged as retrieved."""
    options = tatqa_file.options(tmp_path)
    plain = make_task("tatqa", options)
    retrieved = make_task("tatqa", {**options, **RETRIEVED})
    assert plain.data_digest("train") != retrieved.data_digest("train")
    assert plain.data_digest("train") == make_task("tatqa", options).data_digest("train")


REAL = {"finqa": "finqa/dev.jsonl.gz", "tatqa": "tatqa/dev.json.gz"}


@pytest.mark.parametrize("name", REAL)
def test_recall_on_real_files_is_that_of_another_computation(shared_data: Path, name: str) -> None:
    """BM25 by page with plain counters, and gold facts looked for as text in the prompt."""
    file = str(shared_data / REAL[name])
    options = {"selection": file, "report": file, "asked": "selection", **RETRIEVED, "k": 5}
    skip = {"skip_missing_context": True} if name == "finqa" else {}
    task = make_task(name, {**options, **skip})
    examples = task.load("selection")[:150]
    measured = task.aggregate([task.score(example, "") for example in examples])
    assert measured["evidence_recall"] == pytest.approx(sum_of(name, examples), abs=1e-12)
    assert 0.5 < measured["evidence_recall"] < 1.0


def sum_of(name: str, examples: list[Example]) -> float:
    shares = list(plain_recalls(name, examples))
    return sum(shares) / len(shares)


def plain_recalls(name: str, examples: list[Example]) -> Iterator[float]:
    for example in examples:
        record = example.record
        units = plain_units(name, record)
        scores = plain_scores(units, words(record["question"]))
        order = sorted(range(len(units)), key=lambda at: (-round(scores[at], 9), at))
        shown = [units[at] for at in order[:5]]
        if name == "finqa" and record["ev"] == "gold":
            squeezed = {"".join(unit.split()) for unit in shown}
            facts = {"".join(fact.split()) for fact in record["evidence"]}
            yield len(facts & squeezed) / len(facts)
        elif name == "tatqa":
            gold = gold_places(example, tuple(units))
            if gold:
                yield sum(bool(fact & set(order[:5])) for fact in gold) / len(gold)


def plain_units(name: str, record: Mapping[str, Any]) -> list[str]:
    table = record["table"]
    header = 1
    while name == "tatqa" and header < len(table) and not table[header][0].strip():
        header += 1
    names = [" ".join(row[at] for row in table[:header]) for at in range(len(table[0]))]
    rows = [
        f"{names[0]} "
        + " ".join(f"the {row[0]} of {names[at]} is {row[at]} ;" for at in range(1, len(row)))
        for row in table[header:]
    ]
    every = [*record["pre_text"], *(" ".join(row.split()) for row in rows), *record["post_text"]]
    return [unit for unit in every if words(unit) or "_" in unit]


def plain_scores(units: list[str], question: list[str]) -> list[float]:
    counts = [Counter(words(unit)) for unit in units]
    mean = sum(count.total() for count in counts) / len(units)
    rarity = {}
    for term in set(question):
        having = sum(term in count for count in counts)
        rarity[term] = math.log(1 + (len(units) - having + 0.5) / (having + 0.5))
    return [
        sum(
            rarity[term] * count[term] / (count[term] + 1.5 * (0.25 + 0.75 * count.total() / mean))
            for term in question
        )
        for count in counts
    ]


def words(text: str) -> list[str]:
    """Letters and digits in runs, without regular expressions."""
    lower = text.lower()
    kept = "".join(c if c.isalnum() or c == "_" else " " for c in lower)
    return kept.split()
