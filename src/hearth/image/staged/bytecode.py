"""Run by the staged interpreter: compile sources to the byte code that this very version loads without checking.

Reads "source<TAB>target<TAB>name in tracebacks" lines from stdin.
"""

import py_compile
import sys
from pathlib import Path


def main() -> None:
    """Compile each line's source; an error in one ends the run."""
    for line in sys.stdin.read().splitlines():
        source, target, shown = line.split("\t")
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        py_compile.compile(
            source,
            cfile=target,
            dfile=shown,
            doraise=True,
            optimize=0,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )


if __name__ == "__main__":
    main()
