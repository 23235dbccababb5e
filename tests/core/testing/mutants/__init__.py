"""Wrong passes and wrong engines, one per class of bugs, that the suite must find."""

from __future__ import annotations

from tests.core.testing.mutants.mutant import Mutant
from tests.core.testing.mutants.of_attention import BUGS
from tests.core.testing.mutants.of_engine import ENGINE
from tests.core.testing.mutants.of_passes import PASSES

MUTANTS: dict[str, Mutant] = {mutant.bug: mutant for mutant in (*PASSES, *BUGS, *ENGINE)}
"""By bug."""

__all__ = ["MUTANTS", "Mutant"]
