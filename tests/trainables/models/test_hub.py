"""Models of the hub: downloaded once per node, only the needed files, never when offline."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tests.hub_server import COMMIT, Hub, hub_server
from trainables.errors import InputError
from trainables.models.hub import HubAccess, HubModel, cached, fetched

REPOSITORY = Path(__file__).resolve().parent.parent.parent.parent
MODEL = HubModel("owner/tiny", COMMIT)
WEIGHTS = "model.safetensors"
_FETCH = """
import json, sys
from trainables.errors import InputError
from trainables.models.hub import HubAccess, HubModel, fetch_all
models, access = json.loads(sys.argv[1])
try:
    print(*fetch_all([HubModel(**each) for each in models], HubAccess(**access)))
except InputError as error:
    sys.exit(f"refused: {error}")
"""


@pytest.fixture
def hub(base_models: Path, tmp_path: Path) -> Iterator[Hub]:
    """A hub whose model has more files than are needed."""
    folder = shutil.copytree(base_models / "small", tmp_path / "model")
    for name in ("README.md", "consolidated.safetensors", "pytorch_model.bin", "model.onnx"):
        (folder / name).write_text("not needed")
    with hub_server(folder) as hub:
        yield hub


def access(hub: Hub, folder: Path, **given: object) -> HubAccess:
    return replace(HubAccess(endpoint=hub.url, home=str(folder / "home")), **given)  # type: ignore[arg-type]


def start(access: HubAccess, *models: HubModel) -> subprocess.Popen[str]:
    """A process of its own, as a host is one: huggingface_hub reads its settings once."""
    given = json.dumps([[asdict(each) for each in models or (MODEL,)], asdict(access)])
    own = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.Popen(
        [sys.executable, "-c", _FETCH, given],
        cwd=REPOSITORY,
        env={**own, "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def fetch(access: HubAccess, *models: HubModel) -> tuple[int, str]:
    """The exit code, and where the models lie or why they can't be had."""
    process = start(access, *models)
    out, err = process.communicate(timeout=60)
    return process.returncode, (out if process.returncode == 0 else err).strip()


@pytest.mark.slow
def test_two_processes_of_a_node_fetch_the_weights_once_and_then_nobody_is_asked(
    hub: Hub, tmp_path: Path
) -> None:
    hub.seconds = 0.3
    both = [start(access(hub, tmp_path)) for _ in range(2)]
    said = [process.communicate(timeout=60)[0].strip() for process in both]
    assert said[0] == said[1] and (Path(said[0]) / WEIGHTS).stat().st_size > 0
    assert hub.gets(WEIGHTS) == 1
    assert sum("/tree/" in line for line in hub.asked) == 1  # the other has waited
    hub.asked.clear()
    assert fetch(access(hub, tmp_path)) == (0, said[0])
    assert hub.asked == []


@pytest.mark.slow
def test_only_what_a_model_needs_is_fetched(hub: Hub, tmp_path: Path) -> None:
    code, place = fetch(access(hub, tmp_path))
    assert code == 0
    assert {file.name for file in Path(place).iterdir()} == {
        "config.json", "generation_config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json"
    }  # fmt: skip


@pytest.mark.slow
def test_pickles_are_fetched_where_they_are_allowed_and_all_there_is(
    hub: Hub, tmp_path: Path
) -> None:
    (hub.folder / WEIGHTS).unlink()
    (hub.folder / "consolidated.safetensors").unlink()
    code, why = fetch(access(hub, tmp_path))
    assert code == 1 and "has no *.safetensors" in why and hub.gets("pytorch_model.bin") == 0
    code, place = fetch(access(hub, tmp_path), replace(MODEL, allow_bin=True))
    assert code == 0 and (Path(place) / "pytorch_model.bin").is_file()


@pytest.mark.slow
def test_a_gated_model_needs_the_token_which_is_in_no_message(hub: Hub, tmp_path: Path) -> None:
    hub.token = "hf_marker_of_a_token"
    code, why = fetch(access(hub, tmp_path))
    assert code == 1 and "owner/tiny can't be fetched" in why and "set HF_TOKEN" in why
    code, why = fetch(access(hub, tmp_path, token="hf_marker_of_another"))
    assert code == 1 and "marker" not in why
    assert fetch(access(hub, tmp_path, token=hub.token))[0] == 0


@pytest.mark.slow
def test_offline_nobody_is_asked_and_what_is_not_whole_is_told_with_what_to_do(
    hub: Hub, tmp_path: Path
) -> None:
    offline = access(hub, tmp_path, offline=True)
    code, why = fetch(offline, MODEL, HubModel("owner/other", COMMIT))
    assert code == 1 and hub.asked == []
    for part in ("owner/tiny at", "owner/other at", "HF_HUB_OFFLINE is set", "hf download"):
        assert part in why
    code, place = fetch(access(hub, tmp_path))
    hub.asked.clear()
    assert fetch(offline) == (code, place) == (0, place) and hub.asked == []
    (Path(place) / WEIGHTS).resolve().unlink()  # the blob that the link leads to
    assert fetch(offline)[0] == 1 and hub.asked == []


