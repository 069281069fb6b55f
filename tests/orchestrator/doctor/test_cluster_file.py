"""`doctor --cluster FILE`: the shipped files have no fault except values to fill in, and all faults
of a file are reported at once with their fixes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.config.sections import ResourcesConfig
from orchestrator.doctor.cluster_file import FILL_IN, check_cluster_file, loose_packages
from tests.conftest import REPOSITORY
from trainables.errors import InputError

LAUNCHER = ("cluster.yaml", "clusters/local.yaml", "clusters/gcp.yaml")
KUBERAY = ("clusters/kuberay/raycluster.yaml", "clusters/kuberay/rayjob.yaml")
Edit = Callable[[Any], None]


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the project's folder, with a token and a key at home."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("a token")
    key = tmp_path / "key"
    key.write_text("a key")
    key.chmod(0o600)


def faults(file: Path, resources: ResourcesConfig | None = None) -> list[str]:
    """What is said of a file; the cloud's library need not be installed where tests run."""
    try:
        check_cluster_file(file, resources)
    except InputError as error:
        return [text for text in error.messages if "is not installed here" not in text]
    return []


def filled(name: str, folder: Path) -> list[Any]:
    """A shipped file with every value filled in."""
    values = iter(["10.0.0.1", "10.0.0.2", "someone", str(folder / "key"), "/shared/artifacts"])
    text = (REPOSITORY / name).read_text().partition("cluster_name:" if name in LAUNCHER else "##")
    start = text[0] if name in KUBERAY else "".join(text[1:])
    known = {} if name == "clusters/local.yaml" else {"*": "filled-in:1"}
    return list(
        yaml.safe_load_all(FILL_IN.sub(lambda found: known.get("*") or next(values), start))
    )


def written(documents: list[Any], folder: Path) -> Path:
    file = folder / "cluster.yaml"
    file.write_text(yaml.safe_dump_all(documents))
    return file


@pytest.mark.parametrize("name", [*LAUNCHER, *KUBERAY])
def test_a_shipped_file_lacks_nothing_but_what_only_its_user_knows(
    name: str, tmp_path: Path
) -> None:
    found = faults(REPOSITORY / name)
    assert found and all("still to be filled in" in fault for fault in found), found
    assert faults(written(filled(name, tmp_path), tmp_path)) == []


def _set(path: str, value: Any) -> Edit:
    def edit(document: Any) -> None:
        *parents, last = path.split("/")
        for name in parents:
            document = document[int(name) if isinstance(document, list) else name]
        if value is None:
            del document[int(last) if isinstance(document, list) else last]
        else:
            document[int(last) if isinstance(document, list) else last] = value

    return edit


AWS_FAULTS: list[tuple[str, Any, str]] = [
    ("max_worker", 3, "Did you mean 'max_workers'?"),
    ("available_node_types/t4/resources/GPU", "one", "says Ray's schema"),
    ("available_node_types/t4/resources/GPU", 4, "g4dn.xlarge has 1"),
    ("available_node_types/t4/resources/accelerator_type:A10G", 1, "has accelerator_type:T4"),
    ("available_node_types/t4/min_workers", 9, "above max_workers 8"),
    (
        "available_node_types/head/node_config/InstanceMarketOptions",
        {"MarketType": "spot"},
        "Use on-demand",
    ),
    ("head_node_type", "chief", "Ray can't prepare it"),
    ("setup_commands/3", "pip install torch boto3==1.43.108", "installs torch at no fixed version"),
    ("setup_commands", None, "ray-3.0.0.dev0"),
    ("setup_commands/3", "true", "don't install boto3"),
    ("file_mounts/~/.ray/auth_token", None, "no token"),
    ("file_mounts/~/.ray/auth_token", "~/nowhere", "ray get-auth-token --generate"),
    ("file_mounts/~/sweep/data", "no-such-folder", "Start from the project's folder"),
    ("head_start_ray_commands/1", "RAY_AUTH_TOKEN=x ray start --head", "must not lie in this file"),
    ("head_start_ray_commands/1", "ray start --head", "--autoscaling-config"),
    ("head_start_ray_commands", ["ray stop"], "start no head"),
    ("docker", {"image": "rayproject/ray:latest", "container_name": "x"}, "Name a version"),
    ("cluster_name", "<<FILL IN a name>>", "Write there a name."),
]


