"""Completion as a program of bash, zsh or fish: tables made of the parsers, and a few lines that walk along them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence

from hearth.cli.command_words import Place

WALK = r"""
__hearth_list() {
  case "$1" in
    +*) hearth complete-names "${1#+}" 2>/dev/null ;;
    @*) ;;
    *) printf '%s\n' $LIST ;;
  esac
}

# Sets candidates and files from the words before the one at the cursor, which is the last.
__hearth_walk() {
  local here="" option="" given=0 word list
  candidates="" files=""
  while [ $# -gt 1 ]; do
    word="$1"; shift
    if [ -n "$option" ]; then option=""; continue; fi
    case "$word" in
      --) ;;
      -*) if __hearth_value "$here $word" >/dev/null; then option="$word"; fi ;;
      *) if [ "$given" -eq 0 ] && __hearth_options "${here:+$here }$word" >/dev/null; then here="${here:+$here }$word"
         else given=$((given + 1)); fi ;;
    esac
  done
  if [ -n "$option" ]; then
    list="$(__hearth_value "$here $option")"
  else
    case "$1" in
      -*) candidates="$(__hearth_options "$here")"; return ;;
    esac
    if [ "$given" -eq 0 ]; then candidates="$(__hearth_words "$here")"; fi
    list="$(__hearth_argument "$here" "$given")"
  fi
  case "$list" in
    @files) files=yes ;;
    *) candidates="$candidates
$(__hearth_list "$list")" ;;
  esac
}
"""
BASH = r"""
_hearth() {
  local candidates files
  __hearth_walk "${COMP_WORDS[@]:1:COMP_CWORD}"
  if [ -n "$files" ]; then
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")
  else
    mapfile -t COMPREPLY < <(compgen -W "$candidates" -- "${COMP_WORDS[COMP_CWORD]}")
  fi
}
complete -F _hearth hearth
"""
ZSH = r"""
_hearth() {
  local candidates files
  __hearth_walk "${words[@]:1:$((CURRENT - 1))}"
  if [ -n "$files" ]; then _files; else compadd -- ${(f)candidates} ${=${(f)candidates}}; fi
}
compdef _hearth hearth
"""
FISH = r"""
function __hearth_list
    if string match -q '+*' -- $argv[1]
        hearth complete-names (string sub -s 2 -- $argv[1]) 2>/dev/null
    else if not string match -q '@*' -- $argv[1]
        string split ' ' -- $argv[1]
    end
end

function __hearth_walk
    set -l here ''
    set -l option ''
    set -l given 0
    set -l current (commandline -ct)
    for word in (commandline -opc)[2..-1]
        if test -n "$option"
            set option ''
        else if test "$word" = --
            continue
        else if string match -q -- '-*' $word
            if __hearth_value "$here $word" >/dev/null
                set option $word
            end
        else if test $given -eq 0; and __hearth_options (string trim -- "$here $word") >/dev/null
            set here (string trim -- "$here $word")
        else
            set given (math $given + 1)
        end
    end
    set -l list
    if test -n "$option"
        set list (__hearth_value "$here $option")
    else if string match -q -- '-*' $current
        __hearth_options $here | string split ' '
        return
    else
        test $given -eq 0; and __hearth_words $here
        set list (__hearth_argument "$here" $given)
    end
    if test "$list" = @files
        __fish_complete_path $current
    else
        __hearth_list "$list"
    end
end

complete -c hearth -f -a '(__hearth_walk)'
"""
Rows = Sequence[tuple[Sequence[str], str]]
"""Of a table: all the ways to write a key, and what there is for it."""


def script_for(shell: str, places: Iterable[Place], aliases: Mapping[str, str]) -> str:
    """Give the program for ``bash``, ``zsh`` or ``fish``."""
    found = list(places)
    table = _fish_table if shell == "fish" else _posix_table
    with_help = shell == "fish"
    options = [(_ways(each.path, aliases), " ".join(each.options)) for each in found]
    words = [
        (_ways(each.path, aliases), _shown(each.words, aliases if not each.path else {}, with_help=with_help))
        for each in found
        if each.words
    ]
    values = [
        ([f"{way} {option}" for way in _ways(each.path, aliases)], value)
        for each in found
        for option, value in each.values.items()
    ]
    arguments = [row for each in found for row in _argument_rows(each, aliases)]
    tables = [
        _lines_of(table, "__hearth_options", options),
        _lines_of(table, "__hearth_words", words),
        _lines_of(table, "__hearth_value", values),
        _lines_of(table, "__hearth_argument", arguments),
    ]
    walk = {"bash": WALK + BASH, "zsh": WALK + ZSH, "fish": FISH}[shell]
    split = "${=1}" if shell == "zsh" else "$1"
    head = "#compdef hearth\n" if shell == "zsh" else ""
    return (
        f"{head}# Completion of hearth for {shell}: 'hearth completion {shell}' made it.\n"
        + "\n".join(tables)
        + (walk.replace("$LIST", split))
    )


def _ways(path: str, aliases: Mapping[str, str]) -> list[str]:
    first, _, rest = path.partition(" ")
    names = [first, *(alias for alias, name in aliases.items() if name == first and not alias.startswith("-"))]
    return [f"{name} {rest}".strip() for name in names]


def _shown(words: Mapping[str, str], aliases: Mapping[str, str], *, with_help: bool) -> str:
    """Give the words one a line; fish shows what each is for."""
    more = {alias: words.get(name, "") for alias, name in aliases.items() if not alias.startswith("-")}
    everything = {**words, **more}
    return "\n".join(f"{word}\t{text}" if with_help and text else word for word, text in everything.items())


def _argument_rows(place: Place, aliases: Mapping[str, str]) -> Rows:
    """Give how each argument is completed; what follows the last goes by it where it repeats."""
    rows = []
    for number, value in enumerate(place.arguments):
        is_last = number == len(place.arguments) - 1
        ways = [f"{way} {number}" for way in _ways(place.path, aliases)]
        rows.append((ways, value))
        if is_last and place.repeats:
            rows.append(([f"{way} *" for way in _ways(place.path, aliases)], value))
    return rows


def _lines_of(table: Callable[[str, Rows], str], name: str, rows: Rows) -> str:
    return table(name, [(ways, value) for ways, value in rows if ways])


def _posix_table(name: str, rows: Rows) -> str:
    key = '"$1 $2"' if name == "__hearth_argument" else '"$1"'
    lines = [f"{name}() {{", f"  case {key} in"]
    for ways, value in rows:
        pattern = " | ".join(_pattern(way) for way in ways)
        lines.append(f"    {pattern}) printf '%s\\n' {shlex.quote(value)} ;;")
    return "\n".join([*lines, "    *) return 1 ;;", "  esac", "}"])


def _pattern(way: str) -> str:
    return f"{shlex.quote(way[:-1])}*" if way.endswith(" *") else f"'{way}'"


def _fish_table(name: str, rows: Rows) -> str:
    key = '"$argv[1] $argv[2]"' if name == "__hearth_argument" else '"$argv[1]"'
    lines = [f"function {name}", f"    switch {key}"]
    for ways, value in rows:
        quoted = " ".join(_fish_quoted(way) for way in ways)
        printed = " ".join(_fish_quoted(line) for line in value.split("\n"))
        lines += [f"        case {quoted}", f"            printf '%s\\n' {printed}"]
    return "\n".join([*lines, "        case '*'", "            return 1", "    end", "end"])


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
