"""Runs passes of both kinds in the order in which they were given: patterns, and functions on a graph.

Neighbouring pattern passes are one stage: they run to their common fixed point. A function is a stage of its own and
is run once. So a function sees what the passes before it made, and what it made is seen by the passes after it alone;
it is never run again on its own result, because nothing says that it would come to an end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from onnx_rewrite.analysis.constants import Constants
from onnx_rewrite.analysis.types import complete_types
from onnx_rewrite.model import LoadedModel
from onnx_rewrite.pipeline.graphsurgeon import Conditions, run_function
from onnx_rewrite.registry import FunctionPass
from onnx_rewrite.rewriter.driver import Driver, RulePass
from onnx_rewrite.rewriter.functions import drop_functions
from onnx_rewrite.rewriter.listing import Selection
from onnx_rewrite.rewriter.lowering import lower_opset
from onnx_rewrite.rewriter.names import Names
from onnx_rewrite.rewriter.raising import CannotRaise, Raised
from onnx_rewrite.rewriter.site import Judge, Seconds, Site


class PassRun:
    """Applies passes to one model, in place.

    Args:
        loaded: The model; its `ir` is changed.
        passes: In the order in which they run.
        judge: As for `Driver`, for pattern passes.
        conditions: For functions; `Conditions(verify=False)` judges none of them.
        target: As for `Driver`.
        learn: As for `Driver`.
        found: As for `Driver`.
        after: As for `Driver`.

    Attributes:
        sites: By name of the pass.
        seconds: By name of the pass.
        raised: How the opset was raised.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        passes: Sequence[RulePass],
        *,
        judge: Judge | None = None,
        conditions: Conditions | None = None,
        target: str = "onnx",
        learn: Callable[[], bool] | None = None,
        found: Callable[[Site], None] | None = None,
        after: Callable[[str], None] | None = None,
    ) -> None:
        self.passes = passes
        self.sites: dict[str, list[Site]] = {p.name: [] for p in passes}
        self.seconds: dict[str, Seconds] = {p.name: Seconds() for p in passes}
        self.raised: list[Raised] = []
        self._loaded = loaded
        self._judge = judge
        self._conditions = conditions or Conditions(verify=False, kept=loaded.kept_names)
        self._target = target
        self._learn = learn
        self._found = found
        self._after = after
        self._edits = 0
        # Patterns are compiled before anything runs: an ill-formed one is reported at once.
        self._stages = [self._stage(list(group)) for _, group in groupby(passes, _kind)]

    def run(self) -> None:
        """Runs all stages.

        Raises:
            CircularRewriteError: Passes undo each other.
            UsageError: A function is to be run, and onnx-graphsurgeon is not installed.
        """
        for stage in self._stages:
            if isinstance(stage, FunctionPass):
                self._function(stage)
            else:
                stage.run()
                self.raised += stage.raised
                for name, sites in stage.sites.items():
                    self.sites[name] = sites
                    self.seconds[name] = stage.seconds[name]
                self._number(site for sites in stage.sites.values() for site in sites)

    def lower(self, target: int) -> str | None:
        """Lowers the model's opset, judged; the reason where that cannot be done, and the model is as it was."""
        model = self._loaded.ir
        drop_functions(model)
        complete_types(model)
        try:
            self.raised.append(lower_opset(model, target, judge=self._judge, names=Names(model), constants=Constants()))
        except CannotRaise as error:
            return str(error)
        return None

    def _stage(self, group: Sequence[Any]) -> Any:
        if isinstance(group[0], FunctionPass):
            return group[0]
        with_ = self._conditions
        return Driver(
            self._loaded.ir,
            group,
            judge=self._judge,
            target=self._target,
            opset=with_.opset,
            selection=with_.selection or Selection(),
            accept_inconclusive=with_.accept_inconclusive,
            denied=with_.denied,
            kept=with_.kept,
            learn=self._learn,
            found=self._found,
            after=self._after,
        )

    def _function(self, one: FunctionPass) -> None:
        complete_types(self._loaded.ir)
        site = run_function(one, self._loaded, self._conditions, self.seconds[one.name])
        if site is None:
            return
        self.sites[one.name].append(site)
        self._number([site])
        if self._found is not None:
            self._found(site)
        if site.status == "applied" and self._after is not None:
            self._after(one.name)

    def _number(self, sites: Any) -> None:
        """Numbers the edits of a stage after those of the stages before it."""
        applied = sorted((site for site in sites if site.status == "applied"), key=lambda site: site.number)
        for site in applied:
            site.number, self._edits = self._edits, self._edits + 1


def _kind(one: Any) -> Any:
    # Each function is a group by itself.
    return one.name if isinstance(one, FunctionPass) else None
