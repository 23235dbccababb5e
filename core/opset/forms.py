"""How operators changed their form: which parameters moved from an attribute to an input, and when.

Source: the operators' version history in the ONNX specification (docs/Changelog.md of onnx).
A *parameter* is what configures an operator (axes, bounds, pads); an *operand* is data that flows through it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["ints", "int", "float", "floats", "bool", "bound"]


class InputForm(NamedTuple):
    """A parameter that is an attribute below opset `since`, and input number `position` from it on."""

    since: int
    position: int
    kind: Kind


def _reductions() -> dict[str, dict[str, InputForm]]:
    names = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare"]
    forms = {f"Reduce{name}": {"axes": InputForm(18, 1, "ints")} for name in names}
    return forms | {"ReduceSum": {"axes": InputForm(13, 1, "ints")}}


INPUT_FORMS: dict[str, dict[str, InputForm]] = {
    **_reductions(),
    "Clip": {"min": InputForm(11, 1, "bound"), "max": InputForm(11, 2, "bound")},
    "Dropout": {"ratio": InputForm(12, 1, "float")},
    "Pad": {"pads": InputForm(11, 1, "ints"), "value": InputForm(11, 2, "bound")},
    "Reshape": {"shape": InputForm(5, 1, "ints")},
    "Slice": {
        "starts": InputForm(10, 1, "ints"),
        "ends": InputForm(10, 2, "ints"),
        "axes": InputForm(10, 3, "ints"),
        "steps": InputForm(10, 4, "ints"),
    },
    "Split": {"split": InputForm(13, 1, "ints")},
    "Squeeze": {"axes": InputForm(13, 1, "ints")},
    "Tile": {"repeats": InputForm(6, 1, "ints")},
    "TopK": {"k": InputForm(10, 1, "int")},
    "Unsqueeze": {"axes": InputForm(13, 1, "ints")},
    "Upsample": {"scales": InputForm(9, 1, "floats")},
}

# Parameters that came as inputs: nothing moves when a model is raised.
_ALWAYS_INPUTS: dict[str, dict[str, InputForm]] = {
    "Dropout": {"training_mode": InputForm(12, 2, "bool")},
    "Pad": {"axes": InputForm(18, 3, "ints")},
}

PARAMETERS: dict[str, dict[str, InputForm]] = {
    name: {**forms, **_ALWAYS_INPUTS.get(name, {})} for name, forms in INPUT_FORMS.items()
}
"""Every parameter that is an input at some opset."""

# Below opset 7 these train unless `is_test`, 0 by default, is set; later `training_mode` says so, or the outputs do.
TESTED_BELOW_7 = frozenset({"BatchNormalization", "Dropout"})

# Attributes that count axes of the first operand, so that -1 and rank-1 mean the same.
AXIS_OF_INPUT: dict[str, str] = {
    **dict.fromkeys(_reductions(), "axes"),
    "ArgMax": "axis",
    "ArgMin": "axis",
    "Compress": "axis",
    "Concat": "axis",
    "DequantizeLinear": "axis",
    "Flatten": "axis",
    "Gather": "axis",
    "GatherElements": "axis",
    "Hardmax": "axis",
    "LayerNormalization": "axis",
    "LogSoftmax": "axis",
    "LpNormalization": "axis",
    "MeanVarianceNormalization": "axes",
    "Pad": "axes",
    "QuantizeLinear": "axis",
    "RMSNormalization": "axis",
    "Resize": "axes",
    "Scatter": "axis",
    "ScatterElements": "axis",
    "Slice": "axes",
    "Softmax": "axis",
    "Split": "axis",
    "SplitToSequence": "axis",
    "Squeeze": "axes",
    "TopK": "axis",
    "Unique": "axis",
}

# Attributes that count axes of the result.
AXIS_OF_OUTPUT: dict[str, str] = {"OneHot": "axis", "Unsqueeze": "axes"}

# The order of these lists has no meaning.
SETS_OF_AXES = frozenset({*_reductions(), "MeanVarianceNormalization", "Squeeze", "Unsqueeze"})

# Below opset 13 these flatten all axes from theirs on into one, and their default was 1.
FLATTENING_BELOW_13 = frozenset({"Hardmax", "LogSoftmax", "Softmax"})

COMMUTATIVE = frozenset(
    {"Add", "And", "BitwiseAnd", "BitwiseOr", "Equal", "Max", "Mean", "Min", "Mul", "Or", "Sum", "Xor"}
)
