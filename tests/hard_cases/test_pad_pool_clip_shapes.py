"""Pad, pool, Clip and shapes: a pass that forgets a value, a mode, a sign or a dynamic size is caught at its site."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from onnx_rewrite.match import Match, Refused
from onnx_rewrite.pattern import constant, either, op, optional
from onnx_rewrite.registry import Pass
from tests.passes import building
from tests.passes.building import attributes, bounds, f32, node, ops

from .building import drawn, fires, initializers, is_caught, is_judged_wrong, is_left, outputs_of

INF = np.float32("inf")
END = np.iinfo(np.int64).max


def model(
    text: str,
    constants: dict[str, Any] | None = None,
    *,
    x: str = "1,2,6,6",
    y: str = "n,c,h,w",
    kind: str = "float",
    opset: int = 13,
    **options: Any,
) -> onnx.ModelProto:
    given = {k: np.asarray(v, np.int64) if isinstance(v, list) else v for k, v in (constants or {}).items()}
    inputs, outputs = f"{kind}[{x}] x", f"{kind}[{y}] y{options.pop('extra', '')}"
    return building.model(text, given, inputs=inputs, outputs=outputs, opset=opset, **options)


# -- Pad


class PadIntoWindow(Pass):
    """A Pad becomes the pads of the MaxPool or Conv behind it, whatever the Pad says."""

    name = "pad"

    def pattern(self, x: Any, pads: Any, value: Any, weight: Any) -> Any:
        padded = op.Pad(x, pads=pads, value=optional(value)).named("pad")
        return either(op.MaxPool(padded).named("window"), op.Conv(padded, constant(weight)).named("window"))

    def replace(self, m: Match) -> Any:
        spatial = len(m.pads) // 2 - 2
        pads = [*m.pads[2 : 2 + spatial], *m.pads[-spatial:]]
        own = m.window.attributes.get_ints("pads", [0] * len(pads))
        return op.like(m.window, m.x, m.weight, pads=[a + b for a, b in zip(pads, own, strict=True)])


class PadIntoMaxPool(PadIntoWindow):
    """A MaxPool's own padding never wins: only a Pad with the lowest number can be its."""

    name = "pad-pool"
    wanted: float = -np.inf

    def check(self, m: Match) -> None:
        if (m.value or 0) != self.wanted:
            raise Refused(f"it pads with {m.value or 0}, not with {self.wanted}", m.pad)
        if m.pad.attributes.get_string("mode", "constant") != "constant":
            raise Refused("it pads with what is there", m.pad)
        channels = len(m.pads) // 2
        if any(m.pads[:2]) or any(m.pads[channels : channels + 2]) or min(m.pads) < 0:
            raise Refused("it pads the batch or the channels, or takes away", m.pad)


class PadIntoConv(PadIntoMaxPool):
    """A Conv pads with zeros."""

    name = "pad-conv"
    wanted = 0.0


class PadOfAbsIntoMaxPool(Pass):
    """Nothing is below the zeros that are padded."""

    name = "pad-abs"

    def pattern(self, x: Any, pads: Any) -> Any:
        return op.MaxPool(op.Pad(op.Abs(x), pads=pads)).named("window")

    def replace(self, m: Match) -> Any:
        return op.like(m.window, op.Abs(m.x), pads=[*m.pads[2:4], *m.pads[-2:]])


POOL = "p = Pad(x, pads{}) y = MaxPool<kernel_shape=[3,3]>(p)"
PADS = {"pads": [0, 0, 1, 1, 0, 0, 1, 1]}


def test_pad_of_0_into_max_pool_on_negative_data() -> None:
    """Zero beats what is negative; on positive data nobody would notice."""
    made = model(POOL.format(""), PADS)
    is_judged_wrong(made, PadIntoWindow())
    is_left(made, PadIntoMaxPool(), "it pads with 0")
    lowest = model(POOL.format(", v"), {**PADS, "v": -INF})
    assert ops(fires(lowest, PadIntoMaxPool())) == ["MaxPool"]
    assert ops(fires(lowest, PadIntoWindow())) == ["MaxPool"]
    negative = {"x": -np.abs(drawn(made)["x"]) - 1}
    assert np.max(outputs_of(made, negative)[0]) == 0
    assert np.max(outputs_of(lowest, negative)[0]) < 0
    # Behind an Abs the zeros never win, and the judge, who is shown the Abs too, sees that.
    positive = model("a = Abs(x) " + POOL.format("").replace("Pad(x", "Pad(a"), PADS)
    assert ops(fires(positive, PadOfAbsIntoMaxPool())) == ["Abs", "MaxPool"]


