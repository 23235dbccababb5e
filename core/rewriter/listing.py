"""Chooses sites: `--only 'ln[3]'`, `--only REGEX`, `--skip ...`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from onnx_rewrite.errors import UsageError

_ID = re.compile(r"[\w.-]+\[\d+\]")


class Selection:
    """Which sites may be applied.

    Args:
        only: Site ids ("ln[3]") or regular expressions on node names; a site must fit one of them.
        skip: The same; a site must fit none of them.

    Raises:
        UsageError: A regular expression is malformed.
    """

    def __init__(self, only: Sequence[str] = (), skip: Sequence[str] = ()) -> None:
        self._only = [_compiled(o) for o in only]
        self._skip = [_compiled(s) for s in skip]

    def reason_against(self, site_id: str, nodes: Sequence[str]) -> str | None:
        """Why the site may not be applied, or None."""
        if self._only and not any(_fits(o, site_id, nodes) for o in self._only):
            return "not chosen by --only"
        return "excluded by --skip" if any(_fits(s, site_id, nodes) for s in self._skip) else None


def _compiled(text: str) -> str | re.Pattern[str]:
    if _ID.fullmatch(text):
        return text
    try:
        return re.compile(text)
    except re.error as error:
        raise UsageError(f"'{text}' is neither a site id such as 'ln[3]' nor a regular expression: {error}") from error


def _fits(wanted: str | re.Pattern[str], site_id: str, nodes: Sequence[str]) -> bool:
    return wanted == site_id if isinstance(wanted, str) else any(wanted.search(n) for n in nodes)
