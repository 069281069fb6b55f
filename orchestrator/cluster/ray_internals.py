"""Private APIs of Ray: every use of one is in this file, because an upgrade may change them.

Each function says why no public API serves. tests/orchestrator/cluster/test_ray_internals.py names
whatever the installed version of Ray no longer has.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

# Environment variables that Ray Train reads in the process that calls `fit`.
TRAIN_SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # Limits one wait for devices; `run_train` repeats it while the group is wanted. The controller
    # handles no calls during the wait, and its request to Ray outlives it if it is killed then.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "10",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # it would restart the workers itself
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


def keep_sigterm_handler() -> None:
    """Keeps `ray.init` from installing a SIGTERM handler that raises SystemExit anywhere.

    There is no setting for it.
    """
    from ray._private import utils

    utils.set_sigterm_handler = lambda handler: None


def shield_ray_processes() -> None:
    """Lets the Ray that this process starts from here on outlive SIGTERM, SIGHUP and SIGINT.

    A signal to the process group, or to all processes of a Slurm job or a service, asks the sweep
    to end in order, for which it needs Ray. Ray blocks only SIGINT in its processes, and has no
    setting. They still end with this process, by SIGKILL. Where the kernel can't do that Ray ends
    them as a process group, which is left as it is.
    """
    from ray._private import services

    if sys.platform != "linux" or hasattr(services.ConsolePopen, "shielded"):
        return

    class ShieldedProcess(services.ConsolePopen):  # type: ignore[misc]
        shielded = (signal.SIGTERM, signal.SIGHUP)

        def __init__(self, *arguments: Any, preexec_fn: Callable[[], None], **options: Any) -> None:
            def block() -> None:  # in the child, and for all that it starts
                preexec_fn()
                signal.pthread_sigmask(signal.SIG_BLOCK, self.shielded)

            super().__init__(*arguments, preexec_fn=block, start_new_session=True, **options)

        def terminate(self) -> None:
            """Ray waits in vain for what a blocked signal does."""
            self.kill()

    services.ConsolePopen = ShieldedProcess


def started_cluster() -> str | None:
    """The address of the cluster that the last `ray start` of this machine started or joined.

    `ray.init` joins it, but can't be asked whether there is one.
    """
    from ray._private import utils

    address: str | None = utils.read_ray_address()
    return address or None


def ray_folder() -> tuple[str, Path]:
    """Where Ray puts its files and sockets by default, with the variable that says so.

    No public API tells it.
    """
    from ray._common import utils

    variable = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
    return variable, Path(utils.get_default_system_temp_dir())


def has_started_ray() -> bool:
    """Whether this process has started the Ray that it uses, rather than joined a cluster.

    `ray.init` does not return it.
    """
    from ray._private import worker

    node = worker._global_node
    return node is not None and bool(node.head)


def draining_nodes() -> set[str]:
    """The ids of the nodes that get no more work because they are about to be taken away.

    No public API of Python tells them.
    """
    from ray._private.state import state

    return set(state.get_draining_nodes())


def keep_environment_out_of_tune() -> None:
    """Keeps Tune from passing environment variables to the actors of trials.

    Ray logs what it passes, and AWS secrets are among them. There is no setting for it.
    """
    from ray.tune.execution import class_cache

    class_cache.ENV_VARS_TO_PROPAGATE.clear()


def train_controller_callback(
    *, on_start: Callable[[], None], before_workers: Callable[[], None]
) -> Any:
    """A callback for Ray Train's RunConfig; both functions run in the controller's process.

    `before_workers` runs before each attempt to start the workers; if it raises, the run ends with
    a ControllerError. The public UserCallback has no hook before the workers start.
    """
    from ray.train.v2._internal.execution.callback import ControllerCallback

    class Callback(ControllerCallback):  # type: ignore[misc]  # Ray carries no types
        def after_controller_start(self, train_run_context: Any) -> None:
            on_start()

        def before_controller_execute_resize_decision(self, resize_decision: Any) -> None:
            before_workers()

    return Callback()


def failed_health_checks(errors: Collection[Exception]) -> list[Exception]:
    """The causes of those errors of Ray Train that mean that a worker's process is dead.

    Ray Train puts them into its public WorkerGroupError, but their class is private.
    """
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    dead = [error for error in errors if isinstance(error, WorkerHealthCheckFailedError)]
    return [error.health_check_failure for error in dead]


def cluster_file_providers() -> list[str]:
    """The values of provider.type that `ray up` knows."""
    from ray.autoscaler._private.providers import _DEFAULT_CONFIGS

    return list(_DEFAULT_CONFIGS)


def cluster_file_defaults(provider: Mapping[str, Any]) -> dict[str, Any]:
    """What `ray up` adds to a cluster file with this provider."""
    from ray.autoscaler._private.providers import _get_default_config

    defaults: dict[str, Any] = _get_default_config(provider)
    return defaults


def prepare_cluster_file(config: Mapping[str, Any]) -> None:
    """Prepares and validates a cluster file as `ray up` does; raises what that raises."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(dict(config)))
