"""All rounds, in the order in which `make chaos` plays them: those of one world beside each other."""

from __future__ import annotations

from typing import Final

from tests.chaos import edgerounds, hubrounds, troublerounds
from tests.chaos.rounds import Round

ROUNDS: Final[tuple[type[Round], ...]] = (
    hubrounds.HubKilled,
    hubrounds.HubKilledInTurns,
    hubrounds.HubKilledOften,
    hubrounds.HubStopped,
    hubrounds.HubKilledAtBirth,
    troublerounds.Remade,
    troublerounds.FleetKilled,
    troublerounds.BothKilled,
    troublerounds.NodesGone,
    troublerounds.APIStopped,
    troublerounds.APIRestarted,
    troublerounds.APIHangs,
    hubrounds.StockHubKilled,
    hubrounds.StockHubKilledOften,
    troublerounds.StockKilled,
    troublerounds.StockBothKilled,
    troublerounds.StockRemade,
    troublerounds.APISlow,
    troublerounds.APIErrors,
    troublerounds.WatchesClosed,
    troublerounds.HistoryLost,
    troublerounds.AnswersLost,
    troublerounds.AgentsKilled,
    troublerounds.AgentsAndHubKilled,
    troublerounds.AgentsHubKilled,
    *edgerounds.EDGE_ROUNDS,
)

BY_NAME: Final = {kind.name: kind for kind in ROUNDS}
