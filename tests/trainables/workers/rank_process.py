"""One rank of a trial, as a process of its own: python -m tests.trainables.rank_process FOLDER OUT.

RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT say which one. It writes its events to OUT, a JSON
object a line, and leaves after the step `--leave-at` (with a checkpoint) or `--die-at` (without).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
from datetime import timedelta
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--leave-at", type=int, default=-1)
    parser.add_argument("--die-at", type=int, default=-1)
    given = parser.parse_args()
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import torch
    import torch.distributed as dist

    from trainables.workers.distributed_trial import train_on_ranks

    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=240))
    running = train_on_ranks(given.folder, provenance={})
    with given.out.open("a") as out:
        for event in running:
            out.write(json.dumps(event.to_json()) + "\n")
            out.flush()
            if event.step == given.die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if event.step == given.leave_at:
                running.close()
                break
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
