"""One rank of a trial: a process forked from one that has imported all that a rank needs.

A fork server imports this module (`rank_team`), which is what makes a rank start at once: no thread
of torch's may be running then, so one thread is all that it is given.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}  # before torch and DeepSpeed

import torch
import torch.distributed as dist

from trainables.models.base import warm_imports
from trainables.workers.distributed_trial import score_distributed, train_distributed

warm_imports()
with contextlib.suppress(ImportError):
    import deepspeed  # noqa: F401


@dataclass(frozen=True)
class Rank:
    """What one rank does: it writes its events to `out`, a JSON object a line.

    It leaves after the step `leave_at` (with a checkpoint) or dies after `die_at` (without).
    """

    folder: Path
    out: Path
    leave_at: int = -1
    die_at: int = -1
    scores: int = 0  # 1: it scores the finished trial, and writes the score

    def run(self) -> None:
        """Trains with the ranks that RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT tell of."""
        torch.set_num_threads(1)
        dist.init_process_group("gloo", timeout=timedelta(seconds=240))
        if self.scores:
            self.out.write_text(json.dumps(score_distributed(self.folder)))
            dist.destroy_process_group()
            return
        running = train_distributed(self.folder, provenance={})
        with self.out.open("a") as out:
            for event in running:
                out.write(json.dumps(event.to_json()) + "\n")
                out.flush()
                if event.step == self.die_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                if event.step == self.leave_at:
                    running.close()
                    break
        dist.destroy_process_group()