@pytest.mark.slow
def test_a_download_that_broke_off_is_gone_on_with(hub: Hub, tmp_path: Path) -> None:
    hub.failures = 1
    code, why = fetch(access(hub, tmp_path))
    assert code == 1 and "can't be fetched" in why
    assert fetch(access(hub, tmp_path))[0] == 0
    files = ("config.json", WEIGHTS, "tokenizer.json")
    assert sum(map(hub.gets, files)) <= len(files) + 1


def test_what_the_environment_says_is_passed_on_and_the_token_is_not_shown() -> None:
    given = {"HF_ENDPOINT": "http://hub", "HF_HUB_OFFLINE": "yes", "HF_HOME": "/cache",
             "HF_TOKEN": "hf_marker"}  # fmt: skip
    found = HubAccess.of(given)
    assert found == HubAccess("http://hub", offline=True, home="/cache", token="hf_marker")
    assert "marker" not in f"{found} {found!r}"
    assert HubAccess.of({"HF_HUB_OFFLINE": "0"}) == HubAccess()


def test_a_nodes_own_home_counts_and_the_drivers_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HOME", "HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "the node's")
    HubAccess(home="/driver", token="the driver's").use()
    assert os.environ["HF_HOME"] == os.environ["HF_ENDPOINT"] == "the node's"
    assert os.environ["HF_TOKEN"] == "the driver's"


OPTIONAL = ("generation_config.json", "tokenizer_config.json")  # a chat template is in the second


@pytest.fixture
def snapshot(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This process reaches the hub; the folder of a model that something else has half brought."""
    from huggingface_hub import constants

    addresses = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", addresses)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    place = tmp_path / "hub/models--owner--tiny/snapshots" / COMMIT
    place.mkdir(parents=True)
    for name in ("config.json", WEIGHTS, "tokenizer.json"):
        shutil.copy(hub.folder / name, place / name)
    return place


def test_a_model_that_only_could_be_loaded_is_completed_and_then_nobody_is_asked(
    hub: Hub, snapshot: Path
) -> None:
    assert cached(MODEL) is None  # else another process would load it while it is fetched
    assert fetched(MODEL) == snapshot
    assert all((snapshot / name).is_file() for name in OPTIONAL) and hub.gets(WEIGHTS) == 0
    hub.asked.clear()
    assert fetched(MODEL) == snapshot and hub.asked == []


def test_a_model_that_lost_a_file_is_completed(hub: Hub, snapshot: Path) -> None:
    fetched(MODEL)
    (snapshot / OPTIONAL[1]).resolve().unlink()
    assert fetched(MODEL) == snapshot and (snapshot / OPTIONAL[1]).is_file()


def test_a_half_fetched_model_is_none_until_all_pickles_are_there(hub: Hub, snapshot: Path) -> None:
    model = replace(MODEL, allow_bin=True)
    (snapshot / WEIGHTS).unlink()
    (hub.folder / WEIGHTS).unlink()  # consolidated.safetensors is no format that is loaded
    (hub.folder / "pytorch_model-2.bin").write_text("the second")
    assert fetched(model) == snapshot and cached(model) == snapshot
    (snapshot / "pytorch_model-2.bin").resolve().unlink()
    assert cached(model) is None


def test_offline_what_can_be_loaded_is_taken_unless_the_hub_is_known_to_list_more(
    hub: Hub, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetched(MODEL) == snapshot
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    fetched(MODEL)
    (snapshot / OPTIONAL[1]).resolve().unlink()
    hub.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="not whole"):
        fetched(MODEL)
    assert hub.asked == []


def test_a_model_that_needs_code_of_its_own_is_told_by_its_name_and_not_as_missing(
    hub: Hub, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    config = json.loads((snapshot / "config.json").read_text())
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").write_text(json.dumps({**config, **own}))
    with pytest.raises(InputError, match=r"owner/tiny needs code of its own .* has no causal"):
        fetched(MODEL)
    (snapshot / "config.json").write_text(json.dumps({**config, "auto_map": own["auto_map"]}))
    assert fetched(MODEL) == snapshot


def test_a_hub_that_refuses_leaves_what_can_be_loaded_and_is_asked_again(
    hub: Hub, snapshot: Path
) -> None:
    hub.token = "hf_of_another"
    assert fetched(MODEL) == snapshot and cached(MODEL) is None
    hub.token = ""
    assert fetched(MODEL) == cached(MODEL) == snapshot
