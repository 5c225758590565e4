"""Check a report against its shape, naming the first key that is missing or ill-typed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from profiling.stages import Stage

Check = Callable[[object, str], None]
"""``check(value, where)`` raises ``ValueError`` that names ``where``."""

STAGE_LABELS: Final = tuple(stage.label for stage in Stage)


def validate_report(report: object) -> None:
    """Raise ``ValueError`` naming the missing or ill-typed key, for example ``stages[2].mean_ms``.

    Keys beyond the known ones are allowed, so that a report of a newer version can still be shown.
    """
    _REPORT(report, "report")


def _fail(where: str, expected: str, value: object) -> None:
    found = "null" if value is None else f"{type(value).__name__} {value!r:.40}"
    raise ValueError(f"{where.removeprefix('report.')}: expected {expected}, found {found}")


def _text(value: object, where: str) -> None:
    if not isinstance(value, str):
        _fail(where, "a text", value)


def _flag(value: object, where: str) -> None:
    if not isinstance(value, bool):
        _fail(where, "true or false", value)


def _count(value: object, where: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        _fail(where, "a count", value)


def _number(value: object, where: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        _fail(where, "a finite number", value)


def _integer(value: object, where: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        _fail(where, "a whole number", value)


def _agent(value: object, where: str) -> None:
    if not isinstance(value, str | dict):
        _fail(where, "an agent's id or description", value)


def _position(value: object, where: str) -> None:
    if isinstance(value, dict):
        return
    _number(value, where)


def _stage(value: object, where: str) -> None:
    if value not in STAGE_LABELS:
        _fail(where, f"one of {', '.join(STAGE_LABELS)}", value)


def _nullable(check: Check) -> Check:
    def nullable(value: object, where: str) -> None:
        if value is not None:
            check(value, where)

    return nullable


def _list_of(check: Check) -> Check:
    def list_of(value: object, where: str) -> None:
        if not isinstance(value, list):
            _fail(where, "a list", value)
            return
        for index, item in enumerate(value):
            check(item, f"{where}[{index}]")

    return list_of


def _map_of(check: Check) -> Check:
    def map_of(value: object, where: str) -> None:
        if not isinstance(value, dict):
            _fail(where, "an object", value)
            return
        for key, item in value.items():
            check(item, f"{where}.{key}")

    return map_of


def _object(fields: dict[str, Check]) -> Check:
    def check_object(value: object, where: str) -> None:
        if not isinstance(value, dict):
            _fail(where, "an object", value)
            return
        for key, check in fields.items():
            if key not in value:
                raise ValueError(f"{f'{where}.{key}'.removeprefix('report.')}: missing")
            check(value[key], f"{where}.{key}")

    return check_object


def _fields(check: Check, names: str) -> dict[str, Check]:
    return dict.fromkeys(names.split(), check)


_REPORT: Final[Check] = _object(
    {
        "run": _object(
            {
                **_fields(_text, "id mode"),
                "cycles": _count,
                "agents": _list_of(_agent),
                "data": _object({"name": _text, "synthetic": _flag, "sha256": _nullable(_text)}),
                "seed": _nullable(_integer),
            }
        ),
        "stages": _list_of(
            _object(
                {"stage": _stage, "count": _count, **_fields(_number, "total_ms mean_ms p50_ms p99_ms share_percent")}
            )
        ),
        "operations": _list_of(
            _object({**_fields(_text, "operation agent"), "stage": _stage, "count": _count, "total_ms": _number})
        ),
        "cycle": _object(_fields(_number, "mean_ms p50_ms p99_ms per_s")),
        "decisions": _object(
            {**_fields(_count, "proposed committed routine critical denied"), "by_code": _map_of(_count)}
        ),
        "orders": _object(_fields(_count, "sent filled rejected unknown duplicate lost")),
        "portfolio": _object({**_fields(_number, "realized_pnl unrealized_pnl"), "positions": _map_of(_position)}),
    }
)