@pytest.mark.parametrize(("path", "value", "said"), AWS_FAULTS)
def test_each_fault_is_found(path: str, value: Any, said: str, tmp_path: Path) -> None:
    (document,) = filled("cluster.yaml", tmp_path)
    keys = path.split("~", 1)  # keys of file_mounts hold slashes
    if len(keys) == 2:
        document["file_mounts"].pop(f"~{keys[1]}", None)
        document["file_mounts"] |= {} if value is None else {f"~{keys[1]}": value}
    else:
        _set(path, value)(document)
    found = faults(written([document], tmp_path))
    assert any(said in fault for fault in found), found


LOCAL_FAULTS: list[tuple[str, Any, str]] = [
    ("provider/worker_ips", ["10.0.0.1"], "is the head"),
    ("provider/worker_ips", ["10.0.0.2", "10.0.0.2"], "twice"),
    ("provider/worker_ips", [], "is empty"),
    ("auth/ssh_private_key", "/no/such/key", "ssh-keygen"),
    (
        "head_start_ray_commands/1",
        "ray start --head --autoscaling-config=x",
        "RAY_enable_autoscaler_v2=0",
    ),
]


@pytest.mark.parametrize(("path", "value", "said"), LOCAL_FAULTS)
def test_each_fault_of_own_machines_is_found(
    path: str, value: Any, said: str, tmp_path: Path
) -> None:
    (document,) = filled("clusters/local.yaml", tmp_path)
    _set(path, value)(document)
    found = faults(written([document], tmp_path))
    assert any(said in fault for fault in found), found


KUBERAY_FAULTS: list[tuple[str, Any, str]] = [
    ("spec/rayVersion", "2.40.0", "The project runs"),
    ("spec/authOptions", None, "mode: token"),
    ("spec/enableInTreeAutoscaling", False, "nothing grows"),
    ("spec/workerGroupSpecs/0/maxReplicas", 0, "no worker may ever start"),
    ("spec/workerGroupSpecs/0/replicas", 9, "does not hold"),
    (
        "spec/workerGroupSpecs/0/template/spec/containers/0/image",
        "rayproject/ray",
        "Name a version",
    ),
    (
        "spec/workerGroupSpecs/0/template/spec/containers/0/resources",
        {"limits": {"nvidia.com/gpu": 1}},
        "wants them equal",
    ),
    (
        "spec/workerGroupSpecs/0/template/spec/containers/0/volumeMounts",
        [],
        "no volume at the same place",
    ),
]


@pytest.mark.parametrize(("path", "value", "said"), KUBERAY_FAULTS)
def test_each_fault_of_a_manifest_is_found(
    path: str, value: Any, said: str, tmp_path: Path
) -> None:
    claim, cluster = copy.deepcopy(filled("clusters/kuberay/raycluster.yaml", tmp_path))
    _set(path, value)(cluster)
    found = faults(written([claim, cluster], tmp_path))
    assert any(said in fault for fault in found), found


def test_all_faults_are_said_at_once(tmp_path: Path) -> None:
    (document,) = filled("cluster.yaml", tmp_path)
    for path, value, _ in (AWS_FAULTS[2], AWS_FAULTS[5], AWS_FAULTS[7], AWS_FAULTS[14]):
        _set(path, value)(document)
    assert len(faults(written([document], tmp_path))) == 4


def test_a_trial_that_fits_no_node_type_is_found(tmp_path: Path) -> None:
    file = written(filled("cluster.yaml", tmp_path), tmp_path)
    assert faults(file, ResourcesConfig(gpus_per_trial=8)) == []
    (found,) = faults(file, ResourcesConfig(gpus_per_trial=16))
    assert "16 GPUs" in found and "gpus_per_trial" in found


@pytest.mark.parametrize(
    ("arguments", "loose"),
    [
        ("-U ray 'boto3>=1.4.8'", ["ray", "boto3>=1.4.8"]),
        ("--constraint constraints.txt torch", []),
        ("--quiet torch==2.13.0", []),
        ("--index-url https://x torch==2.13.0 numpy", ["numpy"]),
    ],
)
def test_what_is_pinned(arguments: str, loose: list[str]) -> None:
    assert loose_packages(arguments) == loose


def test_what_is_no_cluster_file_is_said(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    assert "can't be read" in faults(file)[0]
    file.write_text("a: [")
    assert "is no YAML" in faults(file)[0]
    file.write_text("- 1")
    assert "holds no cluster" in faults(file)[0]
