"""Run by Alembic, never imported: migrates on the connection that ``hearth.store.migrate`` opened and commits."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from hearth.store.schema import metadata


def run(connection: Connection) -> None:
    # SQLite alters a table by building it anew: batch mode, with foreign keys off (see hearth.store.migrate).
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


run(context.config.attributes["connection"])
