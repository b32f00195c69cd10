"""How long one attempt to reach an agent may take; pure.

A SYN lost to a guest that is still booting would be sent again by the kernel only after 1 s (RFC 6298, section 2), so
until the guest has answered once attempts are short and begun anew. From then on it may be slow or stand still for a
while without being gone, so attempts stay long whatever comes.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_PROBE_S = 0.05
LONGEST_PROBE_S = 0.4
ESTABLISHED_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Patience:
    """The timeout of the next attempt, in seconds."""

    timeout_s: float = FIRST_PROBE_S

    def after_success(self) -> Patience:
        return Patience(timeout_s=ESTABLISHED_S)

    def after_failure(self) -> Patience:
        if self.timeout_s >= ESTABLISHED_S:
            return self
        return Patience(timeout_s=min(self.timeout_s * 2, LONGEST_PROBE_S))
