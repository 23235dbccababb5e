"""Settings that all tests share."""

from __future__ import annotations

import os

import hypothesis
import pytest

from tests.older_onnxruntime import lack

# No test asserts a time, and an example is judged by onnxruntime on a machine that does other things too.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        reason = lack(item.nodeid)
        if reason is not None:
            item.add_marker(pytest.mark.xfail(reason=reason, strict=False))
