"""A space, a data set, a model folder and a trial folder are data: nothing in them is executed.

Each case contains code that would write a marker file if it ran.
"""

from __future__ import annotations

import ast
import json
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import LlamaForCausalLM

from orchestrator.report import main as report
from orchestrator.reporting.builder import build_report, write_report
from orchestrator.runs.ledger import Ledger
from orchestrator.runs.predictions import read_predictions
from orchestrator.runs.results import open_run, read_trials
from orchestrator.runs.state import refuse_another_space
from orchestrator.sweep import main as sweep
from tests.orchestrator import tiny_sweep
from tests.orchestrator.run_builder import add_trial, new_run, outcomes
from tests.tiny_models import make_llama
from tests.tiny_trials import make_spec, make_trial
from trainables.errors import InputError
from trainables.models.base import load_base
from trainables.models.model_folder import check_model_folder, model_digest
from trainables.spec.trial_spec import TrialSpec
from trainables.storage.run_folder import RunFolder
from trainables.tasks.registry import make_task
from trainables.training.full_evaluation import score_report
from trainables.training.loop import train

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SOURCES = [
    file for name in ("orchestrator", "trainables") for file in (REPOSITORY / name).rglob("*.py")
]
PICKLE_PROTOCOLS = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
ZIP = b"PK\x03\x04"


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """The file that code from data would make."""
    file = tmp_path / "executed"
    yield file
    assert not file.exists(), "code that came in as data was executed"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("model"))


@pytest.fixture
def model(llama: Path, tmp_path: Path) -> Path:
    """A copy of a base, to be made bad."""
    return shutil.copytree(llama, tmp_path / "model")


def spec_on(model: Path, good: Path, **execution: Any) -> TrialSpec:
    """A spec that was planned on a good base, whose folder holds `model` now."""
    spec = make_spec(good)
    given = replace(spec.execution, **execution)
    return replace(spec, model_source=str(model), model_digest="", execution=given)


