"""Opens the database: a private file, this version's schema, then the stores over it."""

from __future__ import annotations

import structlog

from hearth.errors import HostUnfit
from hearth.host.clock import Clock, SystemClock
from hearth.quota import DEFAULT_QUOTAS, Quotas
from hearth.store.database import Database
from hearth.store.sql_answers import SqlAnswers
from hearth.store.sql_audit import SqlAudit
from hearth.store.sql_endings import SqlEndings
from hearth.store.sql_execs import SqlExecs
from hearth.store.sql_jobs import SqlJobs
from hearth.store.sql_publications import SqlPublications
from hearth.store.sql_quotas import SqlQuotas
from hearth.store.sql_sandboxes import SqlSandboxes
from hearth.store.sql_secrets import SqlSecrets
from hearth.store.sql_snapshots import SqlSnapshots
from hearth.store.sql_users import SqlUsers
from hearth.store.sql_volumes import SqlVolumes
from hearth.store.sqlite import make_private, sqlite_path
from hearth.store.version import MigrationFailed, create_where_empty, is_current, migrate_in_child

log = structlog.get_logger(__name__)

BUSY_TIMEOUT_S = 5.0
"""How long a statement waits for another process (a backup, a second daemon) before it is Unavailable."""


class SqlStore:
    """``Store`` over a database."""

    def __init__(self, database: Database, clock: Clock, quotas: Quotas) -> None:
        self._database = database
        self.quotas = SqlQuotas(database, quotas)
        self.users = SqlUsers(database, clock)
        self.sandboxes = SqlSandboxes(database, clock, self.quotas)
        self.jobs = SqlJobs(database, clock)
        self.snapshots = SqlSnapshots(database, self.quotas)
        self.endings = SqlEndings(database, clock)
        self.volumes = SqlVolumes(database, self.quotas)
        self.secrets = SqlSecrets(database)
        self.audit = SqlAudit(database)
        self.publications = SqlPublications(database)
        self.execs = SqlExecs(database)
        self.answers = SqlAnswers(database, clock)

    async def close(self) -> None:
        await self._database.close()


async def open_store(
    url: str,
    *,
    clock: Clock | None = None,
    busy_timeout_s: float = BUSY_TIMEOUT_S,
    quotas: Quotas = DEFAULT_QUOTAS,
) -> SqlStore:
    """Open the database at ``url`` (``sqlite.sqlite_url`` makes one), creating or migrating it first where needed.

    Args:
        quotas: what holds for users of whom nobody said otherwise.

    Raises:
        InvalidInput: the URL is not one this version can use.
        StoreTooNew: a later version of hearth wrote it.
        MigrationFailed: it could not be brought to this version's schema.
        StoreDamaged, NoSpace, Unavailable, HostUnfit: what the database reported.
    """
    path = sqlite_path(url)
    try:
        make_private(path)
    except OSError as error:
        raise HostUnfit(
            "the database cannot be created",
            details=f"{path}: {error.strerror}",
            resolution="check that the data directory exists, is yours and has space left",
        ) from error
    database = Database(path, busy_timeout_s=busy_timeout_s)
    try:
        if not await database.read(is_current) and not await database.write(create_where_empty):
            log.info("migrating the database", database=str(path))
            await migrate_in_child(url)
            if not await database.read(is_current):
                raise MigrationFailed("the migration ended without reaching this version's schema", details=str(path))
    except BaseException:
        await database.close()
        raise
    return SqlStore(database, clock or SystemClock(), quotas)
