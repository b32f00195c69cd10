"""``python -m hearth.server.backup``: writes what a daemon knows into a file, verifies such a file, restores one.

A program of its own: it runs migrations, whose library the daemon is to start without.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

import msgspec

from hearth.config import DataDirectory, load_data_directory
from hearth.control.backup import Place, create_backup, place_of
from hearth.control.backup_file import BackupReader, Manifest
from hearth.control.backup_keys import read_passphrase
from hearth.control.backup_restore import restore_backup
from hearth.errors import HearthError, InvalidInput
from hearth.server.complaint import complain
from hearth.server.logs import configure
from hearth.settings.loading import find_file, load, settings_of
from hearth.settings.options import url_without_password


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions of `backup`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="write a new backup; the daemon may run", allow_abbrev=False)
    _add_place(create)
    create.add_argument("file", metavar="FILE", type=Path, help="a file that is not there yet")
    create.add_argument("--with-volumes", action="store_true", help="put the bytes of volumes into it, too")
    create.add_argument(
        "--passphrase-file", metavar="FILE", type=Path, help="put the keys into it, sealed with this file's first line"
    )
    _add_json(create)
    verify = actions.add_parser("verify", help="read a backup whole and tell what is in it", allow_abbrev=False)
    verify.add_argument("file", metavar="FILE", type=Path, help="the backup")
    _add_json(verify)
    restore = actions.add_parser("restore", help="make a data directory and a database of it", allow_abbrev=False)
    _add_place(restore)
    restore.add_argument("file", metavar="FILE", type=Path, help="the backup")
    restore.add_argument("--force", action="store_true", help="replace what is there; files are kept beside")
    _add_json(restore)
    keys = restore.add_mutually_exclusive_group()
    keys.add_argument("--passphrase-file", metavar="FILE", type=Path, help="what the keys in it were sealed with")
    keys.add_argument("--without-keys", action="store_true", help="leave the keys in it alone")


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", metavar="DIR", type=Path, help="data directory (default: HEARTH_DATA)")
    parser.add_argument("--config", metavar="FILE", type=Path, help="the daemon's file of settings")
    parser.add_argument("--master-key", metavar="FILE", type=Path, help="where the master key is, or goes")
    parser.add_argument(
        "--database",
        metavar="URL",
        dest="database_url",
        type=url_without_password,
        help="the database, as 'hearth serve' takes it",
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON for programs: what is in it, or came out of it")


def run(arguments: argparse.Namespace) -> int:
    """Do one of them.

    Raises:
        HearthError: it could not be done; nothing was changed unless the error says so.
    """
    configure("console", "warning")
    if arguments.action == "verify":
        return verify(arguments.file, as_json=arguments.json)
    place = read_place(arguments)
    passphrase = None if arguments.passphrase_file is None else read_passphrase(arguments.passphrase_file)
    if arguments.action == "create":
        return create(place, passphrase, arguments)
    return restore(place, arguments.file, passphrase, arguments)


def read_place(arguments: argparse.Namespace) -> Place:
    """Find data directory, database and master key as the daemon would."""
    file, must_exist = find_file(arguments.config, os.environ, is_root=os.geteuid() == 0)
    loaded = load(arguments, os.environ, file, must_exist=must_exist).arguments
    data = DataDirectory(root=loaded.data.absolute()) if loaded.data else load_data_directory()
    return place_of(data, settings_of(loaded))


def create(place: Place, passphrase: bytes | None, arguments: argparse.Namespace) -> int:
    """Write a backup and say what is not in it."""
    target, with_volumes = arguments.file.absolute(), arguments.with_volumes
    manifest = asyncio.run(create_backup(place, target, passphrase=passphrase, with_volumes=with_volumes))
    if arguments.json:
        _show_json(manifest)
        return 0
    sys.stdout.write(f"{target}: {described(manifest)}\n")
    if not manifest.keys:
        sys.stderr.write(
            "the keys are not in it (--passphrase-file puts them there, sealed): keep a copy of\n"
            f"  {place.master_key}\n"
            "elsewhere; without it users' secrets cannot be opened again\n"
        )
    for volume in manifest.volumes:
        if volume.left_out is not None and with_volumes:
            sys.stderr.write(f"volume {volume.id} is not in it: {volume.left_out}\n")
    return 0


def verify(file: Path, *, as_json: bool) -> int:
    """Read a backup whole."""
    with BackupReader(file) as backup:
        backup.verify()
        if as_json:
            _show_json(backup.manifest)
        else:
            sys.stdout.write(f"{file}: whole; {described(backup.manifest)}\n")
    return 0


def restore(place: Place, file: Path, passphrase: bytes | None, arguments: argparse.Namespace) -> int:
    """Restore a backup and say what is left to do."""
    with BackupReader(file) as backup:
        has_keys = backup.manifest.keys
    if has_keys and passphrase is None and not arguments.without_keys:
        raise InvalidInput(
            "the backup holds keys",
            details="they are sealed with a passphrase",
            resolution="give it with --passphrase-file, or leave them alone with --without-keys",
            field="passphrase-file",
        )
    restored = asyncio.run(restore_backup(file, place, passphrase=passphrase, force=arguments.force))
    if arguments.json:
        _show_json(restored)
        return 0
    rows = sum(restored.tables.values())
    sys.stdout.write(
        f"{place.data.root}: {rows} rows, {restored.volumes} volumes, {restored.links} links to provisioned volumes,"
        f" {len(restored.keys)} keys restored\n"
    )
    if restored.replaced is not None:
        sys.stdout.write(f"what was there is in {restored.replaced}\n")
    if not restored.keys and restored.tables.get("secrets") and not place.master_key.exists():
        sys.stderr.write(f"put the master key back as {place.master_key}: secrets cannot be opened without it\n")
    return 0


def _show_json(value: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(value, enc_hook=str) + b"\n")


def described(manifest: Manifest) -> str:
    """Say in a line what a backup holds."""
    rows = sum(manifest.tables.values())
    volumes = sum(volume.left_out is None for volume in manifest.volumes)
    keys = "keys" if manifest.keys else "no keys"
    return (
        f"{rows} rows of {manifest.database} at {manifest.revision},"
        f" {volumes} of {len(manifest.volumes)} volumes, {len(manifest.links)} links to provisioned volumes, {keys};"
        f" made {manifest.created_at:%Y-%m-%d %H:%M:%S} UTC on {manifest.host_name} by hearth {manifest.hearth}"
    )


def build_parser() -> argparse.ArgumentParser:
    """Give what reads the command line."""
    parser = argparse.ArgumentParser(prog="hearth backup", allow_abbrev=False)
    add_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run it: 0 done, 1 an error that is told on stderr, 2 wrong arguments."""
    arguments = build_parser().parse_args(argv)
    try:
        return run(arguments)
    except HearthError as error:
        return complain(error, as_json=getattr(arguments, "json", False))
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