class Payload:
    """Unpickling it writes the marker."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._marker,)


def tags(marker: Path) -> list[str]:
    made = f"open({str(marker)!r}, 'w')"
    return [
        f"!!python/object/apply:os.system ['touch {marker}']",
        f'!!python/object/apply:builtins.eval ["{made}"]',
        f"!!python/object/new:pathlib.Path [{marker}]",
        "!!python/name:os.system",
        "!!python/module:os",
        "!!python/tuple [1, 2]",
    ]


@pytest.mark.parametrize("number", range(6))
def test_a_space_with_a_tag_that_makes_objects_is_refused(
    marker: Path, tmp_path: Path, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(f"task: finqa\nspace: {{model: {tags(marker)[number]} }}\n")
    assert sweep([str(space), "--storage", str(tmp_path), "--dry-run"]) == 2
    assert "could not determine a constructor" in capsys.readouterr().err
    space.write_text(yaml.safe_dump(tiny_sweep.mapping()))
    given = ["--set", f"space.rank={tags(marker)[number]}"]
    assert sweep([str(space), "--storage", str(tmp_path), "--dry-run", *given]) == 2


@pytest.mark.parametrize("number", range(6))
def test_a_runs_configuration_is_read_no_less_strictly(
    marker: Path, tmp_path: Path, number: int
) -> None:
    run = new_run(tmp_path / "run")
    add_trial(run, right=outcomes(60))
    run.sweep_file.write_text(f"objective: {tags(marker)[number]}\n")
    assert "could not determine a constructor" in build_report(run).markdown()
    with pytest.raises(InputError, match="could not determine a constructor"):
        refuse_another_space(run, tiny_sweep.config())


@pytest.mark.parametrize("split", ["train", "selection", "report"])
def test_a_pickle_as_a_data_set_is_refused(marker: Path, tmp_path: Path, split: str) -> None:
    good = tmp_path / "good.json"
    good.write_text("[]")
    bad = tmp_path / "bad.json"
    bad.write_bytes(pickle.dumps(Payload(marker)))
    files = {name: str(bad if name == split else good) for name in ("train", "selection", "report")}
    with pytest.raises(InputError, match=r"bad\.json"):
        make_task("finqa", files).load("train")


def test_a_template_reaches_nothing_but_the_questions_fields(marker: Path, tmp_path: Path) -> None:
    template = tmp_path / "template.txt"
    template.write_text("{question.__class__} {0} {question!r} {{ cycler.__init__ }} {question}")
    options = {"generated": tiny_sweep.GENERATED, "prompt": str(template)}
    try:
        task = make_task("finqa", options)
    except InputError:
        return
    assert "class '" not in task.prompt(task.load("train")[0]).text


@pytest.mark.slow
def test_pickled_weights_are_refused_without_a_flag(
    marker: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(marker)))
    with pytest.raises(InputError, match=r"execution.allow_bin_weights"):
        check_model_folder(model)
    space = tiny_sweep.write_space(tmp_path / "s.yaml", tiny_sweep.mapping(str(model)))
    assert sweep([str(space), "--storage", str(tmp_path / "runs"), "--dry-run"]) == 2
    assert "allow_bin_weights" in capsys.readouterr().err
    given = ["--set", "execution.allow_bin_weights=true"]
    assert sweep([str(space), "--storage", str(tmp_path / "runs"), "--dry-run", *given]) == 0


def test_with_the_flag_tensors_are_read_and_code_is_not(
    marker: Path, llama: Path, model: Path
) -> None:
    from safetensors.torch import load_file

    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    pickled = model / "pytorch_model.bin"
    torch.save(weights, pickled)
    spec = spec_on(model, llama, allow_bin_weights=True)
    loaded = load_base(spec, device="cpu").model.state_dict()
    name = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(loaded[name], weights[name])
    before = model_digest(model, allow_bin=True)
    torch.save({**weights, "more": Payload(marker)}, pickled)
    assert model_digest(model, allow_bin=True) != before
    with pytest.raises(pickle.UnpicklingError, match=r"weights_only|Weights only"):
        load_base(spec, device="cpu")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("is_known", [True, False])
def test_code_beside_a_model_is_never_run_and_a_model_that_needs_it_is_refused(
    marker: Path, llama: Path, model: Path, name: str, is_known: bool
) -> None:
    code = f"open({str(marker)!r}, 'w').close()\n"
    (model / "modeling_own.py").write_text(code)
    config = json.loads((model / name).read_text())
    classes = ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer")
    config["auto_map"] = dict.fromkeys(classes, "modeling_own.Own")
    if not is_known:
        config |= {"model_type": "own", "tokenizer_class": "Own", "architectures": ["Own"]}
    (model / name).write_text(json.dumps(config))
    if is_known:
        check_model_folder(model)
        assert type(load_base(spec_on(model, llama), device="cpu").model) is LlamaForCausalLM
        return
    with pytest.raises(InputError, match=r"code of its own .*auto_map.*never run"):
        check_model_folder(model)
    with pytest.raises(InputError, match="auto_map"):
        load_base(spec_on(model, llama), device="cpu")


@pytest.mark.parametrize("name", ["..", ".", "../../x", "a/b", "/tmp/x", "x/"])
def test_a_runs_name_stays_in_its_storage(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    space = tiny_sweep.write_space(tmp_path / "s.yaml", tiny_sweep.mapping())
    storage = tmp_path / "deep" / "runs"
    assert sweep([str(space), "--storage", str(storage), "--name", name]) == 2
    assert "--name" in capsys.readouterr().err
    assert {item.name for item in tmp_path.iterdir()} <= {"s.yaml"}


@pytest.mark.parametrize(
    "trial_id", ["..", "../x", "a/b", "/etc", "", ".hidden", "a\0b", "a\\b", "a b"]
)
def test_a_trials_id_stays_in_its_run(tmp_path: Path, trial_id: str) -> None:
    with pytest.raises(InputError, match="no trial has such an id"):
        RunFolder(tmp_path).trial(trial_id)


def test_a_spec_cannot_name_another_place(tmp_path: Path) -> None:
    """Its folder's name is the id; what it says itself must agree."""
    run = new_run(tmp_path / "run")
    folder = add_trial(run, right=outcomes(60))
    moved = folder.path.rename(folder.path.with_name("another"))
    assert [*Ledger(run)] == [] and (moved / "spec.json.damaged").exists()
    written = json.loads((moved / "spec.json.damaged").read_text())
    (moved / "spec.json").write_text(json.dumps({**written, "trial_id": "../../escaped"}))
    write_report(run)
    assert [*Ledger(run)] == []
    assert not [*tmp_path.rglob("*escaped*")]


