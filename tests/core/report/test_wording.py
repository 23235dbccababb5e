from __future__ import annotations

import pytest

from onnx_rewrite.report import wording


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (2.134e-7, "2.1e-07"), (0.1334, "0.13"), (12345.0, "1.2e+04"), (float("inf"), "inf"), (1.0, "1")],
)
def test_error(value: float, text: str) -> None:
    assert wording.error(value) == text


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["a"], "a"),
        (["/stem/Conv", "/norm/Bn"], "/stem/Conv, /norm/Bn"),
        (["/a/stem/Conv", "/a/norm/Bn"], "/a/ (Conv, Bn)"),
        (["/a/b/x", "/a/b/y", "/a/c/z", "/a/d"], "/a/ (4 nodes)"),
        (["/ab/x", "/ac/y"], "/ab/x, /ac/y"),
        (["w", "x", "y", "z"], "w … z (4 nodes)"),
        (["p", "", "q"], "p … q (3 nodes)"),
        (["", ""], "2 unnamed nodes"),
        ([""], "1 unnamed node"),
    ],
)
def test_where(names: list[str], text: str) -> None:
    assert wording.where(names) == text


@pytest.mark.parametrize(
    ("n", "text"),
    [(1, "1 byte"), (999, "999 bytes"), (35_407, "35.4 kB"), (1_200_000_000, "1.2 GB"), (5e15, "5000.0 TB")],
)
def test_size(n: float, text: str) -> None:
    assert wording.size(int(n)) == text


def test_opsets_begin_with_the_standard_domain() -> None:
    assert wording.opsets({"com.microsoft": 1, "": 17}) == "17, com.microsoft 1"


@pytest.mark.parametrize(
    ("path", "text"), [("a/b.onnx", "a/b.onnx"), ("a b", '"a b"'), ("ln[1]", '"ln[1]"'), ("", '""')]
)
def test_quoted(path: str, text: str) -> None:
    assert wording.quoted(path) == text


@pytest.mark.parametrize(("value", "text"), [(0.0214, "21 ms"), (1.34, "1.3 s")])
def test_seconds(value: float, text: str) -> None:
    assert wording.seconds(value) == text
