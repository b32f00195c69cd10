"""``python -m hearth.agent``: the agent as an ordinary process, for tests and for containers."""

from __future__ import annotations

import os
import sys

from hearth.agent.options import USAGE, BadOption, parse
from hearth.agent.process import run


def main() -> None:
    """Read the command line and serve; leaves without running interpreter shutdown, as threads may be serving."""
    try:
        run(parse(sys.argv[1:]))
    except BadOption as error:
        sys.stderr.write(f"hearth: {error}\n{USAGE}\n")
        sys.exit(2)
    except OSError as error:
        sys.stderr.write(f"hearth: {error}\n")
        sys.exit(1)
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