def test_ids_of_predictions_name_no_files(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    add_trial(run, right=[1])
    folder = add_trial(run, right=[0], quantization="nf4")
    for one in run.trials():
        row = {"id": "../../../escaped", "question": "\x1b]0;owned\x07[red]?", "prediction": "x",
               "gold": 1.0, "em_acc": one != folder}  # fmt: skip
        one.write_predictions([row])
        one.write_summary(one.summary() or {})
    assert report([str(run.path)]) == 0
    assert "../../../escaped" in run.flips_file.read_text()
    assert "\x1b" not in run.report_file.read_text()
    assert not [*tmp_path.rglob("*escaped*")] and not [*tmp_path.parent.glob("*escaped*")]


@pytest.mark.parametrize(
    "place",
    ["trials", "trials/TRIAL", "trials/TRIAL/spec.json", "trials/TRIAL/summary.json",
     "trials/TRIAL/worker.log", "trials/TRIAL/checkpoints", "trials/TRIAL/adapter"],
)  # fmt: skip
def test_a_link_out_of_the_run_is_refused_and_not_followed(tmp_path: Path, place: str) -> None:
    run = new_run(tmp_path / "run")
    folder = add_trial(run, right=outcomes(60))
    folder.append_log("a line")
    link = run.path / place.replace("TRIAL", folder.trial_id)
    outside = tmp_path / "outside"
    if link.exists():
        shutil.move(link, outside)
    else:
        outside.mkdir()
    link.symlink_to(outside)
    before = {file: file.read_bytes() for file in outside.rglob("*") if file.is_file()}
    with pytest.raises(InputError, match="symbolic link"):
        Ledger(run)
    assert "a symbolic link" in build_report(run).markdown()
    if place.endswith(("trials", "TRIAL", "spec.json")):
        assert read_trials(run) == []
    if place.endswith("worker.log"):
        with pytest.raises(OSError, match="symbolic links"):
            folder.append_log("another")
    assert before == {file: file.read_bytes() for file in outside.rglob("*") if file.is_file()}


@pytest.mark.slow
def test_a_run_holds_no_pickle(llama: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    for seed in (1, 2):
        trial = make_trial(make_spec(llama, seed=seed), run.path / "trials")
        running = train(trial)
        if seed == 1:
            list(running)
            score_report(trial)
        else:
            next(running)
            running.close()
    write_report(run)
    files = [file for file in run.path.rglob("*") if file.is_file()]
    assert {"tensors.safetensors", "adapter_model.safetensors"} <= {file.name for file in files}
    for file in files:
        begin = file.read_bytes()[:4]
        assert not begin.startswith((*PICKLE_PROTOCOLS, ZIP)), file
        assert file.suffix not in {".bin", ".pt", ".pth", ".pkl", ".pickle", ".npy", ".npz"}, file


@pytest.mark.parametrize("name", ["spec.json", "summary.json", "report.json", "predictions.jsonl",
                                  "progress.json"])  # fmt: skip
def test_a_pickle_in_a_trials_folder_is_not_read_as_one(
    marker: Path, tmp_path: Path, name: str
) -> None:
    run = new_run(tmp_path / "run")
    folder = add_trial(run, right=outcomes(6, 10), report_right=outcomes(6, 10))
    (folder.path / name).write_bytes(pickle.dumps(Payload(marker)))
    write_report(open_run(run.path))
    read_predictions(folder)
    Ledger(run)


FORBIDDEN_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "execfile"}
FORBIDDEN_METHODS = {"unsafe_load", "full_load", "unsafe_load_all", "full_load_all"}


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_no_source_can_execute_data(file: Path) -> None:
    tree = ast.parse(file.read_text())
    faults = [fault for node in ast.walk(tree) for fault in _faults(node)]
    assert faults == []


@pytest.mark.parametrize(
    "code",
    ["import pickle", "from joblib import load", "eval('1')", "yaml.load(text)",
     "yaml.load(text, Loader=yaml.Loader)", "yaml.unsafe_load(text)", "torch.load(file)",
     "torch.load(file, weights_only=False)", "numpy.load(file, allow_pickle=True)",
     "AutoModel.from_pretrained(name, trust_remote_code=True)",
     "AutoModel.from_pretrained(name, trust_remote_code=asked)"],
)  # fmt: skip
def test_the_check_itself_sees_what_it_forbids(code: str) -> None:
    assert [fault for node in ast.walk(ast.parse(code)) for fault in _faults(node)]


def _faults(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (item.name for item in node.names if _root(item.name) in FORBIDDEN_MODULES)
    elif isinstance(node, ast.ImportFrom) and _root(node.module or "") in FORBIDDEN_MODULES:
        yield str(node.module)
    elif isinstance(node, ast.Call):
        yield from _call_faults(node)


def _call_faults(node: ast.Call) -> Iterator[str]:
    text = ast.unparse(node)
    named = {item.arg: item.value for item in node.keywords}
    if isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
        yield text
    called = ast.unparse(node.func)
    name = called.rpartition(".")[2]
    if name in FORBIDDEN_METHODS or (called == "yaml.load" and not _is_safe(named)):
        yield text
    if called == "torch.load" and not _is(named.get("weights_only"), True):
        yield text
    if _is(named.get("allow_pickle"), True):
        yield text
    if "trust_remote_code" in named and not _is(named["trust_remote_code"], False):
        yield text


def _is_safe(named: dict[str | None, ast.expr]) -> bool:
    """`_Loader` of strict_yaml.py is a SafeLoader that refuses more."""
    return "Loader" in named and ast.unparse(named["Loader"]) in {"_Loader", "yaml.SafeLoader"}


def _is(value: ast.expr | None, wanted: bool) -> bool:
    return isinstance(value, ast.Constant) and value.value is wanted


def _root(module: str) -> str:
    return module.partition(".")[0]
