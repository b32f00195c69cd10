"""The networks of sandboxes as their rows say they are; whatever cannot be made so, does not run."""

from __future__ import annotations

import structlog

from hearth.errors import HostUnfit, InvalidInput
from hearth.model import Sandbox
from hearth.network.machine import MachineNetwork
from hearth.network.plan import Link
from hearth.network.policy import CLOSED, Policy, parse_policy

log = structlog.get_logger(__name__)


def policy_of(sandbox: Sandbox) -> Policy:
    """Give a sandbox's policy; one that was stored without any is closed.

    Raises:
        InvalidInput: what is stored is none.
    """
    return parse_policy(sandbox.spec.net_policy or {})


async def connect(network: MachineNetwork, sandbox: Sandbox, *, made: bool) -> Link | None:
    """Connect a sandbox's machine before it runs; gives the link of a new one.

    Args:
        made: its network was made ahead, when it was nobody's.

    Raises:
        InvalidInput: its policy cannot be read.
        HostUnfit: the kernel does not take its policy, or cannot make networks.
        Unavailable: there are no addresses left.
    """
    policy, name = policy_of(sandbox), sandbox.spec.name
    try:
        if made:
            await network.connect(sandbox.id, owner=sandbox.owner, name=name, policy=policy)
            return None
        owner = sandbox.owner if network.connects else None
        return await network.setup(sandbox.id, owner=owner, name=name, policy=policy)
    except OSError as error:
        raise refused(error) from error


async def adopt(network: MachineNetwork, sandbox: Sandbox) -> None:
    """Take over the network of a machine that an earlier daemon brought up, under its sandbox's policy or none."""
    try:
        policy = policy_of(sandbox)
    except InvalidInput as error:
        log.error("a stored policy cannot be read: its sandbox is closed", sandbox=sandbox.id, error=str(error))
        policy = CLOSED
    await network.adopt(sandbox.id, name=sandbox.spec.name, policy=policy)


def refused(error: OSError) -> HostUnfit:
    """Say that the kernel did not take a policy."""
    return HostUnfit(
        "the sandbox's network policy cannot be put into force",
        details=str(error),
        resolution="see the kernel's requirements in docs/network.md; 'hearth doctor' tells what this host lacks",
    )
