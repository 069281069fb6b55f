"""The installed Ray has every private name that `ray_internals` uses; no other file uses one."""

from __future__ import annotations

import importlib
import inspect
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private import services

from orchestrator.cluster import ray_internals

REPOSITORY = Path(inspect.getfile(ray_internals)).resolve().parents[2]
TRAIN = "ray.train.v2._internal"
CALLBACK = f"{TRAIN}.execution.callback:ControllerCallback"
USED = {  # module:attribute, with the parameters of a function that we call or override
    "ray._private.utils:set_sigterm_handler": ["sigterm_handler"],
    "ray._private.utils:read_ray_address": ["temp_dir"],
    "ray._private.services:ConsolePopen.terminate": ["self"],
    "ray._common.utils:get_default_system_temp_dir": [],
    "ray._private.worker:_global_node": None,
    "ray._private.state:state.get_draining_nodes": [],
    "ray.tune.execution.class_cache:ENV_VARS_TO_PROPAGATE.clear": None,
    f"{CALLBACK}.after_controller_start": ["self", "train_run_context"],
    f"{CALLBACK}.before_controller_execute_resize_decision": ["self", "resize_decision"],
    f"{TRAIN}.execution.controller.controller:TrainController.abort": ["self"],
    f"{TRAIN}.exceptions:WorkerHealthCheckFailedError": ["message", "failure"],
    "ray.autoscaler._private.providers:_DEFAULT_CONFIGS": None,
    "ray.autoscaler._private.providers:_get_default_config": ["provider_config"],
    "ray.autoscaler._private.util:prepare_config": ["config"],
    "ray.autoscaler._private.util:validate_config": ["config"],
}


@pytest.mark.parametrize("name", USED)
def test_ray_still_has_what_we_use_of_its_inside(name: str) -> None:
    found, parameters = _found(name), USED[name]
    if parameters is not None:
        assert [*inspect.signature(found).parameters] == parameters, (
            f"ray {ray.__version__} calls {name} differently; see ray_internals.py"
        )


def _found(name: str) -> Any:
    module, _, path = name.partition(":")
    try:
        found = importlib.import_module(module)
        for attribute in path.split("."):
            found = getattr(found, attribute)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"ray {ray.__version__} has no {name} ({error}); see ray_internals.py")
    return found


@pytest.mark.parametrize("name", ray_internals.TRAIN_SETTINGS)
def test_ray_train_still_reads_the_variable(name: str) -> None:
    modules = [
        importlib.import_module(f"{TRAIN}.constants"),
        importlib.import_module("ray.train.constants"),
    ]
    read = {
        value for module in modules for value in vars(module).values() if isinstance(value, str)
    }
    assert name in read, f"ray {ray.__version__} does not read {name}; see ray_internals.py"


def test_the_cause_of_a_worker_s_death_is_still_told() -> None:
    error = _found(f"{TRAIN}.exceptions:WorkerHealthCheckFailedError")
    cause = RuntimeError("the process is gone")
    failures = [error("a worker is dead", cause), ValueError("of the trial")]
    assert ray_internals.failed_health_checks(failures) == [cause]


def test_no_other_file_uses_the_inside_of_ray() -> None:
    inside = r"ray(?:\.\w+)*\.(?:_private|_internal|_common|tune\.execution)\b"
    private = re.compile(rf"^\s*(?:from|import) {inside}", re.MULTILINE)
    sources = [*REPOSITORY.glob("orchestrator/**/*.py"), *REPOSITORY.glob("trainables/**/*.py")]
    using = [file.name for file in sources if private.search(file.read_text())]
    assert using == ["ray_internals.py"]


SLEEPS = """
import os, time
print(os.getsid(0) == os.getpid(), flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Ray ends its processes as a group there")
def test_a_process_of_ray_outlives_the_signals_to_the_sweep_and_ends_when_ray_ends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(services, "ConsolePopen", services.ConsolePopen)
    for _ in range(2):  # it is called at each start of Ray in a process
        ray_internals.shield_ray_processes()
    process = services.ConsolePopen(
        [sys.executable, "-c", SLEEPS],
        stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}),  # as Ray
    )
    assert process.stdout.readline() == b"True\n"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process.send_signal(number)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    process.terminate()
    assert process.wait(30) == -signal.SIGKILL
