"""The file in the sandbox that a command's output goes to when nobody reads it."""

from __future__ import annotations

import os

from hearth.agent.accounts import Account
from hearth.agent.spawn import StartFailed

_OUTPUT_MODE = 0o644


def open_output(path: str, account: Account | None) -> int:
    """Open it anew, as the account's own, and give its descriptor.

    Raises:
        StartFailed: it cannot be written.
    """
    try:
        output = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOCTTY, _OUTPUT_MODE)
        if account is not None and os.fstat(output).st_uid != account.uid:
            os.fchown(output, account.uid, account.gid)
    except OSError as error:
        raise StartFailed(f"output file {path}", error.strerror or "failed") from error
    return output
