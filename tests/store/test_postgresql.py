"""What PostgreSQL alone can do to a daemon: go away, come back, refuse, run out, and let others in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

import pytest
from psycopg import sql
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from structlog.testing import capture_logs
from tests.postgresql import Server, connected, running_server

from hearth.errors import HostUnfit, InvalidInput, NotFound, Unavailable
from hearth.model import Job, JobState, User
from hearth.store.base import LeaseLost
from hearth.store.migrate import migrate
from hearth.store.postgresql import parse_postgresql, spoken_postgresql
from hearth.store.postgresql_database import PostgresqlDatabase
from hearth.store.sql import SqlStore, open_store

pytestmark = [pytest.mark.postgresql, pytest.mark.slow]

INSERT = text("INSERT INTO users (id, name, admin, created_at) VALUES (:id, :id, false, now())")
COUNT = text("SELECT count(*) FROM users")
MY_CONNECTION = text("SELECT pg_backend_pid()")
END_OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@pytest.fixture
def url(postgresql: Server, migrated_template: str) -> Iterator[str]:
    with postgresql.database(migrated_template) as made:
        yield made


@pytest.fixture
def mortal() -> Iterator[Server]:
    """A server of the test's own, to be ended and started."""
    with running_server() as server:
        if server.cluster is None:
            pytest.skip("the server is somebody else's: it is not for us to end")
        yield server


@pytest.fixture
async def database(url: str) -> AsyncIterator[PostgresqlDatabase]:
    opened = PostgresqlDatabase(parse_postgresql(url), connections=4, reconnect_s=30)
    yield opened
    await opened.close()


@pytest.fixture
async def store(url: str) -> AsyncIterator[SqlStore]:
    opened = await open_store(url)
    yield opened
    await opened.close()


async def count(database: PostgresqlDatabase) -> int:
    return await database.read(lambda connection: connection.scalar(COUNT) or 0)


async def insert(database: PostgresqlDatabase, user_id: str) -> None:
    await database.write(lambda connection: connection.execute(INSERT, {"id": user_id}))


def end_others(url: str) -> None:
    with connected(url) as connection:
        connection.execute(END_OTHERS.encode())


async def test_connections_that_the_server_ended_are_made_anew_and_nobody_notices(
    database: PostgresqlDatabase, url: str
) -> None:
    for number in range(3):
        await asyncio.gather(*(count(database) for _ in range(8)))
        await asyncio.to_thread(end_others, url)
        await insert(database, f"user-{number}")
        await asyncio.to_thread(end_others, url)
        assert await count(database) == number + 1


async def test_a_transaction_that_was_cut_off_half_way_is_done_again_and_once(
    database: PostgresqlDatabase, url: str
) -> None:
    seen: list[int] = []

    def work(connection: Connection) -> None:
        connection.execute(INSERT, {"id": "user-1"})
        seen.append(connection.scalar(MY_CONNECTION) or 0)
        if len(seen) == 1:
            end_others(url)
        connection.execute(INSERT, {"id": "user-2"})

    with capture_logs() as logs:
        await database.write(work)
    assert len(set(seen)) == 2
    assert await count(database) == 2
    assert [entry["event"] for entry in logs] == [
        "the database does not answer; trying again",
        "the database answers again",
    ]


async def test_a_change_that_was_cut_off_at_its_commit_is_not_done_again(
    database: PostgresqlDatabase, url: str
) -> None:
    runs: list[str] = []
    with connected(url) as connection:
        connection.execute(
            "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$"
        )
        connection.execute(
            "CREATE CONSTRAINT TRIGGER dies AFTER INSERT ON users DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION die()"
        )

    def work(connection: Connection) -> None:
        runs.append("run")
        connection.execute(INSERT, {"id": "user-1"})

    with pytest.raises(Unavailable, match="while a change was being stored"):
        await database.write(work)
    assert runs == ["run"]


async def test_two_that_lock_each_other_out_both_get_through(database: PostgresqlDatabase) -> None:
    for user in ("user-1", "user-2"):
        await insert(database, user)
    met = [asyncio.Event(), asyncio.Event()]
    loop = asyncio.get_running_loop()
    runs: list[int] = []

    def lock(connection: Connection, user: str) -> None:
        connection.execute(text("SELECT 1 FROM users WHERE id = :id FOR UPDATE"), {"id": user})

    def work(connection: Connection, mine: int) -> None:
        first = runs.count(mine) == 0
        runs.append(mine)
        lock(connection, f"user-{mine + 1}")
        if first:
            loop.call_soon_threadsafe(met[mine].set)
            asyncio.run_coroutine_threadsafe(met[1 - mine].wait(), loop).result(30)
        lock(connection, f"user-{2 - mine}")

    await asyncio.gather(
        database.write(lambda connection: work(connection, 0)), database.write(lambda connection: work(connection, 1))
    )
    assert len(runs) == 3


