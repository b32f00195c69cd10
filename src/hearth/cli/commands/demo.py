"""`hearth demo`: the main job from end to end, with what each step took; leaves nothing behind."""

from __future__ import annotations

import argparse
import contextlib
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hearth.config import load_data_directory
from hearth.errors import Conflict, GuestFailed, NotFound, TimedOut, Unavailable
from hearth.sdk.client import Client, Sandbox

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0
POLL_S = 0.02

PRIMES = """
import platform, time
started = time.perf_counter()
primes = [n for n in range(2, 5000) if all(n % d for d in range(2, int(n ** 0.5) + 1))]
print(f"{len(primes)} primes below 5000, the last is {primes[-1]}")
print(f"Python {platform.python_version()}, {1000 * (time.perf_counter() - started):.0f} ms")
"""
COUNT = 'for word in one two three; do echo "$word"; sleep 0.2; done; echo "and this is stderr" >&2; exit 7'


@dataclass(frozen=True, kw_only=True)
class Program:
    """One thing to show, and the exit code that shows that it worked."""

    title: str
    command: Sequence[str]
    exit_code: int = 0


PROGRAMS = (
    Program(title="which kernel is this?", command=("uname", "-a")),
    Program(title="a Python program", command=("python3", "-c", PRIMES)),
    Program(title="a shell program, its output as it comes", command=("sh", "-c", COUNT), exit_code=7),
)


class Stopwatch:
    """Prints what each step took, and all of them at the end."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Time one step."""
        show(f"\n▸ {title}")
        started = time.perf_counter()
        yield
        show(f"  {1000 * (time.perf_counter() - started):.0f} ms")

    def total(self) -> None:
        show(f"\nAll of it took {time.perf_counter() - self._began:.1f} s, and nothing is left behind.")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image", default="debian", help="what the sandbox's disk is made of (default: debian)")


def run(arguments: argparse.Namespace) -> int:
    watch = Stopwatch()
    with contextlib.ExitStack() as stack:
        if not _is_served():
            with watch.step("start the daemon"):
                stack.enter_context(_daemon())
        client = stack.enter_context(Client())
        name = f"demo-{secrets.token_hex(4)}"  # ours to choose: an interrupted creation must be found again
        try:
            with watch.step("create a sandbox: a virtual machine with a kernel of its own"):
                sandbox = client.create(name=name, image=arguments.image)
                for timing in sandbox.view.timings:
                    show(f"  {timing.duration_ms:9.1f} ms  {timing.name}")
            for program in PROGRAMS:
                with watch.step(program.title):
                    carry_out(sandbox, program)
        finally:
            with watch.step("destroy it"):
                destroy(client, name)
    watch.total()
    return 0


def carry_out(sandbox: Sandbox, program: Program) -> None:
    """Run a program and show its output as it comes.

    Raises:
        GuestFailed: it ended otherwise than it should.
    """
    with sandbox.stream(list(program.command)) as running:
        for output in running:
            for line in output.data.decode("utf-8", "replace").splitlines():
                show(f"  {'│' if output.stream == 'stdout' else '┃'} {line}")
    show(f"  exit code {running.exit_code}")
    if running.exit_code != program.exit_code:
        raise GuestFailed(
            "a program of the demo failed",
            details=f"{program.command[0]} ended with {running.exit_code}, not with {program.exit_code}",
            resolution="see what it wrote above",
        )


def destroy(client: Client, name: str) -> None:
    """Destroy the sandbox if it came into being, and see for ourselves that it is gone.

    Raises:
        Conflict: it is still there.
    """
    with contextlib.suppress(NotFound):
        client.destroy(name)
    try:
        state = client.get(name).view.state
    except NotFound:
        return
    raise Conflict(
        "the sandbox is still there", details=f"{name} is {state}", resolution=f"try 'hearth destroy --yes {name}'"
    )


def show(text: str) -> None:
    """Print a line at once: what follows may come from another stream."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _is_served() -> bool:
    try:
        with Client() as client:
            client.health()
    except Unavailable:
        return False
    return True


@contextlib.contextmanager
def _daemon() -> Iterator[None]:
    """Run a daemon of our own on the data directory; it ends with us, its machines destroyed by then.

    Raises:
        Unavailable: it did not begin to serve; its own words stand above.
        TimedOut: it did not end.
    """
    data = load_data_directory()
    command = [sys.executable, "-m", "hearth.server", "serve", "--data", str(data.root), "--log-level", "warning"]
    # A group of its own: Ctrl-C at the terminal is for us, and we need the daemon to clean up.
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0) as process:
        try:
            _wait_until_served(process)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            _wait_until_ended(process)


def _wait_until_ended(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        process.kill()
        raise TimedOut(
            "the daemon did not stop",
            details=f"it was killed {STOP_TIMEOUT_S:g} s after it was told to",
            resolution="'hearth serve' clears up what it may have left",
        ) from error


def _wait_until_served(process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not _is_served():
        if process.poll() is not None or time.monotonic() > deadline:
            raise Unavailable(
                "the daemon did not start",
                details=f"status {process.poll()}",
                resolution="see its message above, and 'hearth doctor'",
            )
        time.sleep(POLL_S)
