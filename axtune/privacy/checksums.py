"""What the digits of a number say about it: checksums, dates, issuers."""

from __future__ import annotations

from calendar import monthrange

_RESIDENT = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)
_BUSINESS = (1, 3, 7, 1, 3, 7, 1, 3, 5)
_LAST_YEAR = 2039  # of births that a two-digit year of this century can mean
_CENTURIES = {**dict.fromkeys("90", 1800), **dict.fromkeys("1256", 1900)}
_CENTURIES |= dict.fromkeys("3478", 2000)


def born(digits: str) -> tuple[int, int, int] | None:
    """Year, month and day of birth of a resident or foreigner registration number of 13 digits.

    Returns:
        None where there is no such day.
    """
    year = _CENTURIES[digits[6]] + int(digits[:2])
    month, day = int(digits[2:4]), int(digits[4:6])
    if year > _LAST_YEAR or not 1 <= month <= 12 or not 1 <= day <= monthrange(year, month)[1]:
        return None
    return year, month, day


def resident(digits: str) -> bool:
    """Whether the checksum of a resident registration number holds, or that of a foreigner's.

    Numbers given out since October 2020 have none (행정안전부, 2019-12).
    """
    rest = sum(w * int(d) for w, d in zip(_RESIDENT, digits, strict=False)) % 11
    of_foreigner = digits[6] in "5678"
    return int(digits[12]) == ((13 if of_foreigner else 11) - rest) % 10


def business(digits: str) -> bool:
    """Whether the checksum of a business registration number of 10 digits holds (국세청)."""
    total = sum(w * int(d) for w, d in zip(_BUSINESS, digits, strict=False))
    return (total + int(digits[8]) * 5 // 10 + int(digits[9])) % 10 == 0


def luhn(digits: str) -> bool:
    """Whether the Luhn checksum of a card number holds (ISO/IEC 7812-1)."""
    odd, even = digits[-1::-2], digits[-2::-2]
    return (sum(map(int, odd)) + sum(sum(divmod(2 * int(d), 10)) for d in even)) % 10 == 0


def issued(digits: str) -> bool:
    """Whether a card number of this length begins as a network issues them worldwide."""
    first2, first4 = int(digits[:2]), int(digits[:4])
    if len(digits) == 15:
        return first2 in (34, 37)  # American Express
    if len(digits) == 14:
        return first2 in (30, 36, 38, 39)  # Diners Club
    return (
        digits[0] == "4"
        or 51 <= first2 <= 55
        or 2221 <= first4 <= 2720
        or first2 in (35, 60, 62, 65)
    )
