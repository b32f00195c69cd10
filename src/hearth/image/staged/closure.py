"""Run by the staged interpreter: import what is named and tell what that took, one "kind<TAB>name<TAB>path" a line.

It imports nothing but ``sys`` itself, so that the answer holds nothing of its own.
"""

import sys


def main(names: list[str]) -> None:
    """Import ``names`` and print the modules that came from files, and the shared libraries now mapped."""
    for name in names:
        __import__(name)
    lines = []
    for name, module in sorted(sys.modules.items()):
        origin = getattr(getattr(module, "__spec__", None), "origin", None)
        if name != "__main__" and origin not in {None, "built-in", "frozen"}:
            lines.append(f"module\t{name}\t{origin}")
    with open("/proc/self/maps") as maps:
        mapped = {fields[5].strip() for fields in (line.split(None, 5) for line in maps) if len(fields) > 5}
    lines += [f"library\t-\t{path}" for path in sorted(mapped) if ".so" in path and "lib-dynload" not in path]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
