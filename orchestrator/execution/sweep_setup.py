"""SweepSetup: puts together what a running sweep consists of, while its hosts start."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.config.sections import SweepConfig
from orchestrator.planning.planner import Planner
from orchestrator.runs.ledger import Ledger, TrialRecord
from trainables.spec.states import FINISHED
from trainables.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from orchestrator.cluster.session import Cluster
    from orchestrator.execution.limits import SweepClock
    from orchestrator.execution.running_sweep import Sweep, SweepObserver
    from orchestrator.planning.simulator import SimulatorClient
    from orchestrator.preflight import PreflightGate
    from orchestrator.search.searcher import Search


@dataclass
class SweepSetup:
    """The parts of one start of a sweep.

    `python` replaces Python in processes that compute (see `ForkedPython.python`); empty: nothing
    does. `notify` prints a line for the user, `note` one that stays in sight. `predicts`: memory
    and FLOPs of trials are predicted. `search` is None until `build` has been called.
    """

    run: RunFolder
    planner: Planner
    python: tuple[str, ...]
    notify: Callable[[str], None]
    note: Callable[[str], None] = print
    predicts: bool = True
    search: Search | None = None
    _simulator: SimulatorClient | None = field(default=None, init=False)
    _preflight: PreflightGate | None = field(default=None, init=False)

    @property
    def config(self) -> SweepConfig:
        return self.planner.config

    def start_simulator(self) -> None:
        """Starts the process that predicts memory and FLOPs, and the preflight in it; it works
        while Ray starts."""
        from orchestrator.planning.simulator import SERVICE, SimulatorClient
        from orchestrator.preflight import PreflightGate

        self._simulator = SimulatorClient(
            cache=self.run.predictions_folder,
            warn=self.notify,
            command=(*(self.python or (sys.executable,)), *SERVICE),
        )
        self._preflight = PreflightGate(
            self.planner,
            self._simulator,
            cache=self.run.predictions_folder,
            notify=self.notify,
            note=self.note,
        )
        if self.predicts:
            self._simulator.start()

    def build(
        self,
        ledger: Ledger,
        *,
        watchers: Sequence[SweepObserver],
        clock: SweepClock,
        resume_command: str,
        check: Callable[[], None],
    ) -> Sweep:
        """Starts the hosts, waits for the first and returns the sweep that runs on them.

        `check` is called while it waits and may raise, as at a signal. Raises InputError if no
        node has room for a host, if a model can't be fetched, and for all that the preflight has
        found; where trials have finished already, that is a warning.
        """
        from orchestrator.runs.provenance import driver_provenance

        assert self._preflight is not None
        self._preflight.only_warns = bool(ledger.count(FINISHED))
        provenance = driver_provenance()
        cluster = self._open_hosts(
            provenance,
            self._preflight.checked(check),
            meanwhile=lambda: self._prepare_search(known_trials=len(ledger.records)),
        )
        self._preflight.pass_through(check)
        self.planner.device = cluster.device
        self._forecast_on(cluster)
        ledger.provenance = provenance | {key: str(value) for key, value in cluster.device.items()}
        return self._sweep(
            ledger, cluster, watchers=watchers, clock=clock, resume_command=resume_command
        )

    def close(self) -> None:
        """Ends the simulator's process; nothing is predicted any more."""
        if self.planner.forecaster is not None:
            self.planner.forecaster.close()
        if self._simulator is not None:
            self._simulator.close()

    def _open_hosts(
        self, provenance: dict[str, str], check: Callable[[], None], meanwhile: Callable[[], None]
    ) -> Cluster:
        from orchestrator.cluster.model_prefetch import hub_models
        from orchestrator.cluster.session import open_hosts

        models = hub_models(
            self.planner.models.values(), allow_bin=self.config.execution.allow_bin_weights
        )
        return open_hosts(
            self.config.resources,
            trials=self.config.search.trials,
            provenance=provenance,
            notify=self.notify,
            check=check,
            models=models,
            data=self.planner.hub_data(),
            python=self.python,
            meanwhile=meanwhile,
        )

    def _prepare_search(self, *, known_trials: int) -> None:
        """Imports Ray Tune and Optuna, for which the first trial would wait otherwise."""
        import orchestrator.execution.tune_loop  # noqa: F401
        from orchestrator.search.searcher import Search

        self.search = Search(self.config, known_trials=known_trials)

    def _forecast_on(self, cluster: Cluster) -> None:
        """From here on the planner compares each trial with the memory of the cluster."""
        from orchestrator.planning.capacity import cluster_capacity
        from orchestrator.planning.forecaster import Forecaster

        device = cluster.device
        capacity = cluster_capacity(self.config.resources, device, cluster.nodes)
        if self._simulator is not None and self.predicts:
            kind = str(device["device_type"])
            self.planner.forecaster = Forecaster(self._simulator, capacity=capacity, device=kind)

    def _sweep(
        self,
        ledger: Ledger,
        cluster: Cluster,
        *,
        watchers: Sequence[SweepObserver],
        clock: SweepClock,
        resume_command: str,
    ) -> Sweep:
        from orchestrator.execution.running_sweep import Sweep
        from orchestrator.search.trial_queue import TrialQueue

        assert self.search is not None

        def rejected(record: TrialRecord) -> None:
            self.notify(f"Rejected {record.trial_id}: {record.reason}")

        queue = TrialQueue(
            planner=self.planner, search=self.search, ledger=ledger, on_rejected=rejected
        )
        return Sweep(
            config=self.config,
            trial_queue=queue,
            ledger=ledger,
            cluster=cluster,
            watchers=watchers,
            clock=clock,
            resume_command=resume_command,
            notify=self.notify,
        )
