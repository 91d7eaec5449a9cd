"""Times and lists as people read them."""

from pegnode.wording import age, listed, moment, time_text

NOON_MS = 1_763_553_600_000  # 2025-11-19 12:00:00 UTC
DAY_MS = 86_400_000


def test_time_is_shown_even_where_the_calendar_ends() -> None:
    assert time_text(0) == "1970-01-01 00:00:00 UTC"
    assert time_text(2**63 - 1) == f"{2**63 - 1} ms after 1970"


def test_moments_name_their_day_unless_it_is_today() -> None:
    assert moment(NOON_MS, NOON_MS + 600_000) == "12:00:00 UTC (0:10:00)"
    assert moment(NOON_MS, NOON_MS + DAY_MS) == "2025-11-19 12:00:00 UTC (1 day, 0:00:00)"


def test_age_of_what_is_still_to_come_is_none() -> None:
    assert age(-5) == "0:00:00", "clocks differ"


def test_names_are_listed() -> None:
    assert [listed(names) for names in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
