"""Network namespaces as hosts: several machines with separate links, on one machine.

    with hosts(2) as (first, second):
        server = first.run([sys.executable, "-m", "http.server"])
        second.cut()

Each host is a network namespace with one interface, `INTERFACE`, and its own host name; processes, files and
memory are shared. A bridge in one more namespace connects the links, so the machine's network does not
change. A namespace has no name on disk and lives as long as it has processes; the first of these ends with
this process, so nothing is left behind, whatever happens. Requires Linux, root and `ip`.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

INTERFACE = "eth0"
_NETWORK = "10.77.0"


def why_not() -> str | None:
    """Returns in one line why namespaces cannot be created here, or ``None`` if they can."""
    if not sys.platform.startswith("linux"):
        return "network namespaces need Linux"
    if missing := [tool for tool in ("ip", "unshare", "nsenter") if shutil.which(tool) is None]:
        return f"network namespaces need {', '.join(missing)} (iproute2, util-linux)"
    try:
        with hosts(1):
            return None
    except RuntimeError as error:
        return f"network namespaces need root: {error}"


class _Namespace:
    """A network and a host name, kept alive by an idle process."""

    def __init__(self, name: str):
        # The idle process reads an empty pipe, which closes when this process ends in any way.
        command = ["unshare", "--net", "--uts", "sh", "-c", f"hostname {name} && echo ready && exec cat"]
        self._holder = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._processes: list[subprocess.Popen[Any]] = []
        assert self._holder.stdout is not None
        assert self._holder.stderr is not None
        if self._holder.stdout.readline() != "ready\n":
            _, reason = self._holder.communicate()
            raise RuntimeError(reason.strip())
        self.pid = self._holder.pid
        self._network = _network_of(self.pid)
        assert self._network != _network_of(os.getpid()), "close() ends all processes of this network"

    def run(self, command: Sequence[str], **options: Any) -> "subprocess.Popen[Any]":
        """Starts a command inside."""
        inside = ["nsenter", f"--target={self.pid}", "--net", "--uts", "--", *command]
        self._processes.append(subprocess.Popen(inside, **options))
        return self._processes[-1]

    def ip(self, arguments: str) -> str:
        """Runs the command ``ip`` inside and returns its output."""
        process = self.run(
            ["ip", *arguments.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        output, errors = process.communicate()
        if process.returncode:
            raise RuntimeError(f"ip {arguments}: {errors.strip()}")
        return output

    def close(self) -> None:
        """Ends the namespace and all processes inside, also orphaned ones."""
        while inside := [pid for pid in _with_network(self._network) if pid != self.pid]:
            for pid in inside:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._holder.communicate()
        for process in self._processes:
            process.wait()


def _with_network(network: str) -> Iterator[int]:
    """Yields the running processes of a network namespace, given by its link in /proc."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # the process has just ended
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z" and _network_of(int(entry.name)) == network:
                    yield int(entry.name)


def _network_of(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


class Host:
    """One of the machines of `hosts`, with its ``address``."""

    def __init__(self, index: int, namespace: _Namespace, switch: _Namespace):
        self.address = f"{_NETWORK}.{index + 1}"
        self._port, self._namespace, self._switch = f"port{index}", namespace, switch
        switch.ip(f"link add {self._port} type veth peer name {INTERFACE} netns {namespace.pid}")
        namespace.ip(f"addr add {self.address}/24 dev {INTERFACE}")
        # Packets keep their size on the wire, each with its headers, and the kernel sends none by itself.
        namespace.ip(f"link set {INTERFACE} gso_max_segs 1 addrgenmode none up")
        namespace.ip("link set lo up")
        switch.ip(f"link set {self._port} up")
        self.restore()

    def run(self, command: Sequence[str], **options: Any) -> "subprocess.Popen[Any]":
        """Starts a command on this host; ``options`` are those of `subprocess.Popen`.

        The process and all that it starts end with the host.
        """
        return self._namespace.run(command, **options)

    def cut(self) -> None:
        """Drops all packets from now on, both ways; the interface stays up and neither end notices."""
        self._switch.ip(f"link set {self._port} nomaster")

    def restore(self) -> None:
        """Connects the link to the others again."""
        self._switch.ip(f"link set {self._port} master bridge")

    def sent_bytes(self) -> int:
        """Returns the bytes sent by this host so far, with their Ethernet, IP and TCP headers."""
        return json.loads(self._namespace.ip(f"-s -j link show {INTERFACE}"))[0]["stats64"]["tx"]["bytes"]


@contextlib.contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """Creates ``count`` machines, ``host-0`` at 10.77.0.1 and so on, which reach only each other.

    Raises:
        RuntimeError: if they cannot be created; `why_not` checks this beforehand.
    """
    with contextlib.ExitStack() as stack:

        def namespace(name: str) -> _Namespace:
            created = _Namespace(name)
            stack.callback(created.close)
            return created

        switch = namespace("switch")
        switch.ip("link add bridge type bridge")
        switch.ip("link set bridge up")
        yield [Host(index, namespace(f"host-{index}"), switch) for index in range(count)]
