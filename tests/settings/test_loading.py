"""Where settings come from, which source wins, and what is refused in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from hearth.config import Settings, data_in_file
from hearth.errors import HostUnfit, InvalidInput
from hearth.quota import DEFAULT_QUOTAS
from hearth.rates import DEFAULT_RATES, PerMinute
from hearth.settings.loading import Loaded, Source, settings_of
from hearth.settings.options import read_words

SECRET = "canary-of-a-password"


def load(*words: str, environment: dict[str, str] | None = None, file: Path | None = None) -> Loaded:
    return read_words(words, environment or {}, file)


def value(loaded: Loaded, name: str) -> object:
    return loaded.said[name].value


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "hearth.toml"
    path.write_text("")
    path.chmod(0o600)
    return path


def test_without_a_word_everything_has_its_default() -> None:
    loaded = load()
    assert settings_of(loaded.arguments) == Settings()
    assert {said.source for said in loaded.said.values()} == {Source.DEFAULT}


def test_a_flag_wins_over_the_environment_and_that_over_the_file(file: Path) -> None:
    file.write_text('pool = 1\nidle_stop = "2h"\nnet_slots = 5\n')
    environment = {"HEARTH_POOL": "2", "HEARTH_IDLE_STOP": "15m"}
    loaded = load("--pool", "3", environment=environment, file=file)
    assert (value(loaded, "pool"), loaded.said["pool"].where) == (3, "--pool")
    assert (value(loaded, "idle_stop"), loaded.said["idle_stop"].source) == (900.0, Source.ENVIRONMENT)
    assert (value(loaded, "net_slots"), loaded.said["net_slots"].where) == (5, str(file))


def test_quotas_and_rates_of_all_sources_add_up_by_name(file: Path) -> None:
    file.write_text('quota = { sandboxes = 5, cpus = 8 }\n[rate]\ncreate = "30/10"\nread = "none"\n')
    environment = {"HEARTH_QUOTA": "cpus=4, memory_mb=1024", "HEARTH_RATE": "create=5/5"}
    settings = settings_of(load("--quota", "cpus=none", environment=environment, file=file).arguments)
    assert settings.quotas == DEFAULT_QUOTAS.but({"sandboxes": 5, "cpus": None, "memory_mib": 1024})
    assert settings.rates == DEFAULT_RATES.but({"create": PerMinute(count=5, burst=5), "read": None})


def test_a_flag_can_take_back_what_the_file_says(file: Path) -> None:
    file.write_text("stop_on_exit = true\nallow_remote = true\n")
    assert value(load(file=file), "stop_on_exit") is True
    assert value(load("--no-stop-on-exit", file=file), "stop_on_exit") is False
    assert value(load(environment={"HEARTH_ALLOW_REMOTE": "false"}, file=file), "allow_remote") is False


def test_the_environment_file_of_another_provisioner_works() -> None:
    environment = {
        "MINIO_ENDPOINT": "127.0.0.1:9000", "MINIO_ACCESS_KEY": "key", "MINIO_SECRET_KEY": SECRET,
        "MINIO_REGION": "eu-1", "MINIO_BUCKET": "images", "MINIO_USE_SSL": "false", "MINIO_RETRY_ATTEMPTS": "5",
        "MINIO_RETRY_BACKOFF_MS": "100,1000,10000", "LVM_VOLUME_GROUP": "vg0", "LVM_RETRY_ATTEMPTS": "4",
        "LVM_RETRY_BACKOFF_MS": "1,2", "DB_PATH": "/srv/jobs.db", "REDIS_URL": "redis://:pw@127.0.0.1:6379/0",
        "LIBVIRT_URI": "qemu:///system", "HOST": "127.0.0.1", "PORT": "8080", "TLS_CERT_FILE": "/tls/cert.pem",
        "TLS_KEY_FILE": "/tls/key.pem", "CLIENT_CA_CERT": "/tls/ca.pem", "LOG_LEVEL": "INFO", "LOG_FORMAT": "json",
    }  # fmt: skip
    loaded = load(environment=environment)
    settings = settings_of(loaded.arguments)
    found = settings.provisioning
    assert (found.s3_endpoint, found.s3_secret_key, found.s3_use_ssl) == ("127.0.0.1:9000", SECRET, False)
    assert (found.s3_retry_attempts, found.s3_retry_backoff_ms) == (5, (100, 1000, 10_000))
    assert (found.lvm_volume_group, found.lvm_retry_attempts, found.lvm_retry_backoff_ms) == ("vg0", 4, (1, 2))
    assert (found.libvirt_uri, settings.database_url) == ("qemu:///system", "sqlite:////srv/jobs.db")
    assert value(loaded, "listen") == ("127.0.0.1:8080",)
    assert (value(loaded, "tls_cert"), value(loaded, "client_ca")) == (Path("/tls/cert.pem"), Path("/tls/ca.pem"))
    assert (value(loaded, "log_level"), value(loaded, "log_format")) == ((("", "info"),), "json")
    assert SECRET not in repr(settings) + repr(loaded)


@pytest.mark.parametrize(
    ("environment", "listen"),
    [
        ({"PORT": "9000"}, ("127.0.0.1:9000",)),
        ({"HOST": "::1"}, ("[::1]:8080",)),
        ({"HOST": "a-shell-exports-its-host-by-this-name"}, ()),
        ({"PORT": "9000", "HEARTH_LISTEN": "127.0.0.1:1,[::1]:2"}, ("127.0.0.1:1", "[::1]:2")),
        ({"HEARTH_LISTEN": "", "PORT": ""}, ()),
    ],
)
def test_host_and_port_are_read_where_they_mean_something(environment: dict[str, str], listen: tuple[str]) -> None:
    assert value(load(environment=environment), "listen") == listen


@pytest.mark.parametrize(
    ("text", "field", "said"),
    [
        ("pol = 1", "pol", "'pool'"),
        ("pool = 65", "pool", "from 0 to 64"),
        ("pool = true", "pool", "True is not a number"),
        ('pool = "1"', "pool", "'1' is not a number"),
        ('idle_stop = "soon"', "idle_stop", "90s, 15m, 2h"),
        ("idle_stop = nan", "idle_stop", "above 0"),
        ("idle_stop = inf", "idle_stop", "above 0"),
        ('engine = "xen"', "engine", "qemu, local"),
        ('allow_remote = "yes"', "allow_remote", "neither true nor false"),
        ('tls_cert = "cert.pem"', "tls_cert", "absolute"),
        ("listen = [8080]", "listen", "8080 is no text"),
        ("quota = 3", "quota", "table"),
        ("quota = { ponies = 3 }", "quota", "ponies"),
        ("quota = { cpus = -1 }", "quota", "of cpus"),
        ('rate = { read = "often" }', "rate", "COUNT/BURST"),
        ('log_level = ["loud"]', "log_level", "warning"),
        ("data = 1979-05-27", "data", "absolute"),
        ("[server]\npool = 1", "server", "hearth config default"),
        ("pool = 1\npool = 2", "HEARTH_CONFIG", "no TOML"),
        ("pool = = 1", "HEARTH_CONFIG", "line 1"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_file_and_key(file: Path, text: str, field: str, said: str) -> None:
    file.write_text(text)
    with pytest.raises(InvalidInput) as caught:
        load(file=file)
    assert caught.value.field == field
    assert str(file) in caught.value.details
    assert said in str(caught.value)
    assert caught.value.resolution


def test_what_is_no_text_at_all_is_refused(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput, match="no TOML"):
        load(file=file)


def test_what_is_wrong_in_the_environment_names_the_variable_that_was_set() -> None:
    with pytest.raises(InvalidInput) as caught:
        load(environment={"LVM_RETRY_ATTEMPTS": "many"})
    assert caught.value.field == "LVM_RETRY_ATTEMPTS"
    assert "lvm_retry_attempts" in caught.value.resolution


def test_a_wrong_secret_is_not_repeated(file: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        load(environment={"HEARTH_REDIS_URL": f"{SECRET}\x07"})
    assert SECRET not in str(caught.value)
    file.write_text(f'redis_url = ["{SECRET}"]')
    with pytest.raises(InvalidInput) as caught:
        load(file=file)
    assert SECRET not in str(caught.value)


def test_secrets_have_no_flag() -> None:
    with pytest.raises(SystemExit):
        load("--s3-secret-key", SECRET)


@pytest.mark.parametrize(("mode", "is_fine"), [(0o600, True), (0o640, True), (0o644, False), (0o666, False)])
def test_a_file_with_secrets_is_nobody_elses_to_read(file: Path, mode: int, is_fine: bool) -> None:
    file.write_text(f'redis_url = "redis://:{SECRET}@127.0.0.1"')
    file.chmod(mode)
    if is_fine:
        assert value(load(file=file), "redis_url")
        return
    with pytest.raises(HostUnfit) as caught:
        load(file=file)
    assert str(file) in str(caught.value)
    assert "chmod" in caught.value.resolution
    assert SECRET not in str(caught.value)


def test_a_file_that_everybody_can_change_is_refused_even_without_secrets(file: Path) -> None:
    file.chmod(0o644)
    load(file=file)
    file.chmod(0o606)
    with pytest.raises(HostUnfit, match="change"):
        load(file=file)


def test_a_file_that_was_asked_for_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(HostUnfit, match=r"nope\.toml"):
        load(file=tmp_path / "nope.toml")
    with pytest.raises(HostUnfit, match="directory"):
        load(file=tmp_path)
    load(file=Path("/dev/null"))


def test_an_error_about_a_value_tells_who_said_it(file: Path) -> None:
    file.write_text('tls_cert = "/tls/cert.pem"')
    loaded = load(file=file)
    explained = loaded.explain(InvalidInput("no", details="it is wrong", field="tls-cert"))
    assert explained.details == f"it is wrong; it is set by {file}"
    assert loaded.explain(InvalidInput("no", details="it is wrong", field="listen")).details == "it is wrong"


def test_who_looks_for_the_daemon_finds_the_data_directory_of_the_file(file: Path) -> None:
    named = {"HEARTH_CONFIG": str(file)}
    for text, found in (
        ("", None),
        ("# data = '/srv/no'", None),
        ('pool = 1\n data = "/srv/hearth"', Path("/srv/hearth")),
        ("data = 3", None),
        ("data = ", None),
        ('data = "relative"', None),
    ):
        file.write_text(text)
        assert data_in_file(named, is_root=True) == found
    assert data_in_file({"HEARTH_CONFIG": "/nope"}, is_root=True) is None