CONV = "p = Pad{}(x, pads{}) y = Conv<kernel_shape=[3,3]>(p, w)"
WEIGHT = {**PADS, "w": f32(3, 2, 3, 3)}


def test_pad_with_two_consumers_a_value_or_a_mode() -> None:
    plain = model(CONV.format("", ""), WEIGHT)
    assert attributes(node(fires(plain, PadIntoConv()), "Conv"))["pads"] == [1, 1, 1, 1]
    assert ops(fires(plain, PadIntoWindow())) == ["Conv"]
    two = CONV.format("", "") + " z = Neg(p)"
    for one in (PadIntoConv(), PadIntoWindow()):
        is_left(model(two, WEIGHT, extra=", float[n,k,h2,w2] z"), one, "value 'p' is also used by Neg")
        fires(model(two.replace("Neg(p)", "Neg(y)"), WEIGHT, extra=", float[n,k,h2,w2] z"), one)
    value = model(CONV.format("", ", v"), {**WEIGHT, "v": np.float32(0.5)})
    is_left(value, PadIntoConv(), "it pads with 0.5")
    is_judged_wrong(value, PadIntoWindow())
    fires(model(CONV.format("", ", v"), {**WEIGHT, "v": np.float32(0)}), PadIntoConv())
    for mode in ("reflect", "edge"):
        other = model(CONV.format(f'<mode="{mode}">', ""), WEIGHT)
        is_left(other, PadIntoConv(), "it pads with what is there")
        is_judged_wrong(other, PadIntoWindow())
    fires(model(CONV.format('<mode="constant">', ""), WEIGHT), PadIntoConv())
    channels = model(CONV.format("", ""), {"pads": [0, 1, 1, 1, 0, 0, 1, 1], "w": f32(3, 3, 3, 3)})
    is_left(channels, PadIntoConv(), "it pads the batch or the channels")
    is_caught(channels, PadIntoWindow())


# -- Clip


class ClipAsWritten(Pass):
    """A Min of a Max is a Clip with these bounds, in this order, in the form of inputs."""

    name = "as-written"

    def pattern(self, x: Any, low: Any, high: Any) -> Any:
        return op.Min(op.Max(x, constant(low)), constant(high))

    def replace(self, m: Match) -> Any:
        return op.Clip(m.x, m.low, m.high)


class SpilledClip(ClipAsWritten):
    """The same for a Max of a Min."""

    name = "spilled"

    def pattern(self, x: Any, low: Any, high: Any) -> Any:
        return op.Max(op.Min(x, constant(high)), constant(low))


class MissingIsZero(Pass):
    """Relu of a Clip, a bound that is not there being read as 0."""

    name = "missing-is-zero"

    def pattern(self, x: Any, lo: Any, hi: Any) -> Any:
        return op.Relu(op.Clip(x, min=optional(lo), max=optional(hi)))

    def replace(self, m: Match) -> Any:
        return op.Clip(m.x, min=max(m.lo or 0.0, 0.0), max=m.hi or 0.0)


NUMBERS = {"lo": np.float32(-1), "hi": np.float32(2)}


def clip(text: str, constants: dict[str, Any] | None = None, **options: Any) -> onnx.ModelProto:
    used = {k: v for k, v in (NUMBERS | (constants or {})).items() if k in text}
    return model(text, used, x=options.pop("x", "2,5"), y=options.pop("y", "2,5"), **options)


@pytest.mark.parametrize("opset", [10, 13])
def test_clip_without_max(opset: int) -> None:
    first = "Clip<min=-1.0>(x)" if opset == 10 else "Clip(x, lo)"
    assert bounds(fires(clip(f"a = {first} y = Relu(a)", opset=opset), "clip")) == (0, None)
    if opset > 10:  # before that, an attribute that is missing has a default, which the match gives
        is_judged_wrong(clip(f"a = {first} y = Relu(a)"), MissingIsZero())
    both = first.replace("-1.0", "-1.0, max=2.0").replace("lo", "lo, hi")
    assert bounds(fires(clip(f"a = {both} y = Relu(a)", opset=opset), "clip")) == (0, 2)
    fires(clip(f"a = {both} y = Relu(a)", opset=opset), MissingIsZero())


