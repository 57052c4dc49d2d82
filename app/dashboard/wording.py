"""How numbers, sizes, durations and moments read on a page. Pure functions; knows no page."""

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

NONE = "–"
THIN = "\u202f"
# Names whose words people do not write that way.
_SAID: Mapping[str, str] = {
    "causal_lm": "causal language model",
    "text_image_pairs": "text-image pairs",
    "quantization_aware_training": "quantisation-aware training",
}
_PAGES = re.compile(r"GET /v1/(jobs|datasets|models|instructions|experiments|webhooks|keys)\b(?!/)")
_IN_BYTES = ("max_size_bytes", "smaller_file")


def number(value: float | None, digits: int = 4) -> str:
    """A number with up to so many significant digits, thousands apart: 12 345, 0.9825, 3.1e-7."""
    if value is None or not math.isfinite(value):
        return NONE
    if float(value).is_integer() and abs(value) < 1e15:
        return _apart(str(int(value)))
    if not 1e-4 <= abs(value) < 1e6:
        mantissa, _, exponent = f"{value:.{max(0, digits - 2)}e}".partition("e")
        return f"{_bare(mantissa)}e{int(exponent)}"
    return _apart(_bare(f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"))


def _bare(decimals: str) -> str:
    return decimals.rstrip("0").rstrip(".") if "." in decimals else decimals


def _apart(decimals: str) -> str:
    whole, point, rest = decimals.partition(".")
    return f"{int(whole):,}".replace(",", THIN) + point + rest if len(whole.lstrip("-")) > 3 else decimals


def size(value: float | None) -> str:
    """Bytes in the unit that leaves one to three digits before the point: 452.9 kB, 22.7 MB."""
    if value is None:
        return NONE
    amount, unit = float(value), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if abs(amount) < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f}{THIN}{unit}" if unit == "B" or amount >= 100 else f"{amount:.1f}{THIN}{unit}"


def duration(seconds: float | None) -> str:
    """Seconds as a person says them: 840 ms, 12 s, 4 min 10 s, 2 h 5 min, 3 d 4 h."""
    if seconds is None:
        return NONE
    if seconds < 1:
        return f"{seconds * 1000:.0f}{THIN}ms"
    if seconds < 10:
        return f"{seconds:.1f}{THIN}s"
    whole = round(seconds)
    for unit, below, part, small in (("min", 3600, 60, "s"), ("h", 86_400, 3600, "min"), ("d", math.inf, 86_400, "h")):
        if whole < 60:
            return f"{whole}{THIN}s"
        if whole < below:
            rest = whole % part // {"s": 1, "min": 60, "h": 3600}[small]
            return f"{whole // part}{THIN}{unit}" + (f" {rest}{THIN}{small}" if rest else "")
    return NONE


def percent(share: float | None, digits: int = 1) -> str:
    """A share as a percentage: 98.3 %."""
    return NONE if share is None else f"{share * 100:.{digits}f}{THIN}%"


def signed(value: float | None, digits: int = 3) -> str:
    """A difference with its sign, also where it is nought."""
    if value is None:
        return NONE
    return "±0" if value == 0 else ("+" if value > 0 else "−") + number(abs(value), digits)


def ago(moment: datetime | str | None, now: datetime | None = None) -> str:
    """How long ago a moment was, in one unit: just now, 5 min ago, 3 d ago; the date where that says more."""
    when = _moment(moment)
    if when is None:
        return NONE
    seconds = ((now or datetime.now(UTC)) - when).total_seconds()
    if seconds < 10:
        return "just now"
    for below, part, unit in ((60, 1, "s"), (3600, 60, "min"), (86_400, 3600, "h"), (14 * 86_400, 86_400, "d")):
        if seconds < below:
            return f"{int(seconds // part)}{THIN}{unit} ago"
    return f"{when.day} {when:%b %Y}"


def moment(value: datetime | str | None) -> str:
    """A moment in full: 26 Nov 2026, 12:53:09 UTC."""
    when = _moment(value)
    return NONE if when is None else f"{when.day} {when:%b %Y, %H:%M:%S} UTC"


def latency(seconds: float | None) -> str:
    """A latency, with enough digits where it is short: 107 µs, 8.13 ms, 1.2 s."""
    if seconds is None:
        return NONE
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f}{THIN}µs"
    return f"{number(seconds * 1e3, 3)}{THIN}ms" if seconds < 1 else duration(seconds)


def value(anything: Any) -> str:
    """Any value of a job or a receipt: numbers as numbers, lists with commas, the rest as it is."""
    if anything is None:
        return NONE
    if isinstance(anything, bool):
        return "yes" if anything else "no"
    if isinstance(anything, int | float):
        return number(anything)
    if isinstance(anything, list | tuple):
        return ", ".join(value(one) for one in anything) or "none"
    if isinstance(anything, Mapping):
        return ", ".join(f"{words(str(name))} {value(one)}" for name, one in anything.items()) or "none"
    return str(anything)


def words(name: str) -> str:
    """A field's name as words: `length_bucketing` as "length bucketing"."""
    return _SAID.get(name) or name.replace("_", " ")


def counted(count: float | None, noun: str) -> str:
    """So many of something: 1 row, 12 rows."""
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"


def limit(figure: Any, name: str) -> str:
    """A figure of a limit of this name, in its unit: 453 kB, 1.31 ×, 0.97."""
    if not isinstance(figure, int | float):
        return value(figure)
    if name in _IN_BYTES:
        return size(figure)
    return f"{number(figure)}{THIN}×" if name == "min_speedup" else number(figure)


def on_pages(text: str) -> str:
    """The API's advice with the page that shows what its request would."""
    return _PAGES.sub(lambda found: f"the page {found[1].capitalize().replace('Datasets', 'Data sets')}", text)


def with_minus(text: str) -> str:
    """A sentence whose negative numbers have a minus, which a hyphen is not."""
    return re.sub(r"(?<![\w.])-(?=\d)", "−", text)


def took(job: Mapping[str, Any], now: datetime | None = None) -> float | None:
    """Seconds from a job's start to its end, or to now while it runs."""
    started, ended = _moment(job["started_at"]), _moment(job["finished_at"])
    if started is None:
        return None
    return ((ended or now or datetime.now(UTC)) - started).total_seconds()


def _moment(value: datetime | str | None) -> datetime | None:
    if isinstance(value, str):
        return datetime.fromisoformat(value)
    return value


FILTERS: dict[str, Callable[..., Any]] = {
    "number": number,
    "size": size,
    "duration": duration,
    "percent": percent,
    "signed": signed,
    "ago": ago,
    "moment": moment,
    "words": words,
    "latency": latency,
    "value": value,
    "counted": counted,
    "limit": limit,
    "on_pages": on_pages,
    "with_minus": with_minus,
}
