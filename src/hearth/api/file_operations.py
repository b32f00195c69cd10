"""Files of a sandbox. All of these wake it and need a key of scope ``exec``: they reach what its programs reach."""

from __future__ import annotations

from typing import Any

from hearth.api.file_schemas import FileAt, FileList, ReadFile, RemoveFile, WriteFile
from hearth.api.life_operations import SANDBOX, WAKING
from hearth.api.limits import BYTES, FILE_IS_DIR_HEADER, FILE_MODE_HEADER, FILE_SIZE_HEADER, TAR
from hearth.api.operation import Operation
from hearth.api.schemas import Nothing
from hearth.errors import Code
from hearth.tenancy import KeyScope

FILES = f"{SANDBOX}/files"

READ_FILE = Operation(
    name="read_file",
    method="GET",
    path=FILES,
    summary="Give a file, some of its bytes or lines, a directory's list (ls), or as Accept says a tar.",
    takes=ReadFile,
    gives=FileList,
    statuses=(200, 206),
    errors=(*WAKING, Code.RANGE_NOT_SATISFIABLE),
    scope=KeyScope.EXEC,
    downloads=(BYTES, TAR),
    headers=(FILE_SIZE_HEADER, FILE_MODE_HEADER),
    reads_header="Range",
)
STAT_FILE = Operation(
    name="stat_file",
    method="HEAD",
    path=FILES,
    summary="Tell size, mode and kind of what a path leads to, in headers.",
    takes=FileAt,
    gives=Nothing,
    statuses=(200,),
    errors=WAKING,
    scope=KeyScope.EXEC,
    headers=(FILE_SIZE_HEADER, FILE_MODE_HEADER, FILE_IS_DIR_HEADER),
)
WRITE_FILE = Operation(
    name="write_file",
    method="PUT",
    path=FILES,
    summary="Write a file, as a whole or not at all, or with Content-Type: application/x-tar unpack an archive.",
    takes=WriteFile,
    gives=Nothing,
    statuses=(204,),
    errors=(*WAKING, Code.LENGTH_REQUIRED, Code.TOO_LARGE, Code.REQUEST_TIMEOUT),
    scope=KeyScope.EXEC,
    uploads=(BYTES, TAR),
)
REMOVE_FILE = Operation(
    name="remove_file",
    method="DELETE",
    path=FILES,
    summary="Remove a file, a symlink, an empty directory, or with recursive a whole tree.",
    takes=RemoveFile,
    gives=Nothing,
    statuses=(204,),
    errors=WAKING,
    scope=KeyScope.EXEC,
)

OPERATIONS: tuple[Operation[Any, Any], ...] = (READ_FILE, STAT_FILE, WRITE_FILE, REMOVE_FILE)
