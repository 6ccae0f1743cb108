"""Hosts for test clusters: this machine's loopback, or two network namespaces with an address each.

The namespaces see nothing but each other, through a cable of their own; files, processes and the clock are this
machine's. They need root and `ip` (iproute2), and are gone at the end of the block.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

ADDRESSES = ("10.213.77.1", "10.213.77.2")


class NoHostsError(RuntimeError):
    """This machine does not allow namespaces; says why."""


@dataclass(frozen=True)
class Host:
    """Where processes run.

    Attributes:
        address: at which it is found.
        prefix: stands before a command that is to run there.
    """

    address: str
    prefix: tuple[str, ...] = ()

    def without(self, folder: Path) -> "Host":
        """The same host with an empty folder of its own in the place of that one, as where storage is not shared."""
        hide = 'mount -t tmpfs none "$0" && exec "$@"'  # the mount is the command's alone, and ends with it
        return replace(self, prefix=(*self.prefix, "unshare", "--mount", "sh", "-c", hide, str(folder)))


LOOPBACK = (Host("127.0.0.1"), Host("127.0.0.2"))
"""The second has an address of its own: else a driver could attach itself to the raylet that is lost. Ray takes the
first for this machine's own address; a dashboard stays at it."""


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts that reach each other and nothing else.

    Raises:
        NoHostsError: not allowed here.
    """
    names = [f"cp{os.getpid()}{letter}" for letter in "ab"]
    with ExitStack() as stack:
        for name in names:
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)  # and the cable with it
        _ip("link", "add", names[0], "netns", names[0], *f"type veth peer name {names[1]} netns {names[1]}".split())
        for name, address in zip(names, ADDRESSES, strict=True):
            _ip("-n", name, "addr", "add", f"{address}/30", "dev", name)
            for device in ("lo", name):
                _ip("-n", name, "link", "set", device, "up")
            _ip("-n", name, "route", "add", "default", "dev", name)  # Ray finds out its own address by a route
        hosts = [Host(each, ("ip", "netns", "exec", name)) for name, each in zip(names, ADDRESSES, strict=True)]
        yield hosts[0], hosts[1]


def _ip(*arguments: str) -> None:
    command = ["ip", *arguments]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=20)
    except FileNotFoundError as error:
        raise NoHostsError("two hosts need `ip` (iproute2)") from error
    except subprocess.CalledProcessError as error:
        raise NoHostsError(f"`{' '.join(command)}` is not allowed here: {error.stderr.strip()}") from error
