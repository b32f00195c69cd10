"""A reader's terminal: one real bash for all blocks of a page, one Python for its Python blocks; steps have limits."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.docs.expected import difference
from tests.docs.pages import Block
from tests.docs.shell_lines import Step, steps_of_script, steps_of_transcript
from tests.server.daemon import data_directory, publish_images

STEP_S = 120.0
END_S = 60.0
LOOK_S = 1.0
"""How often a daemon that is not ready yet is looked after."""
PYTHON_BLOCKS = Path(__file__).parent / "python_blocks.py"
LOOP = """
set -o pipefail
while IFS= read -r -d '' -u {steps} __output && IFS= read -r -d '' -u {steps} __step; do
    eval "$__step" >>"$__output" 2>&1 {steps}<&- {done}>&-
    printf '%s\\n' $? >&{done}
done
"""
"""Reads steps from a descriptor and evaluates each in the shell itself, so that variables and jobs last."""


class BlockFailed(AssertionError):
    """A block did not do what its document says."""


@dataclass(frozen=True, kw_only=True)
class Printed:
    """What a step came to; ``output`` is the file where what it left behind goes on writing."""

    status: int
    text: str
    output: Path


class Session:
    """One bash in a directory of its own; made by ``open_session``."""

    def __init__(self, process: subprocess.Popen[bytes], directory: Path, steps: int, done: int) -> None:
        self._process = process
        self._directory = directory
        self._steps = steps
        self._done = done
        self._count = 0
        self._python: tuple[int, int] | None = None
        self._serving: Block | None = None
        self._served = contextlib.ExitStack()

    def run_block(self, block: Block) -> None:
        """Run a block as its reader would.

        Raises:
            BlockFailed: a command ended otherwise than it should, or printed something else than is shown.
        """
        for command in block.before:
            self._expect(block, Step(command=command), 0)
        if block.language == "python":
            self._judge(block, Step(command=block.text, shows=block.shows), 0, self.run_python(block.where, block.text))
            return
        if block.serves:
            self._serve(block)
            return
        steps = steps_of_transcript(block.text) if block.language == "console" else steps_of_script(block.text)
        printed = ""
        for number, step in enumerate(steps):
            wanted = block.exits if number == len(steps) - 1 else 0
            printed += self._expect(block, step, wanted).text
        if block.shows is not None and (wrong := difference(block.shows, printed)):
            raise BlockFailed(f"{block.where}: its output is another\n{wrong}")

    def run(self, command: str) -> Printed:
        """Evaluate one command in the shell.

        Raises:
            BlockFailed: it took too long, or it ended the shell.
        """
        output = self._new_output()
        os.write(self._steps, f"{output}\0{command}\0".encode())
        return self._answer(self._done, output, command)

    def run_python(self, where: str, text: str) -> Printed:
        """Run Python text in the page's one interpreter, which is started in the shell, with its environment.

        Raises:
            BlockFailed: it took too long, or it ended the interpreter.
        """
        requests, answers = self._python = self._python or self._start_python()
        output = self._new_output()
        os.write(requests, f"{output}\0{where}\0{text}\0".encode())
        return self._answer(answers, output, text)

    def close(self) -> None:
        """End the shell with everything that was started in it."""
        os.close(self._steps)
        for descriptor in self._python or ():
            os.close(descriptor)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)
        _bury_group(self._process.pid)
        self._process.wait(END_S)
        os.close(self._done)
        self._served.close()

    def stop_served(self) -> None:
        """Stop the daemon that a block started, if one did.

        Raises:
            BlockFailed: it ended otherwise than it should.
        """
        with self._served:
            if self._serving is not None:
                block, self._serving = self._serving, None
                self._expect(block, Step(command="kill $__served && wait $__served"), 0)

    def _serve(self, block: Block) -> None:
        """Start the daemon of a block on a data directory of its own, and wait until it is ready.

        It serves until the page ends or another block starts one.
        """
        self.stop_served()
        (step,) = steps_of_script(block.text)
        data = self._served.enter_context(data_directory())
        publish_images(data)
        told = self._served.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        address = data.root / "notify.sock"
        told.bind(str(address))
        told.settimeout(LOOK_S)
        own = f"HEARTH_DATA={data.root} HEARTH_ENGINE=local HEARTH_UPLINK=none NOTIFY_SOCKET={address}"
        output = self._expect(block, Step(command=f"{{ export {own}; exec {step.command} }} & __served=$!"), 0).output
        self._serving, deadline = block, time.monotonic() + STEP_S
        while True:
            try:
                told.recv(64)
            except TimeoutError:
                if self.run("kill -0 $__served").status != 0 or time.monotonic() > deadline:
                    self._serving = None
                    raise BlockFailed(f"{block.where}: its daemon is not ready:\n{output.read_text()}") from None
            else:
                return

    def _expect(self, block: Block, step: Step, status: int) -> Printed:
        return self._judge(block, step, status, self.run(step.command))

    def _judge(self, block: Block, step: Step, status: int, printed: Printed) -> Printed:
        if printed.status != status:
            wanted = f"ended with {printed.status}, not with {status}"
            raise BlockFailed(f"{block.where}: {step.command.strip()}\n{wanted}; it printed:\n{printed.text}")
        if step.shows is not None and (wrong := difference(step.shows, printed.text)):
            raise BlockFailed(f"{block.where}: {step.command.strip()}\n{wrong}")
        return printed

    def _new_output(self) -> Path:
        self._count += 1
        return self._directory / f"output-{self._count}"

    def _answer(self, descriptor: int, output: Path, command: str) -> Printed:
        deadline = time.monotonic() + STEP_S
        answer = b""
        while not answer.endswith(b"\n"):
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            text = output.read_text(errors="replace") if output.exists() else ""
            if not ready:
                raise BlockFailed(f"after {STEP_S:g} s it has not ended: {command}\nit printed:\n{text}")
            if not (chunk := os.read(descriptor, 64)):
                raise BlockFailed(f"it ended the session: {command}\nit printed:\n{text}")
            answer += chunk
        return Printed(status=int(answer), text=output.read_text(errors="replace"), output=output)

    def _start_python(self) -> tuple[int, int]:
        paths = [self._directory / name for name in ("requests", "answers")]
        for path in paths:
            os.mkfifo(path)
        # Both ends are opened for both, so that no opening waits for the other side.
        opened = (os.open(paths[0], os.O_RDWR), os.open(paths[1], os.O_RDWR))
        self.run(f"python3 {PYTHON_BLOCKS} {paths[0]} {paths[1]} </dev/null &")
        return opened


@contextlib.contextmanager
def open_session(
    home: Path, outputs: Path, environment: Mapping[str, str], *, prefix: tuple[str, ...] = ()
) -> Iterator[Session]:
    """Open a reader's terminal.

    Args:
        home: where it starts, and its home directory.
        outputs: where its files are kept that its reader does not see.
        prefix: what starts the shell, such as a program that enters a namespace.
    """
    steps_read, steps_write = os.pipe()
    done_read, done_write = os.pipe()
    own = {**environment, "HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    process = subprocess.Popen(
        [*prefix, "bash", "--noprofile", "--norc", "-c", LOOP.format(steps=steps_read, done=done_write)],
        cwd=home,
        env=own,
        stdin=subprocess.DEVNULL,
        pass_fds=(steps_read, done_write),
        process_group=0,
    )
    os.close(steps_read)
    os.close(done_write)
    session = Session(process, outputs, steps_write, done_read)
    try:
        yield session
    finally:
        session.close()


def _bury_group(group: int) -> None:
    """Wait until a group whose orphans come to us is empty, and end by force what does not go."""
    deadline = time.monotonic() + END_S
    with contextlib.suppress(ChildProcessError, ProcessLookupError):
        while True:
            os.killpg(group, 0)
            if os.waitid(os.P_PGID, group, os.WEXITED | os.WNOHANG) is None:
                time.sleep(0.02)
            if time.monotonic() > deadline:
                os.killpg(group, signal.SIGKILL)
