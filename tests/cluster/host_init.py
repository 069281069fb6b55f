"""The first process of a test host: makes the host's mounts and name, runs its sshd, reaps orphans.

    python host_init.py NAME DISK SHARED READY COMMAND...

DISK is mounted at /root and persists over a reboot; /tmp, /run and /dev/shm are new. COMMAND is the
host's sshd; the file READY is written when it has been started. The process needs its own mount,
pid and uts namespaces. It uses only the standard library, because it runs before any setup.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SHARED_AT = "/mnt/shared"


def main() -> int:
    name, disk, shared, ready, *command = sys.argv[1:]
    held = os.open(Path(ready).parent, os.O_PATH)  # a mount below may hide the folder
    subprocess.run(["hostname", name], check=True)
    mount = ["mount"]
    subprocess.run([*mount, "--make-rprivate", "/"], check=True)
    subprocess.run([*mount, "-t", "tmpfs", "tmpfs", "/mnt"], check=True)
    Path(SHARED_AT).mkdir()
    subprocess.run([*mount, "--bind", shared, SHARED_AT], check=True)
    for kept in (sys.base_prefix, str(Path(__file__).resolve().parents[2])):
        if Path(kept).is_relative_to("/root"):  # the mount of DISK would hide Python or the project
            place = Path(disk) / Path(kept).relative_to("/root")
            place.mkdir(parents=True, exist_ok=True)
            subprocess.run([*mount, "--rbind", kept, str(place)], check=True)
    subprocess.run([*mount, "--rbind", disk, "/root"], check=True)
    for fresh in ("/tmp", "/run", "/dev/shm"):
        subprocess.run([*mount, "-t", "tmpfs", "-o", "mode=1777", "tmpfs", fresh], check=True)
    Path("/run/sshd").mkdir(mode=0o755)
    own = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    os.close(os.open(Path(ready).name, os.O_CREAT | os.O_WRONLY, dir_fd=held))
    while True:
        ended, status = os.wait()
        if ended == own.pid:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
