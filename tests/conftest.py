"""Settings that all tests share."""

from __future__ import annotations

import os

import hypothesis

# No test asserts a time, and an example is judged by onnxruntime on a machine that does other things too.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")