def test_relu_then_clip_in_float64() -> None:
    """The bounds of float64 are not those of float32: they must not go through it."""
    third = {"lo": np.float64(1 / 3), "hi": np.float64(2 / 3)}
    proto = fires(clip("a = Relu(x) y = Clip(a, lo, hi)", third, kind="double"), "clip")
    assert bounds(proto) == (1 / 3, 2 / 3)
    assert {v.dtype for v in initializers(proto).values()} == {np.dtype(np.float64)}
    fires(clip("a = Relu(x) y = Clip(a, lo, hi)"), "clip")
    # Min and Max take float64 from opset 8 on in onnxruntime, Clip from 12 on; before 11 its bounds are float32.
    for text in ("a = Relu(x) y = Min(a, hi)", "a = Max(x, lo) y = Min(a, hi)"):
        halves = {"lo": np.float64(-0.5), "hi": np.float64(0.5)}
        for opset in (8, 10, 11):
            is_left(clip(text, halves, kind="double", opset=opset), "clip", "Clip of DOUBLE from opset 12 on")
        is_left(clip(text, third, kind="double", opset=10), "clip", "is no 32-bit float")
        fires(clip(text, halves, kind="double", opset=12), "clip")
        fires(clip(text, opset=10), "clip")


def test_min_and_max_with_lo_above_hi() -> None:
    """The last one wins, and Clip's last one is Min."""
    crossed = {"lo": np.float32(2), "hi": np.float32(-1)}
    min_of_max, max_of_min = "a = Max(x, lo) y = Min(a, hi)", "a = Min(x, hi) y = Max(a, lo)"
    assert bounds(fires(clip(min_of_max, crossed), "clip")) == (-1, -1)
    assert bounds(fires(clip(max_of_min, crossed), "clip")) == (2, 2)
    is_judged_wrong(clip(max_of_min, crossed), SpilledClip())
    fires(clip(min_of_max, crossed), ClipAsWritten())
    for text, one in ((min_of_max, ClipAsWritten()), (max_of_min, SpilledClip())):
        assert bounds(fires(clip(text), "clip")) == (-1, 2)
        fires(clip(text), one)


def test_bounds_of_rank_above_0() -> None:
    """A bound of shape [1, 1, 1] gives a matrix three dimensions."""
    text = "a = Max(x, lo) y = Min(a, hi)"
    cube = {"lo": np.full((1, 1, 1), -1, np.float32)}
    is_left(clip(text, cube, y="1,2,5"), "clip", "may give the result another rank")
    is_caught(clip(text, cube, y="1,2,5"), ClipAsWritten())
    flat = {k: np.full((1, 1), v) for k, v in NUMBERS.items()}
    assert [v.shape for v in initializers(fires(clip(text, flat), "clip")).values()] == [(), ()]
    rows = {"lo": np.asarray([[-1], [0]], np.float32)}
    is_left(clip(text, rows), "clip", "holds different numbers")
    is_caught(clip(text, rows), ClipAsWritten())
    fires(clip(text), ClipAsWritten())


@pytest.mark.parametrize("opset", [8, 10])
def test_clip_in_input_form_at_opset_10(opset: int) -> None:
    """Bounds are attributes below opset 11."""
    text = "a = Max(x, lo) y = Min(a, hi)"
    is_caught(clip(text, opset=opset), ClipAsWritten())
    fires(clip(text, opset=11), ClipAsWritten())
    proto = fires(clip(text, opset=opset), "clip")
    assert attributes(node(proto, "Clip")) == {"min": -1, "max": 2}
    assert proto.opset_import[0].version == opset
    assert not node(fires(clip(text, opset=11), "clip"), "Clip").attribute


# -- shapes


class ReshapeOfReshape(Pass):
    """The second Reshape alone."""

    name = "reshapes"

    def pattern(self, x: Any, shape: Any) -> Any:
        return op.Reshape(op.Reshape(x).named("inner"), shape=shape).named("outer")

    def replace(self, m: Match) -> Any:
        return op.Reshape(m.x, shape=list(m.shape))


class ReshapeOfReshapeWithout0(ReshapeOfReshape):
    """A 0 in its shape speaks of the first one's result."""

    name = "reshapes-right"

    def check(self, m: Match) -> None:
        if 0 in m.shape:
            raise Refused("a 0 stands for a size that the first Reshape makes", m.outer)


def test_reshape_of_reshape_with_0_in_the_shape() -> None:
    text = "a = Reshape(x, s) y = Reshape(a, t)"
    for x in ("2,3,4", "2,k,4"):
        zero = model(text, {"s": [-1, 4, 2], "t": [0, 8]}, x=x, y="h,w")
        is_left(zero, ReshapeOfReshapeWithout0(), "a 0 stands for a size")
        is_caught(zero, ReshapeOfReshape())
        without = model(text, {"s": [-1, 4, 2], "t": [-1, 8]}, x=x, y="h,w")
        fires(without, ReshapeOfReshapeWithout0())
        assert ops(fires(without, ReshapeOfReshape())) == ["Reshape"]
    # Here the 0 of both stands for the same size, and the numbers of all sizes agree.
    harmless = model(text, {"s": [0, 2, -1], "t": [0, -1]}, x="n,k,4", y="h,w")
    fires(harmless, ReshapeOfReshape())


