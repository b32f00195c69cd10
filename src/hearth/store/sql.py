"""Opens the database: a private file, this version's schema, then the stores over it."""

from __future__ import annotations

import asyncio

import structlog

from hearth.errors import HostUnfit, Unavailable
from hearth.host.clock import Clock, SystemClock
from hearth.quota import DEFAULT_QUOTAS, Quotas
from hearth.store.database import Database
from hearth.store.host_store import ALONE
from hearth.store.postgresql import is_postgresql, parse_postgresql
from hearth.store.postgresql_database import PostgresqlDatabase
from hearth.store.sql_answers import SqlAnswers
from hearth.store.sql_audit import SqlAudit
from hearth.store.sql_endings import SqlEndings
from hearth.store.sql_execs import SqlExecs
from hearth.store.sql_hosts import SqlHosts, adopt
from hearth.store.sql_jobs import SqlJobs
from hearth.store.sql_publications import SqlPublications
from hearth.store.sql_quotas import SqlQuotas
from hearth.store.sql_sandboxes import SqlSandboxes
from hearth.store.sql_secrets import SqlSecrets
from hearth.store.sql_snapshots import SqlSnapshots
from hearth.store.sql_templates import SqlTemplates
from hearth.store.sql_users import SqlUsers
from hearth.store.sql_volumes import SqlVolumes
from hearth.store.sql_webhooks import SqlWebhooks
from hearth.store.sqlite import make_private, sqlite_path
from hearth.store.sqlite_database import SqliteDatabase
from hearth.store.version import MigrationFailed, create_where_empty, is_current, migrate_in_child

log = structlog.get_logger(__name__)

BUSY_TIMEOUT_S = 5.0
"""How long a statement waits for another process (a backup, a second daemon) before it is Unavailable."""
START_S = 30.0
"""So long a daemon that starts waits for a server that does not answer."""


class SqlStore:
    """``Store`` over a database."""

    def __init__(self, database: Database, clock: Clock, quotas: Quotas, host: str) -> None:
        self._database = database
        self.quotas = SqlQuotas(database, quotas)
        self.users = SqlUsers(database, clock)
        self.sandboxes = SqlSandboxes(database, clock, self.quotas, host)
        self.jobs = SqlJobs(database, clock, host)
        self.webhooks = SqlWebhooks(database, clock)
        self.snapshots = SqlSnapshots(database, self.quotas, host)
        self.endings = SqlEndings(database, clock)
        self.volumes = SqlVolumes(database, self.quotas, host)
        self.secrets = SqlSecrets(database)
        self.templates = SqlTemplates(database)
        self.audit = SqlAudit(database)
        self.publications = SqlPublications(database, host)
        self.execs = SqlExecs(database, host)
        self.answers = SqlAnswers(database, clock)
        self.hosts = SqlHosts(database, clock)

    async def close(self) -> None:
        await self._database.close()


async def open_store(
    url: str,
    *,
    clock: Clock | None = None,
    busy_timeout_s: float = BUSY_TIMEOUT_S,
    quotas: Quotas = DEFAULT_QUOTAS,
    host: str = ALONE,
) -> SqlStore:
    """Open the database at ``url`` (a SQLite file's or PostgreSQL's), creating or migrating it first where needed.

    Args:
        quotas: what holds for users of whom nobody said otherwise.
        host: whose sandboxes, snapshots, volumes and jobs are seen; those that are nobody's become its own.

    Raises:
        InvalidInput: the URL is not one this version can use.
        StoreTooNew: a later version of hearth wrote it.
        MigrationFailed: it could not be brought to this version's schema.
        StoreDamaged, NoSpace, Unavailable, HostUnfit: what the database reported.
    """
    database = _database_at(url, busy_timeout_s)
    try:
        if not await _is_current(database) and not await database.write(create_where_empty):
            log.info("migrating the database", database=database.name)
            await migrate_in_child(url)
            if not await database.read(is_current):
                raise MigrationFailed(
                    "the migration ended without reaching this version's schema", details=database.name
                )
        await adopt(database, host)
    except BaseException:
        await database.close()
        raise
    return SqlStore(database, clock or SystemClock(), quotas, host)


def _database_at(url: str, busy_timeout_s: float) -> Database:
    if is_postgresql(url):
        return PostgresqlDatabase(parse_postgresql(url))
    path = sqlite_path(url)
    try:
        make_private(path)
    except OSError as error:
        raise HostUnfit(
            "the database cannot be created",
            details=f"{path}: {error.strerror}",
            resolution="check that the data directory exists, is yours and has space left",
        ) from error
    return SqliteDatabase(path, busy_timeout_s=busy_timeout_s)


async def _is_current(database: Database) -> bool:
    """Ask for the first time; where both start at once the server may need longer than we do."""
    deadline_s = asyncio.get_running_loop().time() + START_S
    while True:
        try:
            return await database.read(is_current)
        except Unavailable as error:
            if not database.is_shared or asyncio.get_running_loop().time() >= deadline_s:
                raise
            log.warning("waiting for the database", database=database.name, error=str(error))
