from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.data.dataset import BARS_MIN, load_csv, parse_csv
from agents.data.synthetic import synthetic_csv
from protocol.errors import UsageError
from protocol.messages import PRICE_SCALE
from tests.oracles.agent_examples import content, table


def refusal(data: bytes) -> str:
    with pytest.raises(UsageError) as caught:
        parse_csv("mine.csv", data)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("mine.csv: ")
    return text


def with_line(number: int, text: str) -> bytes:
    lines = table()
    lines[number - 1] = text
    return content(lines)


def test_a_good_table_becomes_integer_prices() -> None:
    data = parse_csv("mine.csv", content(table()))
    assert data.symbols == ("AAA", "BBB")
    assert data.bars == 210
    assert data.closes.dtype == np.int64
    assert data.closes[0].tolist() == [105_000, 202_500]
    assert np.exp(data.log_closes[0]) * PRICE_SCALE == pytest.approx([105_000, 202_500])
    assert set(data.describe()) == {"name", "synthetic", "sha256"}


@pytest.mark.parametrize(
    "cell", ["nan", "inf", "-inf", "0", "-1.5", "", "12,5", "abc", "1_000", "1e12", "0.00001", "1\n2"]
)
def test_a_bad_price_names_line_column_and_mend(cell: str) -> None:
    good = table()[49].split(",")
    text = refusal(with_line(50, f'{good[0]},10.5,"{cell}"'))
    assert "line 50, BBB" in text
    assert ";" in text, "a mend follows"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("2001-03-08,10.5", "1 prices for 2 symbols"),
        ("2001-03-08,10.5,20,30", "3 prices for 2 symbols"),
        ("09.03.2001,10.5,20", "not an ISO date"),
        ("2001-01-01,10.5,20", "does not follow"),
        ("2001-08-01,10.5,20", "a gap of"),
    ],
)
def test_a_bad_row_is_named_by_its_line(line: str, says: str) -> None:
    text = refusal(with_line(50, line))
    assert "line 50" in text
    assert says in text


def test_a_repeated_date_is_refused() -> None:
    lines = table()
    lines[50] = lines[49]
    assert "line 51" in refusal(content(lines))


def test_blank_lines_do_not_shift_the_numbers() -> None:
    lines = table()
    lines[99] = lines[99].replace("20.25", "nan")
    lines[50:50] = ["", ""]
    assert "line 102, BBB" in refusal(content(lines))


def test_ten_days_are_no_gap_and_eleven_are() -> None:
    lines = table(BARS_MIN)
    assert parse_csv("x", content([lines[0], "2000-12-22,10.5,20.25", *lines[1:]])).bars == BARS_MIN + 1
    assert "a gap of 11 days" in refusal(content([lines[0], "2000-12-21,10.5,20.25", *lines[1:]]))


@pytest.mark.parametrize("header", ["", "Day,AAA,BBB", "Date", "Date,AAA,AAA", "Date,AAA,"])
def test_a_bad_header_is_refused(header: str) -> None:
    text = refusal(content(table(header=header)))
    assert "line" in text
    assert "header" in text


def test_other_files_are_refused() -> None:
    assert "header" in refusal(b"")
    assert "UTF-8" in refusal(b"Date,A\n\xff\xfe\x00\x81")
    assert "209" not in refusal(content(table(BARS_MIN - 1)))
    assert "too few" in refusal(content(table(BARS_MIN - 1)))
    assert "line 2" in refusal(b"Date,A\n" + b"9" * 200_000)


def test_a_byte_order_mark_is_no_part_of_the_header() -> None:
    assert parse_csv("x", b"\xef\xbb\xbf" + content(table())).symbols == ("AAA", "BBB")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist; fetch"):
        load_csv(tmp_path / "none.csv", "none.csv")
    with pytest.raises(UsageError, match="cannot be read"):
        load_csv(tmp_path, "folder")


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused_in_one_line(data: bytes) -> None:
    try:
        parse_csv("mine.csv", data)
    except UsageError as error:
        assert "\n" not in str(error)


@given(st.integers(2, 211), st.integers(1, 2), st.text(max_size=12))
def test_any_cell_is_read_or_refused_in_one_line(line: int, column: int, cell: str) -> None:
    cells = table()[line - 1].split(",")
    cells[column] = cell
    try:
        data = parse_csv("mine.csv", with_line(line, ",".join(cells)))
    except UsageError as error:
        assert "\n" not in str(error)
    else:
        assert (data.closes > 0).all()
        assert np.isfinite(data.log_closes).all()


def test_the_generator_repeats_itself_by_seed_and_is_called_synthetic() -> None:
    first = synthetic_csv(7, 4, 400)
    assert first == synthetic_csv(7, 4, 400)
    assert first != synthetic_csv(8, 4, 400)
    data = parse_csv("synthetic-7", first, synthetic=True)
    assert data.describe()["synthetic"] is True
    assert data.bars == 400
    assert all(day.weekday() < 5 for day in data.dates)
    assert all(symbol.startswith("SYN") for symbol in data.symbols)


def test_the_generators_bytes_are_the_same_on_every_machine() -> None:
    lines = synthetic_csv(7, 2, 250).decode().splitlines()
    assert lines[0] == "Date,SYN00,SYN01"
    assert lines[1].startswith("1995-01-02,")
    assert parse_csv("s", synthetic_csv(7, 2, 250)).sha256 == GOLDEN_SHA256


GOLDEN_SHA256 = "f6dc02eafa95ac6626ae55d8ff31f096c4459d4f3111e7d22ea503500c13a4dd"
