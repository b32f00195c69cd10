"""User-mode networking: the other end of each guest's wire is its VMM, which no right is needed for.

Machines reach nothing at all: the VMM answers what a guest begins with a refusal, and it lives enclosed, in a network
with nothing in it (``hearth.host.enclosure``). The host reaches the agent by the enclosure's gate, a socket in the
machine's directory, which is its owner's alone.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from hearth.errors import HostUnfit
from hearth.host.enclosure import open_gate, socket_inside
from hearth.network.machine import MachineNetwork
from hearth.network.patience import Patience
from hearth.network.plan import PLAN, AddressPlan, Link
from hearth.network.policy import CLOSED, DEFAULT, Policy

GATE = "agent.sock"
LOOPBACK = "127.0.0.1"


class UserNetwork(MachineNetwork):
    """The networks of all machines of a daemon without the rights to make any.

    Args:
        machines: holds a directory for each machine, by its id.
        wire: what the guests' wires end in, as the engine calls it.
    """

    def __init__(self, tag: str, machines: Path, *, plan: AddressPlan = PLAN, wire: str = "qemu") -> None:
        super().__init__(tag, plan=plan)
        self.wire = wire
        self._machines = machines

    @property
    def why_closed(self) -> str:
        """Say why machines reach nothing."""
        return (
            "with user-mode networking sandboxes reach neither each other nor the world: "
            "networks and rules for them take root's rights, which this daemon lacks or does not use"
        )

    @property
    def widest(self) -> Policy:
        """Tell the only policy there is."""
        return CLOSED

    async def setup(
        self, sandbox_id: str, *, owner: str | None = None, name: str | None = None, policy: Policy = DEFAULT
    ) -> Link:
        """Open the gate of a machine, whose directory is there; its listening end is the caller's to close.

        Raises:
            HostUnfit: its policy opens what cannot be opened here, as that of a sandbox from the full mode may.
        """
        del owner, name
        if policy.reaches_out:
            raise HostUnfit(
                "the sandbox's network policy cannot be put into force",
                details=self.why_closed,
                resolution="edit its policy to 'deny' without allowed hosts, networks and audit, or run hearth as root",
            )
        return self._link("", open_gate(self._machines / sandbox_id / GATE).detach(), None)

    async def teardown(self, sandbox_id: str) -> None:
        """Do nothing: all there is goes with the VMM and its directory."""

    async def list(self) -> set[str]:
        """Tell that nothing of any machine is there beside its directory."""
        return set()

    def dialer(self, sandbox_id: str, *, answers: bool = False) -> GateDialer:
        """Give a way to the sandbox's agent; see ``MachineNetwork.dialer``."""
        patience = Patience().after_success() if answers else Patience()
        return GateDialer(self._machines / sandbox_id / GATE, patience)


class GateDialer:
    """Opens TCP connections to a guest from inside its VMM's enclosure; a ``hearth.guest.dial.Dialer`` by its shape."""

    def __init__(self, gate: Path, patience: Patience) -> None:
        self._gate = gate
        self._patience = patience

    async def connect(self, port: int) -> socket.socket:
        """Give a connected, non-blocking stream socket that the caller closes. One attempt.

        The VMM takes every connection at once; whether the agent does shows in what it answers.

        Raises:
            OSError: the VMM has ended; TimeoutError when nothing answered.
        """
        stream = await socket_inside(self._gate)
        try:
            async with asyncio.timeout(self._patience.timeout_s):
                await asyncio.get_running_loop().sock_connect(stream, (LOOPBACK, port))
        except BaseException as error:
            stream.close()
            if isinstance(error, OSError):
                self._patience = self._patience.after_failure()
            raise
        self._patience = self._patience.after_success()
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return stream
