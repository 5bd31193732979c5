"""All rounds, in the order in which `make chaos` plays them: those of one world beside each other."""

from __future__ import annotations

from typing import Final

from tests.chaos import hubrounds
from tests.chaos.rounds import Round

ROUNDS: Final[tuple[type[Round], ...]] = (
    hubrounds.HubKilled,
    hubrounds.HubKilledOften,
    hubrounds.HubStopped,
    hubrounds.StockHubKilled,
    hubrounds.StockHubKilledOften,
)

BY_NAME: Final = {kind.name: kind for kind in ROUNDS}
