"""The migrations on PostgreSQL: a database of its own is made, filled, upgraded and compared with the metadata.

The server runs in single-user mode, without a socket: nothing is left running, and no driver is needed.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Dialect
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from hearth.store.migrate import alembic_config
from hearth.store.schema import REVISIONS, metadata

NOBODY = 65534
BETWEEN = ";\n\n"
"""With -j a statement ends at a semicolon and an empty line (postgres(1))."""
DESCRIBE = {
    "columns": "SELECT table_name, column_name, data_type, character_maximum_length, is_nullable"
    " FROM information_schema.columns WHERE table_schema = '{schema}' ORDER BY 1, 2",
    "constraints": "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = '{schema}'::regnamespace ORDER BY 1, 2",
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = '{schema}' ORDER BY 1, 2",
}

pytestmark = pytest.mark.skipif(shutil.which("initdb") is None, reason="needs PostgreSQL: initdb and postgres on PATH")


class Cluster:
    """A PostgreSQL data directory and the one way to run statements in it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._data = root / "data"
        self._run(["initdb", "--no-sync", "--auth=reject", "--encoding=UTF8", "-D", str(self._data)])

    def execute(self, *statements: str) -> str:
        """Run statements, each of which must succeed; give what the server said."""
        script = BETWEEN.join(statement.strip().rstrip(";") for statement in statements) + BETWEEN
        argv = ["postgres", "--single", "-j", "-F", "-c", "exit_on_error=on", "-D", str(self._data), "postgres"]
        return self._run(argv, script)

    def rows(self, query: str, *, schema: str) -> list[str]:
        """Give the rows of a query, tab between the columns."""
        target = self._root / "rows"
        flat = " ".join(query.split())
        self.execute(f"SET search_path = {schema}", f"COPY ({flat}) TO '{target}'")
        return target.read_text().splitlines()

    def _run(self, argv: Sequence[str], script: str = "") -> str:
        # PostgreSQL refuses to run as root.
        user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if os.geteuid() == 0 else []
        ran = subprocess.run(
            [*user, *argv], input=script, capture_output=True, text=True, timeout=120, check=False, cwd=self._root
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # Not below this run's own temporary directory, which is closed to the user PostgreSQL runs as.
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="hearth-postgresql-") as name:
        root = Path(name)
        if os.geteuid() == 0:
            os.chown(root, NOBODY, NOBODY)
        yield Cluster(root)


def migration(revision: str) -> list[str]:
    """The statements of one migration, as they would run on PostgreSQL."""
    buffer = io.StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql", opts={"as_sql": True, "output_buffer": buffer, "target_metadata": metadata}
    )
    script = ScriptDirectory.from_config(alembic_config()).get_revision(revision)
    with Operations.context(context):
        script.module.upgrade()
    return [statement for statement in buffer.getvalue().split(";") if statement.strip()]


def tables() -> list[str]:
    """The statements that make the tables the code speaks of at once."""
    dialect: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    made = []
    for table in metadata.sorted_tables:
        made.append(str(CreateTable(table).compile(dialect=dialect)))
        made += [str(CreateIndex(index).compile(dialect=dialect)) for index in sorted(table.indexes, key=str)]
    return made


def test_an_upgrade_keeps_rows_and_equals_tables_made_at_once(cluster: Cluster) -> None:
    spec = '{"name": "web", "env": {"A": "1"}, "labels": {"tier": "web"}}'
    cluster.execute(
        "CREATE SCHEMA migrated",
        "SET search_path = migrated",
        *migration("v0001"),
        "INSERT INTO users VALUES ('user-ada', 'ada', false, now())",
        f"INSERT INTO sandboxes VALUES ('sb-1', 'user-ada', 'web', '{spec}', 'running', NULL, now(), now())",
    )
    for revision in REVISIONS[1:]:
        cluster.execute("SET search_path = migrated", *migration(revision))
    cluster.execute("CREATE SCHEMA made", "SET search_path = made", *tables())

    kept = cluster.rows("SELECT id, spec, state, origin, expires_at, exit_cause FROM sandboxes", schema="migrated")
    assert kept == [f"sb-1\t{spec}\trunning\t\\N\t\\N\t\\N"]
    for what, query in DESCRIBE.items():
        described = {
            schema: cluster.rows(query.format(schema=schema), schema=schema) for schema in ("migrated", "made")
        }
        assert len(described["made"]) > 10, what
        assert described["migrated"] == [row.replace("made.", "migrated.") for row in described["made"]], what


def test_a_name_is_free_again_while_its_snapshot_is_deleted_and_only_then(cluster: Cluster) -> None:
    insert = (
        "INSERT INTO snapshots SELECT '{id}', 'user-1', 'base', 'sb-1', 'web', NULL, now(), 'debian', 1, 256,"
        " 5000000000, '{state}'"
    )
    cluster.execute(
        "CREATE SCHEMA names",
        "SET search_path = names",
        *migration("v0001"),
        *migration("v0002"),
        "INSERT INTO users VALUES ('user-1', 'one', false, now())",
        *(
            insert.format(id=name, state=state)
            for name, state in (("a", "deleting"), ("b", "ready"), ("c", "deleting"))
        ),
    )
    with pytest.raises(AssertionError, match="uq_snapshots_owner_name"):
        cluster.execute("SET search_path = names", insert.format(id="d", state="creating"))
    assert cluster.rows("SELECT id, size_bytes FROM snapshots ORDER BY id", schema="names") == [
        f"{name}\t5000000000" for name in "abc"
    ]
