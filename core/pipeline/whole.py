"""The verdict on the whole model, and what to take back when it is bad."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from onnx_rewrite.model import LoadedModel, reload, to_proto
from onnx_rewrite.pipeline.driving import PassRun
from onnx_rewrite.rewriter.site import Site
from onnx_rewrite.verdict import Verification
from onnx_rewrite.verify import judge_models
from onnx_rewrite.verify.bisection import first_bad

Key = tuple[str, tuple[str, ...]]
Drive = Callable[..., PassRun]

# Each round takes back one edit; more than this many bad ones are no accident.
MAX_OFFENDERS = 8


class Whole:
    """Judges the rewritten model as a whole and takes back the edits that spoil it.

    Args:
        original: As it was loaded; only its protobuf is used.
        feeds: The user's inputs, or None for drawn ones.
        shapes: Shapes by input name for drawn ones.
        seed: The source of randomness.
        drive: Runs the passes over a freshly loaded model, some edits denied.
    """

    def __init__(
        self,
        original: LoadedModel,
        feeds: Any,
        shapes: Mapping[str, Sequence[int]] | None,
        seed: int,
        drive: Drive,
    ) -> None:
        self._original = original
        self._feeds = feeds
        self._shapes = shapes
        self._seed = seed
        self._drive = drive

    def settled(self, loaded: LoadedModel, driver: PassRun) -> tuple[LoadedModel, PassRun, Verification]:
        """The model without the edits that make the outputs differ, its driver, and the verdict."""
        verdict = self._judge(loaded)
        denied: dict[Key, str] = {}
        while verdict.verdict == "different" and len(denied) < MAX_OFFENDERS:
            edits = [_key(s) for s in _applied(driver)]
            if not edits:
                break
            offender = self._offender(edits, denied)
            denied[offender] = f"with it the whole model's output '{verdict.output}' differs: {verdict.reason}"
            loaded = reload(self._original)
            driver = self._drive(loaded, frozenset(denied), judged=True)
            self._explain(driver, denied, verdict)
            verdict = self._judge(loaded)
        return loaded, driver, verdict

    def _offender(self, edits: list[Key], denied: Mapping[Key, str]) -> Key:
        return edits[first_bad(len(edits), lambda n: self._prefix_differs(edits[n:], denied))]

    def _prefix_differs(self, later: list[Key], denied: Mapping[Key, str]) -> bool:
        loaded = reload(self._original)
        self._drive(loaded, frozenset([*later, *denied]), judged=True)
        return self._judge(loaded).verdict == "different"

    def _judge(self, loaded: LoadedModel) -> Verification:
        return judge_models(
            self._original.proto,
            to_proto(loaded),
            inputs=self._feeds,
            shapes=self._shapes,
            seed=self._seed,
            folder=self._original.base_dir,
        )

    def _explain(self, driver: PassRun, denied: Mapping[Key, str], verdict: Verification) -> None:
        for sites in driver.sites.values():
            for site in sites:
                reason = denied.get(_key(site))
                if site.status == "rolled_back" and reason is not None:
                    site.reason = reason
                    site.verification = replace(verdict, reason=reason)


def _key(site: Site) -> Key:
    return site.pass_name, site.outputs


def _applied(driver: PassRun) -> list[Site]:
    """Applied sites in the order of their edits."""
    found = [s for sites in driver.sites.values() for s in sites if s.status == "applied"]
    return sorted(found, key=lambda s: s.number)
