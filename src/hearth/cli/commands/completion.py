"""`hearth completion`: prints what makes a shell complete commands, options and names."""

from __future__ import annotations

import argparse
import sys

from hearth.cli.command_table import ALIASES, COMMANDS, PASSED_ON
from hearth.cli.command_words import places
from hearth.cli.completion_scripts import script_for

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="whose words it is to be in")
    parser.epilog = (
        "bash: source <(hearth completion bash); "
        "zsh: source <(hearth completion zsh) behind compinit; fish: hearth completion fish | source"
    )


def run(arguments: argparse.Namespace) -> int:
    sys.stdout.write(script_for(arguments.shell, places(COMMANDS, PASSED_ON), ALIASES))
    return 0
