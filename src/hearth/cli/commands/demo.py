"""`hearth demo`: the main job from end to end, with what each step took; leaves nothing behind."""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from hearth.config import load_data_directory
from hearth.errors import Unavailable
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

PROGRAMS: tuple[tuple[str, Sequence[str]], ...] = (
    ("which kernel is this?", ("uname", "-a")),
    ("a Python program", ("python3", "-c", PRIMES)),
    ("a shell program, its output as it comes", ("sh", "-c", COUNT)),
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
        with watch.step("create a sandbox: a virtual machine with a kernel of its own"):
            sandbox = client.create(image=arguments.image)
            for timing in sandbox.view.timings:
                show(f"  {timing.duration_ms:9.1f} ms  {timing.name}")
        try:
            for title, command in PROGRAMS:
                with watch.step(title):
                    _stream(sandbox, command)
        finally:
            with watch.step("destroy it"):
                sandbox.destroy()
    watch.total()
    return 0


def show(text: str) -> None:
    """Print a line at once: what follows may come from another stream."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _stream(sandbox: Sandbox, command: Sequence[str]) -> None:
    with sandbox.start(list(command)) as running:
        for output in running:
            for line in output.data.decode("utf-8", "replace").splitlines():
                show(f"  {'│' if output.stream == 'stdout' else '┃'} {line}")
    show(f"  exit code {running.exit_code}")


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
    """
    data = load_data_directory()
    command = [sys.executable, "-m", "hearth.server", "serve", "--data", str(data.root), "--log-level", "warning"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            _wait_until_served(process)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_TIMEOUT_S)


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
