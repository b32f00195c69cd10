"""Who may drop the machines that are kept ready."""

from __future__ import annotations

import pytest

from hearth.errors import Forbidden
from hearth.model import User
from hearth.server.routes.machine_templates import require_administrator


def test_only_administrators_drop_machine_templates() -> None:
    require_administrator(User(id="u-1", name="root", admin=True))
    with pytest.raises(Forbidden, match="eve is none"):
        require_administrator(User(id="u-2", name="eve"))
