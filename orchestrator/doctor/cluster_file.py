"""Checks of a cluster file before `ray up` starts a machine.

Ray's own schema and preparation are applied first. The checks here find what Ray accepts and what
fails minutes later on a machine: a value not filled in, an unpinned package, a missing token.
KubeRay's manifests: `orchestrator.doctor.kuberay_manifest`.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from orchestrator.cluster.ray_internals import (
    cluster_file_defaults,
    cluster_file_providers,
    prepare_cluster_file,
)
from orchestrator.config.sections import ResourcesConfig
from orchestrator.doctor.kuberay_manifest import kuberay_faults
from orchestrator.doctor.node_types import node_faults, room_faults
from trainables.errors import InputError, did_you_mean

Config = Mapping[str, Any]
FILL_IN = re.compile(r"<<FILL IN (.+?)>>", re.DOTALL)
TOKEN = "~/.ray/auth_token"
AUTOSCALING = "--autoscaling-config=~/ray_bootstrap_config.yaml"
LIBRARIES = {"aws": ("boto3", "boto3"), "gcp": ("google-api-python-client", "googleapiclient")}
COMMANDS = (
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
_INSTALL = re.compile(r"\b(?:pip3?|uv pip|conda|mamba) install\b([^&|;)]*)")
_TAKES_A_VALUE = ("-c", "--constraint", "-r", "--requirement", "--python", "--index-url", "-i")


def check_cluster_file(file: Path, resources: ResourcesConfig | None = None) -> None:
    """Raises InputError with all that is wrong with a file for `ray up` or KubeRay.

    `resources` are what one trial of a space needs: some node type must have them. Relative paths
    in the file are resolved against the working directory, as by `ray up`.
    """
    documents = _read(file)
    manifests = [each for each in documents if "apiVersion" in each]
    found = [*fill_ins(documents[0] if len(documents) == 1 else documents)]
    if manifests:
        found += kuberay_faults(manifests)
    else:
        found += _launcher_faults(documents[0], resources or ResourcesConfig())
    if found:
        raise InputError([f"{file}: {fault}" for fault in found])


def fill_ins(value: Any) -> Iterator[str]:
    """One fault for each distinct placeholder, with the first of its places."""
    places: dict[str, list[str]] = defaultdict(list)
    for where, text in _texts(value):
        for wanted in FILL_IN.findall(text):
            places[wanted].append(where)
    for wanted, those in places.items():
        more = f" (and {len(those) - 1} more places)" if len(those) > 1 else ""
        yield f"{those[0]}{more}: still to be filled in. Write there {wanted}."


def _read(file: Path) -> list[dict[str, Any]]:
    try:
        text = file.read_text(encoding="utf-8")
        documents = [each for each in yaml.safe_load_all(text) if each is not None]
    except OSError as error:
        raise InputError(f"{file}: can't be read ({error.strerror}).") from error
    except yaml.YAMLError as error:
        raise InputError(f"{file}: is no YAML: {error}") from error
    if not documents or not all(isinstance(each, dict) for each in documents):
        raise InputError(f"{file}: holds no cluster; start from cluster.yaml or clusters/.")
    return documents


def _texts(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Every string in a nested value, with its path."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _texts(item, f"{where}[{place}]")


def _launcher_faults(config: Config, resources: ResourcesConfig) -> list[str]:
    found = list(_schema_faults(config))
    if found:
        return found  # the other checks assume a file that satisfies the schema
    whole = _with_defaults(config)
    checks: tuple[Callable[[Config], Iterator[str]], ...] = (
        _preparation_faults,
        node_faults,
        _unpinned,
        _token_faults,
        _path_faults,
        _start_faults,
        _library_faults,
        _local_faults,
    )
    found = [fault for check in checks for fault in check(whole)]
    return [*found, *room_faults(whole, resources)]


def _schema_faults(config: Config) -> Iterator[str]:
    """Violations of Ray's own schema for cluster files."""
    import jsonschema  # type: ignore[import-untyped]  # it comes with Ray
    import ray.autoscaler

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    for error in jsonschema.Draft7Validator(schema).iter_errors(config):
        where = ".".join(str(part) for part in error.absolute_path) or "the file"
        unknown = re.search(r"'([^']+)' (?:was|were) unexpected", error.message)
        allowed = error.schema.get("properties", {})
        hint = did_you_mean(unknown[1], allowed) if unknown and allowed else ""
        yield f"{where}: {error.message[:300]}, says Ray's schema.{hint}"


def _with_defaults(config: Config) -> dict[str, Any]:
    """The file merged over Ray's defaults for its provider, as `ray up` reads it."""
    kind, allowed = config["provider"]["type"], cluster_file_providers()
    if kind not in allowed:
        raise InputError(f"provider.type: {kind!r}.{did_you_mean(kind, allowed)}")
    return {**cluster_file_defaults(config["provider"]), **config}


