"""SIGHUP: reads the configuration again, changes what can be changed, says what waits for a restart."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from hearth.control.rates import Turnstile
from hearth.errors import HearthError
from hearth.server import logs
from hearth.server.certificates import Certificates, Pair
from hearth.server.options import ServeOptions, read_all
from hearth.settings.loading import Loaded
from hearth.settings.table import SETTINGS
from hearth.store.quota_store import QuotaStore

log = structlog.get_logger(__name__)


@dataclass(kw_only=True)
class Reloader:
    """What of a running daemon can be changed; ``holds`` are the settings that do, ``read`` reads them anew."""

    holds: Loaded
    read: Callable[[], Loaded]
    turnstile: Turnstile
    quotas: QuotaStore
    certificates: Certificates

    def reload(self) -> None:
        """Reload; an error is logged, and nothing has changed then. Blocking for some ms: a few small files."""
        try:
            fresh = self.read()
            try:
                options = read_all(fresh.arguments, os.environ)
                renewed = self.certificates.renew(_pairs(options))
            except HearthError as error:
                raise fresh.explain(error) from error
        except HearthError as error:
            log.error("not reloaded", reason=error.brief, details=error.details, resolution=error.resolution)
            return
        except (OSError, ssl.SSLError) as error:  # a certificate that was replaced between two looks at it
            log.error("not reloaded", reason="the certificate cannot be used", details=str(error))
            return
        self._change(fresh, options, renewed)

    def _change(self, fresh: Loaded, options: ServeOptions, renewed: list[str]) -> None:
        """Put what is live into force, and keep in mind that it is."""
        differ = [each for each in SETTINGS if fresh.said[each.name].value != self.holds.said[each.name].value]
        live = {each.name: fresh.said[each.name] for each in differ if each.is_live}
        waiting = [each.name for each in differ if not each.is_live]
        if "log_level" in live:
            logs.change_levels(logs.levels_of(fresh.arguments.log_level))
        if "rate" in live:
            self.turnstile.change(options.settings.rates)
        if "quota" in live:
            self.quotas.defaults = options.settings.quotas
        self.holds = Loaded(said={**self.holds.said, **live}, file=fresh.file)
        log.info("reloaded", changed=sorted(live), certificates=renewed)
        if waiting:
            log.warning("some settings wait for a restart", settings=waiting)


def _pairs(options: ServeOptions) -> dict[str, Pair]:
    named = {
        "tls": (options.encrypted.certificate, options.encrypted.key),
        "public": (options.public.certificate, options.public.key),
    }
    return {what: (certificate, key) for what, (certificate, key) in named.items() if certificate and key}
