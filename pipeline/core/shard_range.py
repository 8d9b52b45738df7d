"""The part of a set that one of several independent jobs makes."""

from __future__ import annotations

import re

from pipeline.core.errors import InputError


def shard_range(text: str | None, total: int) -> range:
    """The shards that `FIRST:STOP` names, STOP not included; all of them for None.

    Args:
        text: two numbers; either may be left out for the set's begin or end.
        total: shards of the whole set.

    Raises:
        InputError: it is no such pair, or names no shard of the set.
    """
    if text is None:
        return range(total)
    matched = re.fullmatch(r"(\d*):(\d*)", text, re.ASCII)
    first, stop = (int(matched[1] or 0), int(matched[2] or total)) if matched else (0, 0)
    if not 0 <= first < stop <= total:
        raise InputError(
            f"--shards {text!r} names no part of the set's {total} shards; give FIRST:STOP with "
            f"0 <= FIRST < STOP <= {total}, e.g. 0:{max(1, total // 2)}"
        )
    return range(first, stop)
