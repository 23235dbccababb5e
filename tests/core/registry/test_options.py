"""Options of passes: typed fields, written as text."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_rewrite.errors import UsageError
from onnx_rewrite.registry.kinds import JOINT, kind_of, show
from onnx_rewrite.registry.options import make, options_of, parse_list


class Mode(enum.Enum):
    FAST = "fast"
    EXACT = "exact"


class Level(enum.Enum):
    LOW = 1
    HIGH = 2


@dataclass(frozen=True)
class Fancy:
    """A pass with every type of option."""

    need: int
    flag: bool = False
    rate: float = 0.5
    word: str = ""
    form: Literal["core", "function"] = "core"
    size: Literal[1, 2, 4] = 2
    mode: Mode = Mode.FAST
    level: Level = Level.LOW
    depth: Optional[int] = None  # noqa: UP045
    label: str | None = "x"
    axes: tuple[int, ...] = (1, 2)
    pair: tuple[int, float] = (1, 2.0)
    either: int | Literal["auto"] = "auto"
    noted: Annotated[int, "a note"] = field(default=3, metadata={"help": "what it is for"})
    made: tuple[str, ...] = field(default_factory=lambda: ("a", "b"))
    table: dict[str, int] = field(default_factory=dict)
    count: ClassVar[int] = 0
    hidden: int = field(default=0, init=False)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("flag=true", "flag", True),
        ("flag=No", "flag", False),
        ("flag=1", "flag", True),
        ("rate=1e-3", "rate", 1e-3),
        ("word=a.b", "word", "a.b"),
        ("form=function", "form", "function"),
        ("size=4", "size", 4),
        ("mode=exact", "mode", Mode.EXACT),
        ("mode=EXACT", "mode", Mode.EXACT),
        ("level=HIGH", "level", Level.HIGH),
        ("level=high", "level", None),
        ("depth=7", "depth", 7),
        ("depth=none", "depth", None),
        ("label=none", "label", None),
        ("label=no", "label", "no"),
        ("axes=3", "axes", (3,)),
        ("axes=-1+2+0", "axes", (-1, 2, 0)),
        ("axes=", "axes", ()),
        ("pair=3+0.5", "pair", (3, 0.5)),
        ("either=auto", "either", "auto"),
        ("either=3", "either", 3),
        ("noted=4", "noted", 4),
        ("made=c+d", "made", ("c", "d")),
    ],
)
def test_text_becomes_the_type_of_the_field(text: str, name: str, value: Any) -> None:
    ((_, options),) = parse_list(f"fancy:need=1:{text}")
    if text == "level=high":
        with pytest.raises(UsageError):
            make(Fancy, "fancy", options)
        return
    found = getattr(make(Fancy, "fancy", options), name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("need=one", "option need of pass 'fancy' is an integer, not 'one'", None),
        ("need=1.5", "is an integer, not '1.5'", None),
        ("flag=maybe", "is true or false, not 'maybe'", None),
        ("rate=fast", "is a number, not 'fast'", None),
        ("form=fuction", "is one of core, function, not 'fuction'", "did you mean function?"),
        ("size=3", "is one of 1, 2, 4, not '3'", None),
        ("mode=fats", "is one of fast, exact, not 'fats'", "did you mean fast?"),
        ("depth=deep", "is an integer or none, not 'deep'", None),
        ("axes=1+x", "is a list joined by +, each an integer, not '1+x'", None),
        ("pair=1", "is 2 values joined by +", "it has 1 values"),
        ("either=atuo", "is an integer or auto, not 'atuo'", "did you mean auto?"),
        ("table=1", "can only be given in Python", None),
        ("flg=true", "has no option 'flg'", "did you mean flag?"),
        ("hidden=1", "has no option 'hidden'", None),
        ("count=1", "has no option 'count'", None),
    ],
)
def test_wrong_text_says_what_is_allowed(text: str, message: str, hint: str | None) -> None:
    ((_, options),) = parse_list(f"fancy:{text}" if text.startswith("need") else f"fancy:need=1:{text}")
    with pytest.raises(UsageError) as caught:
        make(Fancy, "fancy", options)
    assert message in str(caught.value)
    if hint is not None:
        assert hint in (caught.value.hint or "")


def test_a_required_option_is_asked_for() -> None:
    with pytest.raises(UsageError, match="needs the option 'need'"):
        make(Fancy, "fancy", {})


def test_what_a_pass_says_against_its_options_is_a_users_error() -> None:
    @dataclass(frozen=True)
    class Positive:
        depth: int = 1

        def __post_init__(self) -> None:
            if self.depth < 1:
                raise ValueError("depth must be positive")

    assert make(Positive, "p", {"depth": "2"}).depth == 2
    with pytest.raises(UsageError, match="depth must be positive"):
        make(Positive, "p", {"depth": "0"})


@pytest.mark.parametrize("text", ["a:x", "a:=1", "a:x=1:x=2", "", " , "])
def test_malformed_lists(text: str) -> None:
    with pytest.raises(UsageError):
        parse_list(text)


def test_descriptions() -> None:
    found = {info.name: info for info in options_of(Fancy)}
    assert found["need"].required
    assert found["need"].default is None
    assert not found["depth"].required
    texts = {name: info.default for name, info in found.items() if name not in ("need", "table")}
    assert texts == {
        "flag": "false", "rate": "0.5", "word": "", "form": "core", "size": "2", "mode": "fast", "level": "LOW",
        "depth": "none", "label": "x", "axes": "1+2", "pair": "1+2.0", "either": "auto", "noted": "3", "made": "a+b",
    }  # fmt: skip
    assert found["noted"].help == "what it is for"
    assert "in Python only" in found["table"].type


KINDS: dict[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.integers(),
    float: st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: "+" not in repr(x)),
    Mode: st.sampled_from(Mode),
    Level: st.sampled_from(Level),
    Literal["core", 2, None, True]: st.sampled_from(["core", 2, None, True]),
    tuple[int, ...]: st.lists(st.integers()).map(tuple),
    int | None: st.none() | st.integers(),
    tuple[bool, Mode]: st.tuples(st.booleans(), st.sampled_from(Mode)),
}


@given(st.sampled_from(list(KINDS)).flatmap(lambda kind: st.tuples(st.just(kind), KINDS[kind])))
def test_what_is_shown_is_read_back(drawn: tuple[Any, Any]) -> None:
    annotation, value = drawn
    kind = kind_of(annotation)
    assert kind is not None
    assert kind.parse(show(value)) == value


def test_text_may_not_hold_what_joins_items() -> None:
    kind = kind_of(tuple[str, ...])
    assert kind is not None
    assert kind.parse(JOINT.join("ab")) == ("a", "b")
