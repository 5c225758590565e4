"""The trader: one cycle after the other, from a bar of prices to decided intents.

What it must not lose stands in the store before it matters: a cycle is noted as begun before its frames leave, so that
a restarted trader goes on with the next one and never wishes for the same thing twice.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec

from agents.trader.decider import Decider, Proposal
from agents.trader.feed import Bar, ReplayFeed, validate
from agents.trader.patterns import Analogues, PatternSearch
from agents.trader.slices import SLICE_ID, SliceKeeper
from agents.trader.strategy import (
    RiskPicture,
    Wish,
    decide,
    exposure,
    target_notionals,
    value_at_risk,
    volatility,
)
from agents.verification import route_facts
from agents.voter import Voter, VoterRole
from consensus.effects import FrameRecord, FrameSettled
from consensus.route import critical_positions
from consensus.storage import KeyValue
from profiling.clock import now_ns
from profiling.span import mark, record, span
from profiling.stages import Operation
from protocol.batch import Channel
from protocol.codes import DenyCode, Path, Side, TimeInForce
from protocol.errors import RunFailure
from protocol.messages import PRICE_SCALE, Intents, MarketAdvance, OrderEvent, SliceGrant
from protocol.roster import Role

INTENTS_PER_CYCLE: Final = 64
PROGRESS_KEY: Final = "trader/progress"
READY_TIMEOUT_S: Final = 30.0
EVERYBODY_S: Final = 5.0
"""How long the first cycle waits for all voters; after that a quorum must do."""
LIMIT_THROUGH_BPS: Final = 50
"""How far through the close a limit goes, so that it trades at once if the venue is there."""
NOTED_MAX: Final = 4096
"""Refusals and denied frames that are kept for a restart; a longer run loses only the oldest from its report."""
CONFIRM_TIMEOUT_S: Final = 15.0
DRAIN_TIMEOUT_S: Final = 20.0
UNCONFIRMED_MAX: Final = 256
"""Certified intents without a word of the venue; above it the trader waits, whatever the confirmation mode."""


class Progress(msgspec.Struct, array_like=True):
    """What a restarted trader must know."""

    cycle: int = 0
    """The last cycle that was begun."""
    refused: list[tuple[int, int, int, int]] = []
    without_order: list[int] = []


class Trader(VoterRole):
    """Role of a trader process."""

    def attach(self, voter: Voter) -> None:
        super().attach(voter)
        file = voter.setup.config.file
        self._strategy = file.strategy
        self._pattern = file.pattern
        threads = file.pattern.threads if voter.setup.switches.dtw == "lanes" else 1
        self._search = PatternSearch(voter.data, file.pattern, voter.setup.switches.dtw, threads)
        self._feed = ReplayFeed(voter.data, voter.setup.start_index)
        self._decider = Decider(voter)
        self._slices = SliceKeeper(voter)
        self._changed = asyncio.Event()
        self._bar: Bar | None = None
        self._blocking = voter.setup.switches.confirm == "blocking"
        self._confirmed: set[int] = set()
        self.late = 0
        self._searched = self._compared = 0
        self._restore()

    async def start(self) -> None:
        self.voter.spawn(self._trade(), "trade")

    def _restore(self) -> None:
        stored = self.voter.stored.key_values.get(PROGRESS_KEY)
        self.progress = msgspec.msgpack.decode(stored, type=Progress) if stored else Progress()
        self.interrupted = int(self.progress.cycle > 0)
        self._decider.without_order.extend(self.progress.without_order)
        for trader, sequence, path, code in self.progress.refused:
            self.voter.tally.settle(trader, sequence, path, code)

    # --- the run -----------------------------------------------------------------------------------------------------

    async def _trade(self) -> None:
        await self._ready()
        await self._slices.open()
        self.voter.state = "trading"
        limit = self.voter.setup.options.cycles
        cycle = self.progress.cycle + 1
        first, began_ns = cycle, now_ns()
        while not limit or cycle <= limit:
            if not await self._cycle(cycle, await self._sent_ns(cycle - first, began_ns)):
                break
            cycle += 1
        await self._finish()

    async def _sent_ns(self, bars: int, began_ns: int) -> int:
        """When the market sent the next bar; waits until then. With a rate it does not wait for a trader that is late,
        whose cycles are timed from when they should have begun."""
        rate_per_s = self.voter.setup.options.rate_per_s
        if not rate_per_s:
            return now_ns()
        sent_ns = began_ns + round(bars * 1e9 / rate_per_s)
        early_s = (sent_ns - now_ns()) / 1e9
        if early_s > 0:
            await asyncio.sleep(early_s)
        else:
            self.late += bars > 0
        return sent_ns

    async def _ready(self) -> None:
        """Peers of a quorum, a leader if the lane is used, and everything that the executors have said so far."""
        voter = self.voter
        needs_leader = voter.setup.switches.consensus != "pbft"
        executors = voter.setup.config.with_role(Role.EXECUTOR)
        loop = asyncio.get_running_loop()
        began = loop.time()
        while (waited := loop.time() - began) < READY_TIMEOUT_S:
            connected = voter.voters_connected
            wanted = len(voter.setup.roster.voters) if waited < EVERYBODY_S else voter.replica.quorum.size
            leader = voter.replica.raft.leader is not None or not needs_leader
            known = all(voter.orders.caught_up(executor.index) for executor in executors)
            if connected >= wanted and leader and known:
                return
            await asyncio.sleep(0.02)
        raise RunFailure(
            f"{voter.setup.agent.id}: no quorum, leader and executor within {READY_TIMEOUT_S:.0f} s; "
            "see `swarm status` for who is missing"
        )

    async def _cycle(self, cycle: int, sent_ns: int) -> bool:
        """One trip; False when the data has ended."""
        bar = self._feed.bar(cycle)
        record(Operation.FEED_NEXT, sent_ns, now_ns(), cycle)
        if bar is None:
            return False
        noted = self.voter.spawn(self._note(cycle), "note")
        self._take_bar(bar, cycle)
        analogues = await asyncio.get_running_loop().run_in_executor(
            self.voter.worker, self._match, bar.market_index, cycle
        )
        picture = self._assess(bar, cycle)
        wishes = self._wish(analogues, picture, bar, cycle)
        if wishes:
            await noted
            await self._decide(wishes, analogues, bar, cycle)
            await self._confirm(cycle)
        await self._slices.refill_if_needed()
        return True

    async def _note(self, cycle: int) -> None:
        self.progress.cycle = cycle
        self.progress.refused = self.voter.tally.rows()[-NOTED_MAX:]
        self.progress.without_order = self._decider.without_order[-NOTED_MAX:]
        await self.voter.runner.persist([KeyValue(PROGRESS_KEY, msgspec.msgpack.encode(self.progress))])

    # --- stages ------------------------------------------------------------------------------------------------------

    def _take_bar(self, bar: Bar, cycle: int) -> None:
        with span(Operation.FEED_VALIDATE, cycle):
            validate(bar, self._bar)
        with span(Operation.MARK_POSITIONS, cycle):
            for symbol, close in enumerate(bar.closes.tolist()):
                self.voter.orders.portfolio.mark(symbol, close)
        self._bar = bar

    def _match(self, market_index: int, cycle: int) -> list[Analogues]:
        """In the worker thread: the kernels release the GIL, so the event loop goes on beating."""
        symbols = range(len(self.voter.data.symbols))
        with span(Operation.DTW_SEARCH, cycle, len(symbols)):
            found = self._search.neighbours(market_index, symbols)
        self._searched += sum(each.pruning.windows for each in found)
        self._compared += sum(each.pruning.compared for each in found)
        with span(Operation.ANALOGUE_FORECAST, cycle):
            analogues = self._search.forecasts(symbols, market_index, found)
        with span(Operation.STRESS_MATCH, cycle):
            self.voter.stress.matches(market_index)
        return analogues

    def _assess(self, bar: Bar, cycle: int) -> RiskPicture:
        data, section, positions = self.voter.data, self._strategy, self.voter.orders.portfolio.positions()
        with span(Operation.VOLATILITY, cycle):
            deviations = volatility(data, bar.market_index, section.volatility_window)
        with span(Operation.EXPOSURE, cycle):
            quantities = {symbol: position.quantity for symbol, position in positions.items()}
            held = exposure(data, bar.market_index, quantities)
        with span(Operation.VALUE_AT_RISK, cycle):
            loss = value_at_risk(data, bar.market_index, held, section.value_at_risk_window)
        return RiskPicture(deviations, loss, float(abs(held).sum()))

    def _wish(self, analogues: list[Analogues], picture: RiskPicture, bar: Bar, cycle: int) -> list[Wish]:
        with span(Operation.SIZING, cycle):
            targets = target_notionals(analogues, picture, self._strategy)
        with span(Operation.SIGNAL_DECIDE, cycle):
            return decide(
                analogues,
                targets,
                self._strategy,
                self._expected_position,
                lambda symbol: int(bar.closes[symbol]),
                LIMIT_THROUGH_BPS,
            )

    def _expected_position(self, symbol: int) -> int:
        orders = self.voter.orders
        buys, sells = (orders.working_quantity(symbol, side) for side in (Side.BUY, Side.SELL))
        return orders.position_quantity(symbol) + buys - sells

    async def _decide(self, wishes: list[Wish], analogues: list[Analogues], bar: Bar, cycle: int) -> None:
        """Split by criticality with the very function that the judges use, then decide both frames at once."""
        proposal = self._propose(wishes, analogues, bar, cycle)
        with span(Operation.CRITICALITY_ROUTE, cycle):
            routes = self._route(proposal.intents, bar.market_index)
        frames = []
        for path in (Path.LANE, Path.SPINE):
            chosen = [position for position, route in enumerate(routes) if route is path]
            if chosen:
                part = proposal if len(chosen) == len(routes) else proposal.take(chosen)
                for sequence in part.intents.array["sequence"].tolist():
                    self.voter.tally.propose(self.voter.own, sequence, path)
                frames.append(self._settle_frame(part, path, bar, cycle))
        await asyncio.gather(*frames)

    def _propose(self, wishes: list[Wish], analogues: list[Analogues], bar: Bar, cycle: int) -> Proposal:
        """The wishes as the rows that will travel, each with its claim and the window that was searched for."""
        symbols = [wish.symbol for wish in wishes]
        claims = [analogues[symbol].claim(self._pattern.window) for symbol in symbols]
        windows = self._search.windows(bar.market_index, symbols)
        return Proposal(intents_of(wishes, cycle * INTENTS_PER_CYCLE), claims, windows)

    def _route(self, intents: Intents, market_index: int) -> list[Path]:
        voter = self.voter
        if voter.setup.switches.consensus != "hybrid":
            only = Path.SPINE if voter.setup.switches.consensus == "pbft" else Path.LANE
            return [only] * len(intents)
        facts = route_facts(voter.policy, voter.budget, SLICE_ID, voter.data, voter.stress, market_index)
        critical = set(critical_positions(intents, facts))
        return [Path.SPINE if position in critical else Path.LANE for position in range(len(intents))]

    async def _settle_frame(self, proposal: Proposal, path: Path, bar: Bar, cycle: int) -> None:
        codes = await self._decider.decide(proposal, path, cycle, bar.market_index)
        for sequence, code in codes.items():
            if code != DenyCode.APPROVED:
                self.voter.tally.settle(self.voter.own, sequence, path, code)
                self.voter.log.info("denied", cycle=cycle, intent=sequence, code=code.name)

    # --- confirmation ------------------------------------------------------------------------------------------------

    async def _confirm(self, cycle: int) -> None:
        """Blocking: until every order of the cycle is confirmed. Asynchronous: only as far as the window is full."""
        orders = self.voter.orders
        try:
            async with asyncio.timeout(CONFIRM_TIMEOUT_S):
                while (self._blocking and orders.unconfirmed(cycle)) or orders.working_orders() > UNCONFIRMED_MAX:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            self.voter.log.warning("confirmation_late", cycle=cycle, orders=orders.unconfirmed(cycle))

    def event(self, event: OrderEvent) -> None:
        if event.trader == self.voter.own and event.intent not in self._confirmed:
            orders = self.voter.orders.intents.get((event.trader, event.intent))
            if orders is not None and orders.confirmed:
                self._confirmed.add(event.intent)
                mark(Operation.CONFIRMED, now_ns(), event.cycle)
        self._changed.set()

    async def _finish(self) -> None:
        """Close the market day and wait until every order has ended, or say which have not."""
        self.voter.state = "draining"
        orders = self.voter.orders
        if self._bar is not None:
            try:
                async with asyncio.timeout(DRAIN_TIMEOUT_S):
                    while orders.working_orders():
                        if not orders.unconfirmed():
                            self._close_day(self._bar.market_index + 1)
                        self._changed.clear()
                        try:
                            await asyncio.wait_for(self._changed.wait(), 0.25)
                        except TimeoutError:
                            continue
            except TimeoutError:
                self.voter.log.error("orders_not_ended", orders=orders.working_orders())
        await self._note(self.progress.cycle)
        self.voter.state = "finished"
        self.voter.log.info("finished", cycles=self.progress.cycle)

    def _close_day(self, market_index: int) -> None:
        for executor in self.voter.setup.config.with_role(Role.EXECUTOR):
            self.voter.endpoint.send(executor.index, MarketAdvance(market_index), channel=Channel.ORDERS)

    # --- hooks -------------------------------------------------------------------------------------------------------

    def granted(self, grant: SliceGrant) -> None:
        self._slices.granted()

    def settled(self, settled: FrameSettled) -> None:
        self._decider.settled(settled)

    def coordinated(self, record: FrameRecord) -> None:
        self._decider.coordinated(record)

    def status(self, detail: bool) -> dict[str, Any]:
        orders = self.voter.orders
        picture: dict[str, Any] = {
            "cycle": self.progress.cycle,
            "cycles": self.voter.setup.options.cycles,
            "interrupted_cycles": self.interrupted,
            "late_cycles": self.late,
            "windows_searched": self._searched,
            "windows_compared": self._compared,
            "escalated": self._decider.escalated,
            "intents_open": orders.working_orders(),
            "market_day": self._bar.day.isoformat() if self._bar is not None else None,
            "profit": orders.portfolio.profit / PRICE_SCALE,
        }
        if detail:
            picture["frames_without_order"] = self._decider.without_order
            by_cycle: dict[int, int] = {}
            for each in orders.intents.values():
                by_cycle[each.cycle] = by_cycle.get(each.cycle, 0) + 1
            picture["orders_by_cycle"] = {str(cycle): count for cycle, count in by_cycle.items()}
        return picture


def intents_of(wishes: list[Wish], first_sequence: int) -> Intents:
    """The wishes as rows, numbered from ``first_sequence`` on."""
    columns: dict[str, list[int]] = {
        name: [getattr(wish, name) for wish in wishes]
        for name in ("symbol", "side", "quantity", "limit_price", "reference_price")
    }
    columns["sequence"] = list(range(first_sequence, first_sequence + len(wishes)))
    columns["time_in_force"] = [TimeInForce.DAY] * len(wishes)
    return Intents.of_columns(columns, len(wishes))