async def test_what_somebody_else_inserted_first_is_seen_by_a_second_try(
    database: PostgresqlDatabase, url: str
) -> None:
    def work(connection: Connection) -> str:
        if connection.scalar(COUNT):
            return "it is there"
        with connected(url) as other:
            other.execute("INSERT INTO users (id, name, admin, created_at) VALUES ('user-1', 'ada', false, now())")
        connection.execute(INSERT, {"id": "user-1"})
        return "made"

    assert await database.write(work) == "it is there"


async def test_of_many_who_claim_a_job_at_once_one_gets_it(store: SqlStore, url: str) -> None:
    other = await open_store(url)
    job = Job(id="job-1", kind="test", subject="x", created_at=datetime.now(UTC))
    await store.jobs.create(job)

    async def claim(number: int) -> str | None:
        jobs = (store, other)[number % 2].jobs
        try:
            held = await jobs.claim(
                job.id,
                f"daemon-{number}",
                expected={JobState.PENDING, JobState.RUNNING},
                new=JobState.RUNNING,
                lease_s=60,
            )
        except LeaseLost:
            return None
        return held.lease_owner

    held = [owner for owner in await asyncio.gather(*(claim(number) for number in range(16))) if owner]
    await other.close()
    assert len(held) == 1
    assert (await store.jobs.get(job.id)).attempt == 1


async def test_a_server_that_restarts_is_waited_for(mortal: Server) -> None:
    assert mortal.cluster is not None
    with mortal.database() as url:
        migrate(url)
        database = PostgresqlDatabase(parse_postgresql(url), reconnect_s=60)  # a start takes as long as it takes
        assert await count(database) == 0
        await asyncio.to_thread(mortal.cluster.stop)
        writing = asyncio.create_task(insert(database, "user-1"))
        await asyncio.to_thread(mortal.cluster.start)
        await writing
        assert await count(database) == 1
        await database.close()


async def test_a_server_that_stays_away_is_unavailable_until_it_comes_back(mortal: Server) -> None:
    assert mortal.cluster is not None
    with mortal.database() as url:
        store = await open_store(url)
        await asyncio.to_thread(mortal.cluster.stop)
        with pytest.raises(Unavailable, match="the database does not answer") as caught:
            await store.sandboxes.count(None)
        assert "hearth-postgresql" not in str(caught.value)
        await asyncio.to_thread(mortal.cluster.start)
        assert await store.sandboxes.count(None) == 0
        await store.close()


async def test_who_is_not_let_in_is_told_at_once_and_without_the_password(url: str) -> None:
    nobody = make_url(url).set(username="nobody-knows", password="s3cret").render_as_string(hide_password=False)
    with capture_logs() as logs, pytest.raises(HostUnfit, match="does not let hearth in") as caught:
        await open_store(nobody)
    assert "s3cret" not in f"{caught.value!r} {caught.value} {logs} {caught.value.__cause__!r}"


async def test_options_that_libpq_does_not_know_are_named(url: str) -> None:
    with pytest.raises(InvalidInput, match="colour"):
        await open_store(make_url(url).update_query_dict({"colour": "blue"}).render_as_string())


@pytest.mark.parametrize(
    "bad",
    ["postgresql://u:s3cret@host", "postgresql://u:s3cret@host:port/db", "postgres:s3cret", "mysql://u:s3cret@h/d"],
)
async def test_a_url_that_means_nothing_is_refused_without_repeating_it(bad: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await open_store(bad)
    assert "s3cret" not in str(caught.value)
    assert caught.value.field == "database_url"


def test_a_database_is_named_without_secrets() -> None:
    url = parse_postgresql("postgres://ada:s3cret@db.example.org:5433/hearth?password=t0p&sslmode=require")
    assert spoken_postgresql(url) == "postgresql hearth at db.example.org:5433"


async def test_text_that_is_too_long_is_the_callers_fault_and_stores_nothing(store: SqlStore) -> None:
    with pytest.raises(InvalidInput, match="cannot be stored"):
        await store.users.create(User(id="user-1", name="a" * 100))
    assert (await store.users.list()).items == []


async def test_a_cancelled_write_has_ended_when_its_caller_goes_on(database: PostgresqlDatabase, url: str) -> None:
    with connected(url) as other, connected(url) as watcher:
        other.execute("BEGIN")
        other.execute("LOCK TABLE users")
        writing = asyncio.create_task(insert(database, "user-1"))
        waiting = sql.SQL("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        while watcher.execute(waiting).fetchone() == (0,):
            await asyncio.sleep(0.01)
        writing.cancel()
        await asyncio.sleep(0)
        assert not writing.done()
        other.execute("COMMIT")
        with pytest.raises(asyncio.CancelledError):
            await writing
    assert await count(database) == 1


async def test_who_asks_for_a_name_with_nul_is_told_that_there_is_none(store: SqlStore) -> None:
    with pytest.raises(NotFound):
        await store.volumes.resolve(None, "\0[x")