class SliceOfSlice(Pass):
    """Adds up starts and takes the nearer end, as if all of them counted from the front."""

    name = "slices"

    def pattern(self, x: Any, s1: Any, e1: Any, s2: Any, e2: Any, axes: Any) -> Any:
        return op.Slice(op.Slice(x, starts=s1, ends=e1, axes=axes), starts=s2, ends=e2, axes=axes)

    def replace(self, m: Match) -> Any:
        starts = [a + b for a, b in zip(m.s1, m.s2, strict=True)]
        ends = [min(a, b if b > END // 2 else b + s) for a, b, s in zip(m.e1, m.e2, m.s1, strict=True)]
        return op.Slice(m.x, starts=starts, ends=ends, axes=list(m.axes))


class SliceOfSliceFromTheFront(SliceOfSlice):
    """The same where they do."""

    name = "slices-right"

    def check(self, m: Match) -> None:
        if min(*m.s1, *m.e1, *m.s2, *m.e2) < 0:
            raise Refused("an end that counts from the back is not known", m.x)


SLICES = {
    "start from the back": ([0], [5], [-2], [END]),
    "end from the back": ([1], [END], [0], [-1]),
    "both, the other way": ([0], [-3], [0], [2]),
}


def slices(s1: list[int], e1: list[int], s2: list[int], e2: list[int]) -> onnx.ModelProto:
    text = "a = Slice(x, s1, e1, axes) y = Slice(a, s2, e2, axes)"
    return model(text, {"s1": s1, "e1": e1, "s2": s2, "e2": e2, "axes": [0]}, x="n,3", y="m,3")


@pytest.mark.parametrize("numbers", SLICES.values(), ids=SLICES)
def test_slice_with_dynamic_dims(numbers: tuple[list[int], ...]) -> None:
    is_left(slices(*numbers), SliceOfSliceFromTheFront(), "an end that counts from the back")
    front = [[abs(v) for v in part] for part in numbers]
    assert ops(fires(slices(*front), SliceOfSliceFromTheFront(), sizes={"n": 9})) == ["Slice"]
    fires(slices(*front), SliceOfSlice())


@pytest.mark.parametrize("numbers", SLICES.values(), ids=SLICES)
def test_slice_that_forgets_a_sign_is_judged_wrong(numbers: tuple[list[int], ...]) -> None:
    is_judged_wrong(slices(*numbers), SliceOfSlice())


class ExpandToNothing(Pass):
    """An Expand that keeps the rank expands nothing."""

    name = "expand"

    def pattern(self, x: Any, shape: Any) -> Any:
        return op.Expand(x, constant(shape))

    def replace(self, m: Match) -> Any:
        return m.x


class ExpandToOnes(ExpandToNothing):
    """An Expand to ones, or to what is known to be there, expands nothing."""

    name = "expand-right"

    def check(self, m: Match) -> None:
        sizes = m.shape.array.tolist()
        for axis, size in enumerate(reversed(sizes), start=1):
            if size not in (1, m.dim(m.x, -axis)):
                raise Refused(f"axis {-axis} may be 1 long", m.x)


def test_expand_with_dynamic_dims() -> None:
    """[n, 3] expanded to [2, 3] is what it was, unless n is 1."""
    text = "a = Abs(x) b = Expand(a, s) y = Neg(b)"
    two = model(text, {"s": [2, 3]}, x="n,3", y="m,3")
    is_left(two, ExpandToOnes(), "axis -2 may be 1 long")
    is_caught(two, ExpandToNothing())
    ones = model(text, {"s": [1, 3]}, x="n,3", y="m,3")
    assert ops(fires(ones, ExpandToOnes())) == ["Abs", "Neg"]
    fires(ones, ExpandToNothing())
    fires(model(text, {"s": [2, 3]}, x="2,3", y="2,3"), ExpandToOnes())


class ConcatOfSlices(Pass):
    """Two Slices that touch are the whole."""

    name = "concat"

    def pattern(self, x: Any, s1: Any, e1: Any, s2: Any, e2: Any, axes: Any, axis: Any) -> Any:
        first, second = (op.Slice(x, starts=s, ends=e, axes=axes) for s, e in ((s1, e1), (s2, e2)))
        return op.Concat(first, second, axis=axis)

    def check(self, m: Match) -> None:
        if not (m.axes == (m.axis,) and m.s1 == (0,) and m.e1 == m.s2):
            raise Refused("they do not touch", m.x)

    def replace(self, m: Match) -> Any:
        return m.x


class ConcatOfAllSlices(ConcatOfSlices):
    """The same where the second one goes to the end."""

    name = "concat-right"

    def check(self, m: Match) -> None:
        super().check(m)
        if m.e2[0] != m.dim(m.x, m.axis) and m.e2[0] < END:
            raise Refused(f"the second slice ends at {m.e2[0]}, the axis perhaps not", m.x)


def test_concat_with_dynamic_dims() -> None:
    """Slices to 2 and from 2 to 4 are the whole of what has up to four rows."""
    text = "z = Abs(x) a = Slice(z, i, j, axes) b = Slice(z, j, k, axes) c = Concat<axis=0>(a, b) y = Neg(c)"

    def made(end: int, x: str) -> onnx.ModelProto:
        return model(text, {"i": [0], "j": [2], "k": [end], "axes": [0]}, x=x, y="m,3")

    is_left(made(4, "n,3"), ConcatOfAllSlices(), "the second slice ends at 4")
    is_judged_wrong(made(4, "n,3"), ConcatOfSlices())
    assert ops(fires(made(END, "n,3"), ConcatOfAllSlices())) == ["Abs", "Neg"]
    fires(made(4, "4,3"), ConcatOfAllSlices())


class SplitInHalves(Pass):
    """The first of two parts is as long as half the axis, rounded down."""

    name = "halves"

    def pattern(self, x: Any) -> Any:
        first, _ = op.Split(x, num_outputs=2, axis=0, outputs=2)
        return op.Neg(first)

    def half(self, m: Match) -> Any:
        return op.Div(op.Gather(op.Shape(m.x), np.asarray([0])), np.asarray([2]))

    def replace(self, m: Match) -> Any:
        return op.Neg(op.Slice(m.x, np.asarray([0]), self.half(m), np.asarray([0])))


class SplitInLargerHalves(SplitInHalves):
    """Rounded up: the last part is the one that may be smaller."""

    name = "halves-right"

    def half(self, m: Match) -> Any:
        rows = op.Gather(op.Shape(m.x), np.asarray([0]))
        return op.Div(op.Add(rows, np.asarray([1])), np.asarray([2]))


def test_split_with_dynamic_dims() -> None:
    """Split into two parts of an odd length gives the first one more."""
    text = "a, b = Split<num_outputs=2, axis=0>(x) y = Neg(a)"
    is_judged_wrong(model(text, x="n,3", y="m,3", opset=18), SplitInHalves())
    fires(model(text, x="n,3", y="m,3", opset=18), SplitInLargerHalves(), sizes={"n": 5})
    fires(model(text, x="6,3", y="3,3", opset=18), SplitInHalves())


class SqueezeOfUnsqueeze(Pass):
    """Squeeze undoes Unsqueeze, whichever axes it names."""

    name = "squeeze"

    def pattern(self, x: Any, axes: Any) -> Any:
        return op.Squeeze(op.Unsqueeze(x, axes=axes)).named("squeeze")

    def replace(self, m: Match) -> Any:
        return m.x


class SqueezeOfTheSame(SqueezeOfUnsqueeze):
    """Where they are the same: without axes, it drops all that are 1 long."""

    name = "squeeze-right"

    def pattern(self, x: Any, axes: Any) -> Any:
        return op.Squeeze(op.Unsqueeze(x, axes=axes), axes=axes)


def test_squeeze_with_dynamic_dims() -> None:
    """Without axes, what is dropped depends on which sizes are 1."""
    text = "z = Abs(x) a = Unsqueeze(z, i) b = Squeeze(a{}) y = Exp(b)"
    axes = {"i": [0], "j": [0]}
    all_ones = model(text.format(""), {"i": [0]}, x="n,3", y="n,3", valid=False)
    all_ones.graph.output[0].type.tensor_type.ClearField("shape")
    is_left(all_ones, SqueezeOfTheSame())
    is_caught(all_ones, SqueezeOfUnsqueeze())
    named = model(text.format(", j"), axes, x="n,3", y="n,3")
    assert ops(fires(named, SqueezeOfTheSame())) == ["Abs", "Exp"]
    fires(named, SqueezeOfUnsqueeze())
    fires(model(text.format(""), {"i": [0]}, x="2,3", y="2,3"), SqueezeOfUnsqueeze())
