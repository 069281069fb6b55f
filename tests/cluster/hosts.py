"""Test hosts on one machine: network, pid, mount and uts namespaces on a bridge, each with sshd.

A host has its own address, name, processes and disk, and shares one folder with the others; it can
be switched off and on again. Ray's cluster launcher reaches it by ssh, like a machine.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.host_init import SHARED_AT
from tests.conftest import REPOSITORY

HERE = Path(__file__).resolve().parent
NETWORK = "10.77.0"
BRIDGE = "sweepbr0"
PROGRAMS = ("ip", "unshare", "nsenter", "mount", "ssh", "sshd", "rsync", "ssh-keygen")
STAND_IN = "CLUSTER_TEST_STAND_IN"  # 1: use stand_in_ssh.py instead of sshd, ssh and rsync
# All hosts share the cores of one machine, so a node takes longer to start than Ray's 30 seconds.
PATIENCE = "RAY_raylet_start_wait_time_s=300 RAY_gcs_server_request_timeout_seconds=300"
_REPLACED = ("ssh", "sshd", "rsync", "ssh-keygen")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def uses_stand_in() -> bool:
    return os.environ.get(STAND_IN) == "1"


def reason_to_skip() -> str:
    """Why this machine can't run test hosts; empty if it can."""
    wanted = [name for name in PROGRAMS if not (uses_stand_in() and name in _REPLACED)]
    missing = [name for name in wanted if shutil.which(name, path=_PATH) is None]
    if missing:
        hint = f", or set {STAND_IN}=1" if set(missing) <= set(_REPLACED) else ""
        return f"not installed here: {', '.join(missing)} (openssh-server, rsync, iproute2){hint}"
    if os.geteuid() != 0:
        return "namespaces with a network of their own need root"
    if REPOSITORY.is_relative_to("/tmp"):
        return "the project is in /tmp, and test hosts have their own /tmp"
    probe = ["unshare", "--net", "--mount", "--pid", "--uts", "--fork", "true"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    return f"the kernel allows no namespaces: {done.stderr.strip()}" if done.returncode else ""


@dataclass
class Host:
    """One host; `folder` contains its disk and its sshd's files, `number` ends its address."""

    name: str
    number: int
    folder: Path
    shared: Path
    _init: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def address(self) -> str:
        return f"{NETWORK}.{self.number}"

    @property
    def disk(self) -> Path:
        """The folder that the host mounts at /root."""
        return self.folder / "disk"

    def start(self) -> None:
        """Switches the host on; its disk keeps its content."""
        self.disk.mkdir(parents=True, exist_ok=True)
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        self._join_network()
        init = [sys.executable, str(HERE / "host_init.py"), self.name, str(self.disk)]
        spaces = ["unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child"]
        with (self.folder / "log").open("ab") as log:
            self._init = subprocess.Popen(
                [
                    *["ip", "netns", "exec", self.name, *spaces, "--mount-proc", *init],
                    *[str(self.shared), str(ready), *self._ssh_server()],
                ],
                env={"PATH": _PATH, "HOME": "/root"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for(ready.exists, seconds=30, what=f"{self.name} to start")

    def stop(self) -> None:
        """Switches the host off: all its processes are killed, its disk stays."""
        if self._init is not None:
            self._init.kill()  # --kill-child also kills the namespace's first process
            self._init.wait(timeout=30)
            self._init = None
        wait_for(lambda: not self._pids(), seconds=30, what=f"{self.name} to stop")
        for gone in (["link", "del", f"sweepo{self.number}"], ["netns", "del", self.name]):
            subprocess.run(["ip", *gone], check=False, capture_output=True)

    def command(self, *words: str) -> list[str]:
        """The command line that runs a program on the host, for this machine."""
        spaces = ["nsenter", "--target", str(self.first_pid()), "--all"]
        own = {"HOME": "/root", "USER": "root", "PATH": self._path(), "TERM": "dumb"}
        settings = [f"{name}={value}" for name, value in own.items()]
        return [*spaces, "env", "--chdir=/root", "-i", *settings, *words]

    def run(self, *words: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Runs a program on the host to its end."""
        return subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=seconds, check=False
        )

    def processes(self) -> list[str]:
        """The command lines of all processes on the host."""
        return self.run("ps", "-eo", "args", "--no-headers").stdout.splitlines()

    def first_pid(self) -> int:
        """The id of the host's first process, on this machine."""
        return min(self._pids())

    def _pids(self) -> list[int]:
        """Ids, on this machine, of all processes in the host's network except `unshare`."""
        done = subprocess.run(
            ["ip", "netns", "pids", self.name], capture_output=True, text=True, check=False
        )
        own = self._init.pid if self._init is not None else -1
        return [int(pid) for pid in done.stdout.split() if int(pid) != own]

    def _join_network(self) -> None:
        inside, outside = f"sweepi{self.number}", f"sweepo{self.number}"
        for line in (
            f"ip netns add {self.name}",
            f"ip link add {outside} type veth peer name {inside}",
            f"ip link set {inside} netns {self.name}",
            f"ip link set {outside} master {BRIDGE} up",
            f"ip netns exec {self.name} ip address add {self.address}/24 dev {inside}",
            f"ip netns exec {self.name} ip link set {inside} up",
            f"ip netns exec {self.name} ip link set lo up",
            # Ray finds its address by the route to the internet, which need not be reachable
            f"ip netns exec {self.name} ip route add default via {NETWORK}.1",
        ):
            subprocess.run(shlex.split(line), check=True, capture_output=True)

    def _path(self) -> str:
        return f"/root/programs:{_PATH}" if uses_stand_in() else _PATH

    def _ssh_server(self) -> list[str]:
        if uses_stand_in():
            server = str(HERE / "stand_in_ssh.py")
            return ["env", f"PATH={_PATH}", sys.executable, server, "serve", self.address]
        settings = (
            f"ListenAddress={self.address}",
            f"HostKey={self.folder.parent / 'key'}",
            "AuthorizedKeysFile=/root/.ssh/authorized_keys",
            "PermitRootLogin=yes",
            "StrictModes=no",
            "UsePAM=no",
            "PidFile=none",
        )
        sshd = shutil.which("sshd", path=_PATH) or "sshd"
        return [sshd, "-D", "-e", "-f", "/dev/null", *[f"-o{each}" for each in settings]]


@dataclass
class Hosts:
    """A bridge with hosts; the first is the laptop, no node. `folder` must be on a real disk."""

    folder: Path
    names: Sequence[str]
    all: dict[str, Host] = field(default_factory=dict, init=False)

    @property
    def shared(self) -> Path:
        """The folder that every host mounts at SHARED_AT."""
        return self.folder / "shared"

    def __enter__(self) -> Hosts:
        self.shared.mkdir(parents=True)
        self._make_keys()
        subprocess.run(["ip", "link", "add", BRIDGE, "type", "bridge"], check=True)
        subprocess.run(["ip", "link", "set", BRIDGE, "up"], check=True)
        try:
            for number, name in enumerate(self.names, start=10):
                self.all[name] = Host(f"sweep-{name}", number, self.folder / name, self.shared)
                self._furnish(self.all[name])
                self.all[name].start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for host in self.all.values():
            host.stop()
        subprocess.run(["ip", "link", "del", BRIDGE], check=False, capture_output=True)

    def _make_keys(self) -> None:
        key = self.folder / "key"
        if uses_stand_in():
            key.write_text("no key is needed\n")
            key.with_suffix(".pub").write_text("")
            key.chmod(0o600)
            return
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
        subprocess.run(make, check=True)

    def _furnish(self, host: Host) -> None:
        """Sets the host up as its owner would: an ssh key, and the project's environment."""
        home = host.disk
        (home / ".ssh").mkdir(parents=True)
        (home / ".ssh" / "authorized_keys").write_text((self.folder / "key.pub").read_text())
        shutil.copy(self.folder / "key", home / ".ssh" / "key")
        (home / ".bashrc").write_text(f"export PATH={host._path()} {PATIENCE}\n")
        if uses_stand_in():
            (home / "programs").mkdir()
            for name in ("ssh", "rsync"):
                program = home / "programs" / name
                program.write_text(_STARTER.format(python=sys.executable, here=HERE))
                program.chmod(0o755)
        (home / "sweep-env").symlink_to(Path(sys.prefix))
        (home / f"sweep-env.{_environment_mark()}").touch()


_STARTER = """\
#!{python}
import sys
sys.path.insert(0, "{here}")
import stand_in_ssh
sys.exit(stand_in_ssh.main())
"""


def wait_for(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.2)


def _environment_mark() -> str:
    """The mark with which clusters/local.yaml skips the installation, as hosts have no internet."""
    done = subprocess.run(
        "cat pyproject.toml constraints.txt | sha256sum | cut -c1-12",
        shell=True,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


__all__ = ["SHARED_AT", "Host", "Hosts", "reason_to_skip", "uses_stand_in", "wait_for"]
