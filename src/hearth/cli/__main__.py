"""``python -m hearth.cli`` is ``hearth``."""

from __future__ import annotations

import sys

from hearth.cli.main import main

sys.exit(main())
