"""PID 1 of a machine: brings it up from the initramfs, starts the agent below the sandbox's root, ends it cleanly."""

from __future__ import annotations

import gc
import os
import sys
import time

from hearth.agent import syscalls
from hearth.agent.bringup.modules import load_modules
from hearth.agent.bringup.mounts import make_disks_read_only, mount_own, mount_root, wait_for_device
from hearth.agent.bringup.network import bring_up
from hearth.agent.bringup.plan import BadPlan, Plan, read_plan
from hearth.agent.bringup.supervise import end_processes, supervise
from hearth.agent.handover import Handover
from hearth.agent.options import Options, parse_address
from hearth.agent.process import run
from hearth.agent.seal import describe
from hearth.agent.shield import SHIELD

CONTROL_ADDRESS = "tcp:0.0.0.0:1024"
FORWARD_ADDRESS = "tcp:0.0.0.0:1025"
_PATH_OF_CONSOLE = "/dev/console"


def main() -> None:
    """Be PID 1. Whoever is not PID 1 is refused: these steps would take down a running system."""
    if os.getpid() != 1:
        sys.stderr.write("hearth: init: only PID 1 of a machine may run this\n")
        sys.exit(2)
    gc.freeze()  # what was imported stays, here and in every agent forked from here
    gc.enable()  # /init has switched it off for the imports
    reboots_to_end = True
    root = None
    try:
        mount_own()
        SHIELD.raise_up()
        _take_console()
        _say("up")
        plan = _read_command_line()
        reboots_to_end = plan.reboots_to_end
        load_modules(_say)
        bring_up(plan.interface)
        root = _mount(plan)
        handover = Handover()
        supervise(lambda: _run_agent(root, handover), _say, handover)
        _say("switching off")
    except (OSError, BadPlan) as error:
        _say(f"cannot bring the machine up: {error}")
    finally:
        _switch_off(root, reboots_to_end=reboots_to_end)


def _read_command_line() -> Plan:
    with open("/proc/cmdline", encoding="utf-8", errors="replace") as file:
        return read_plan(file.read())


def _mount(plan: Plan) -> int | None:
    if plan.root is None:
        return None
    wait_for_device(plan.root)
    return mount_root(plan.root, plan.root_kind)


def _run_agent(root: int | None, handover: Handover) -> None:
    SHIELD.raise_up()
    options = Options(
        listen=parse_address(CONTROL_ADDRESS),
        forward=parse_address(FORWARD_ADDRESS),
        root=None if root is None else f"/proc/self/fd/{root}",
        from_outside=True,
    )
    run(options, in_machine=True, handover=handover)


def _switch_off(root: int | None, *, reboots_to_end: bool) -> None:
    try:
        end_processes()
        os.sync()
        if root is not None:
            make_disks_read_only(root)
    except Exception as error:  # noqa: BLE001 -- whatever is wrong, the machine has to end
        _say(f"switching off: {describe(error)}")
    syscalls.reboot(syscalls.RB_AUTOBOOT if reboots_to_end else syscalls.RB_POWER_OFF)


def _take_console() -> None:
    """Make the console our three standard descriptors, so that every later message lands there."""
    console = os.open(_PATH_OF_CONSOLE, os.O_RDWR | os.O_NOCTTY)
    for descriptor in (0, 1, 2):
        os.dup2(console, descriptor)
    if console > 2:
        os.close(console)


def _say(text: str) -> None:
    """Tell the console, with the seconds since boot."""
    os.write(2, f"hearth: init: {text} ({time.clock_gettime(time.CLOCK_BOOTTIME):.2f} s)\n".encode())


if __name__ == "__main__":
    main()
