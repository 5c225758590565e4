"""Imported once by the nursery's server, before any agent is forked: everything that agents need and that takes time.

Nothing here may start a thread, open a socket or make an event loop.
"""

from __future__ import annotations

import numpy as np

import agents.cli.agent
import agents.executor.executor
import agents.risk.risk
import agents.trader.trader
import agents.venue
import agents.voter
from dtw.warmup import warmup

PRELOADED = (agents.cli.agent, agents.executor.executor, agents.risk.risk, agents.trader.trader, agents.venue)

warmup(dtypes=(np.float32,))
