"""What is retrieved for a split is searched once on a node; an encoder is asked once."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import numpy
import pytest

from tests.trainables.tasks.retrieval.test_page_retrieval import RETRIEVED, finqa
from trainables.errors import InputError
from trainables.storage.errors import StorageError
from trainables.tasks.registry import make_task
from trainables.tasks.retrieval import encoder
from trainables.tasks.retrieval.encoder import vectors_of
from trainables.tasks.retrieval.index import Index, Retrieval
from trainables.tasks.retrieval.node_arrays import FOLDER, node_array
from trainables.tasks.retrieval.places import found_places, new_index

ASKED = [
    ("net sales?", ("net sales rose .", "costs fell .", "see note .")),
    ("what costs?", ("net sales rose .", "costs fell .", "see note .")),
    ("note", ("no note here .",)),
]
EMBEDDING = {**RETRIEVED, "retriever": "embedding"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / FOLDER


def found(*, k: int = 1, scope: str = "page", retriever: str = "bm25") -> list[list[int]]:
    return found_places(new_index(Retrieval(retriever, k, scope), ASKED), ASKED)


def arrays(cache: Path, kind: str) -> list[Path]:
    return sorted(cache.glob(f"{kind}-*.npy"))


def test_best_units_of_each_question_in_the_order_of_the_text(cache: Path) -> None:
    assert found() == [[0], [1], [0]]
    assert found(k=2) == [[0, 1], [0, 1], [0]]
    assert found(k=40, scope="corpus") == [[0, 1, 2, 3]] * 3
    assert len(arrays(cache, "places")) == 2


def test_what_was_searched_is_not_searched_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = found(k=2)
    monkeypatch.setattr(Index, "ranked", None)
    assert found(k=2) == first and found(k=1) == [[0], [1], [0]]
    for other in ({"scope": "corpus"}, {"retriever": "tfidf"}, {"k": 33}):
        with pytest.raises(TypeError):
            found(**other)


def test_other_questions_or_pages_are_searched(cache: Path) -> None:
    found()
    other = [*ASKED[:2], ("note", ("no word of it .", "a note ."))]
    assert found_places(new_index(Retrieval("bm25", 1, "page"), other), other)[2] == [1]


def test_a_damaged_file_is_made_again(cache: Path) -> None:
    first = found()
    [file] = arrays(cache, "places")
    for content in (b"", b"damaged", file.read_bytes()[:-4]):
        file.write_bytes(content)
        assert found() == first
    assert not list(cache.glob("*.part"))


def test_a_cache_that_cannot_be_written_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="retrieval"):
        found()


def test_processes_that_need_the_same_make_it_once(cache: Path) -> None:
    made = cache.parent.parent / "made"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=count_in, args=(made,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert made.read_text() == "made\n"


def count_in(made: Path) -> None:
    def make() -> Any:
        with made.open("a") as file:
            file.write("made\n")
        return numpy.arange(3)

    assert node_array("test", [1], make).tolist() == [0, 1, 2]


def test_vectors_are_the_mean_hidden_states(cache: Path, base_models: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = base_models / "sentiment"
    texts = ["Sales rose.", "Costs fell by 3 % in the second quarter of the year.", ""]
    vectors = vectors_of(str(folder), texts)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    for text, vector in zip(texts[:2], vectors, strict=False):
        with torch.no_grad():
            out = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
        mean = out.hidden_states[-1][0].mean(0)
        assert vector == pytest.approx((mean / mean.norm()).numpy(), abs=1e-5)
    assert not vectors[2].any() or numpy.linalg.norm(vectors[2]) == pytest.approx(1)


def test_an_encoder_is_asked_once_for_all_k_and_scopes(
    cache: Path, tmp_path: Path, base_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {**EMBEDDING, "retrieve": {"encoder": str(base_models / "sentiment")}}
    task = finqa(tmp_path, **options)
    [example] = task.load("selection")
    prompt = task.prompt(example).text
    assert len(arrays(cache, "vectors")) == 1
    monkeypatch.setattr(encoder, "_computed", None)
    assert finqa(tmp_path, **options).prompt(example).text == prompt
    for other in ({"k": 1}, {"k": 40}, {"scope": "corpus"}):
        assert finqa(tmp_path, **{**options, **other}).prompt(example).text
    assert len(arrays(cache, "vectors")) == 1


def test_the_identity_has_the_content_of_the_encoder_and_not_its_path(
    tmp_path: Path, base_models: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(base_models / "small", copy)

    def version(folder: Path, **options: Any) -> str:
        given = {**EMBEDDING, "retrieve": {"encoder": str(folder)}, **options}
        return make_task("tatqa", {"train": "a", "selection": "b", **given}).version

    assert version(copy) == version(base_models / "small") != version(base_models / "large")
    lexical = version(copy, retriever="bm25")
    assert lexical == "tatqa-1/official-em-1/retrieved-1/answer"
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "changed": 1}))
    assert version(copy) != version(base_models / "small")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"data.retrieve.encoder: missing; space.retriever: embedding needs"),
        ({"retrieve": "x"}, r"data.retrieve: got 'x'; needs a mapping of encoder"),
        ({"retrieve": {"encodr": "x"}}, r"data.retrieve.encodr: unknown .*mean 'encoder'"),
        ({"retrieve": {"encoder": 3}}, r"data.retrieve.encoder: got 3; needs a text"),
        ({"retrieve": {"encoder": "/nowhere"}}, r"data.retrieve.encoder: /nowhere is no folder"),
    ],
)
@pytest.mark.parametrize("name", ["finqa", "tatqa"])
def test_an_encoder_that_is_none_is_refused(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        print(make_task(name, {"train": "a", "selection": "b", **EMBEDDING, **given}).version)


def test_a_model_that_cannot_be_loaded_is_named(
    cache: Path, tmp_path: Path, base_models: Path
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(base_models / "small", folder)
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"data.retrieve.encoder: .*broken gives no vectors: "):
        vectors_of(str(folder), ["a"])
    assert not arrays(cache, "vectors")


@pytest.mark.parametrize("retriever", ["bm25", "embedding"])
def test_a_prepared_task_computes_no_more(
    cache: Path,
    tmp_path: Path,
    base_models: Path,
    monkeypatch: pytest.MonkeyPatch,
    retriever: str,
) -> None:
    """As the planner prepares it, for hosts and the simulator of this node."""
    section = {"encoder": str(base_models / "sentiment")}
    options: dict[str, Any] = {**EMBEDDING, "retriever": retriever, "retrieve": section}
    finqa(tmp_path, **options).prepare()
    assert arrays(cache, "places")
    monkeypatch.setattr(Index, "ranked", None)
    monkeypatch.setattr(encoder, "_computed", None)
    task = finqa(tmp_path, **options)
    for split in ("train", "selection", "report"):
        assert all(task.prompt(example).text for example in task.load(split))