def _preparation_faults(config: Config) -> Iterator[str]:
    """The error of Ray's own preparation of the file, if there is one."""
    from click import ClickException
    from jsonschema import ValidationError

    told = io.StringIO()
    try:
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            prepare_cluster_file(config)
    except (ValueError, RuntimeError, ValidationError, ClickException) as error:
        said = (str(error) or told.getvalue()).strip() or type(error).__name__
        yield f"Ray can't prepare it: {said.splitlines()[0]}"


def _unpinned(config: Config) -> Iterator[str]:
    """Packages without a fixed version: nodes that start later would get other versions."""
    for section in COMMANDS:
        for place, command in enumerate(config.get(section, [])):
            for install in _INSTALL.finditer(command):
                loose = loose_packages(install[1])
                if loose:
                    yield (
                        f"{section}[{place}]: installs {', '.join(loose)} at no fixed version"
                        f"{_by_default(command)}. Add --constraint constraints.txt, or ==VERSION."
                    )
    image = config.get("docker", {}).get("image", "")
    if image and (":" not in image.rpartition("/")[2] or image.endswith(":latest")):
        yield f"docker.image: {image} is another one tomorrow. Name a version."


def loose_packages(arguments: str) -> list[str]:
    """Packages in the arguments of `pip install` without a version and without constraints."""
    words = arguments.replace("'", " ").replace('"', " ").split()
    if {"-c", "--constraint", "-r", "--requirement"} & set(words):
        return []
    values = {place + 1 for place, word in enumerate(words) if word in _TAKES_A_VALUE}
    return [
        word
        for place, word in enumerate(words)
        if not word.startswith("-") and place not in values and "==" not in word
    ]


def _by_default(command: str) -> str:
    is_ray = "ray-wheels/latest" in command or "boto3>=" in command
    return " (Ray's default: the file gives none of its own)" if is_ray else ""


def _token_faults(config: Config) -> Iterator[str]:
    """Faults of the token. If nodes have different ones, `ray up` succeeds and no worker joins."""
    given = config.get("file_mounts", {}).get(TOKEN)
    if any("RAY_AUTH_TOKEN=" in text for _, text in _texts(dict(config))):
        yield f"RAY_AUTH_TOKEN: a secret must not lie in this file. Mount {TOKEN} instead."
    if given is None:
        yield f"file_mounts: no token for the nodes. Add {TOKEN}: {TOKEN}"
        return
    local = Path(given).expanduser()
    if not local.is_file() or not local.read_text().strip():
        yield f"file_mounts.{TOKEN}: {given} holds no token. Run: ray get-auth-token --generate"


def _path_faults(config: Config) -> Iterator[str]:
    """Local files that `ray up` needs only after it has started the head, and that are missing."""
    for remote, local in config.get("file_mounts", {}).items():
        if remote != TOKEN and not FILL_IN.search(local) and not Path(local).expanduser().exists():
            yield f"file_mounts.{remote}: {local} is not here. Start from the project's folder."
    key = config.get("auth", {}).get("ssh_private_key", "")
    if key and not FILL_IN.search(key):
        file = Path(key).expanduser()
        if not file.is_file():
            yield f"auth.ssh_private_key: {key} is not there. Make one with ssh-keygen."
        elif file.stat().st_mode & 0o077:
            yield f"auth.ssh_private_key: others may read {key}, so ssh refuses it. chmod 600 {key}"


def _start_faults(config: Config) -> Iterator[str]:
    where, head = "head_start_ray_commands", " ".join(config.get("head_start_ray_commands", []))
    if "ray start" not in head or "--head" not in head:
        yield f"{where}: start no head. Add ray start --head {AUTOSCALING}."
    elif "--autoscaling-config" not in head:
        yield f"{where}: no worker would ever start. Add {AUTOSCALING}."
    if "--include-dashboard=false" in head:
        yield f"{where}: trials of several workers leak without the dashboard. Leave it on."
    if config["provider"]["type"] == "local" and "RAY_enable_autoscaler_v2=0" not in head:
        yield (
            f"{where}: with Ray's second autoscaler no worker of a local cluster joins, and "
            "nothing says so. Write RAY_enable_autoscaler_v2=0 ray start --head ..."
        )


def _library_faults(config: Config) -> Iterator[str]:
    """Ray needs the cloud's library here for `ray up` and on the head for the autoscaler."""
    package, module = LIBRARIES.get(config["provider"]["type"], ("", ""))
    if not package:
        return
    if find_spec(module) is None:
        yield f"provider.type: {package} is not installed here. Run: pip install {package}"
    setup = [*config.get("setup_commands", []), *config.get("head_setup_commands", [])]
    if not any(package in command for command in setup):
        yield f"setup_commands: don't install {package}, so that the head can start no worker."


def _local_faults(config: Config) -> Iterator[str]:
    provider = config["provider"]
    if provider["type"] != "local" or "coordinator_address" in provider:
        return
    workers, head = provider.get("worker_ips", []), provider.get("head_ip")
    if head in workers:
        yield f"provider.worker_ips: {head} is the head. A machine is one or the other."
    for address in {address for address in workers if workers.count(address) > 1}:
        yield f"provider.worker_ips: {address} is there twice. Remove one."
    if not workers:
        yield "provider.worker_ips: is empty: there would be a head and nothing else. Name one."
