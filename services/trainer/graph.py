"""A small language for building ONNX graphs with arithmetic signs. It must never let a row's result depend on the rows
beside it: functions run on whole vectors of the processor only (see Tensor.log), sums on padded rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Union

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
OPSET_ML = 3
IR_VERSION = 10
LANES = 8
"""Doubles in the widest vector register. ONNX Runtime computes exp and log of whole registers by another routine than
those of the rest, and the two differ in the last bit: a column padded to LANES has no rest."""

Operand = Union["Tensor", float]


@dataclass(frozen=True, eq=False)
class Tensor:
    """A double tensor (n, columns) in a graph that is being built."""

    graph: "GraphBuilder"
    name: str
    columns: int

    def _with(self, kind: str, other: Operand, *, swap: bool = False) -> "Tensor":
        right = other if isinstance(other, Tensor) else self.graph.constant(other)
        inputs = (right, self) if swap else (self, right)
        return self.graph.node(kind, *inputs, columns=max(self.columns, right.columns))

    def __add__(self, other: Operand) -> "Tensor":
        return self._with("Add", other)

    def __radd__(self, other: float) -> "Tensor":
        return self._with("Add", other, swap=True)

    def __sub__(self, other: Operand) -> "Tensor":
        return self._with("Sub", other)

    def __rsub__(self, other: float) -> "Tensor":
        return self._with("Sub", other, swap=True)

    def __mul__(self, other: Operand) -> "Tensor":
        return self._with("Mul", other)

    def __rmul__(self, other: float) -> "Tensor":
        return self._with("Mul", other, swap=True)

    def __truediv__(self, other: Operand) -> "Tensor":
        return self._with("Div", other)

    def __rtruediv__(self, other: float) -> "Tensor":
        return self._with("Div", other, swap=True)

    def __neg__(self) -> "Tensor":
        return self.graph.node("Neg", self, columns=self.columns)

    def maximum(self, other: Operand) -> "Tensor":
        """Elementwise; of finite values."""
        return self._with("Max", other)

    def minimum(self, other: Operand) -> "Tensor":
        """Elementwise; of values that are no NaN."""
        return self._with("Min", other)

    def exp(self) -> "Tensor":
        """e^x, the same bits in every batch."""
        return self._function("Exp")

    def log(self) -> "Tensor":
        """Natural logarithm, the same bits in every batch."""
        return self._function("Log")

    def sqrt(self) -> "Tensor":
        """Square root: correctly rounded, so the same bits in every batch."""
        return self.graph.node("Sqrt", self, columns=self.columns)

    def floor(self) -> "Tensor":
        """Largest integer that is no larger."""
        return self.graph.node("Floor", self, columns=self.columns)

    def interpolated(self, places: ArrayLike, values: ArrayLike) -> "Tensor":
        """np.interp(self, places, values) of a column (n, 1): the first value and a sum of ramps, one a segment.

        places: ascending; a single one means a constant."""
        x, y = np.asarray(places, dtype=np.float64), np.asarray(values, dtype=np.float64)
        if len(x) == 1:
            return 0.0 * self + float(y[0])
        width = np.diff(x)
        slope = np.divide(np.diff(y), width, out=np.zeros_like(width), where=width > 0)
        rows = [self.graph.constant(np.append(each, np.zeros(-len(width) % LANES))) for each in (x[:-1], width, slope)]
        return ((self - rows[0]).maximum(0.0).minimum(rows[1]) * rows[2]).row_sum() + float(y[0])

    def _function(self, kind: str) -> "Tensor":
        if self.columns % LANES == 0:
            return self.graph.node(kind, self, columns=self.columns)
        assert self.columns == 1, "pad to a multiple of LANES"
        return self.graph.node(kind, self.repeated(LANES), columns=LANES).column(0)

    def repeated(self, times: int) -> "Tensor":
        """(n, 1) → (n, times)."""
        places = self.graph.integers([0] * times)
        return self.graph.node("Gather", self, places, columns=times, axis=1)

    def column(self, place: int) -> "Tensor":
        """One column, (n, 1)."""
        return self.graph.node("Gather", self, self.graph.integers([place]), columns=1, axis=1)

    def row_sum(self) -> "Tensor":
        """Sum of each row, (n, 1); rows are padded, so that each is summed in the same order."""
        assert self.columns % LANES == 0, "pad to a multiple of LANES"
        return self.graph.node("ReduceSum", self, self.graph.integers([1]), columns=1, keepdims=1)

    def row_max(self) -> "Tensor":
        """Maximum of each row, (n, 1)."""
        return self.graph.node("ReduceMax", self, columns=1, axes=[1], keepdims=1)

    def is_nan(self) -> "Tensor":
        """A boolean tensor."""
        return self.graph.node("IsNaN", self, columns=self.columns)

    def at_least(self, other: float) -> "Tensor":
        """A boolean tensor; false for NaN."""
        return self._with("GreaterOrEqual", other)

    def above(self, other: float) -> "Tensor":
        """A boolean tensor; false for NaN."""
        return self._with("Greater", other)

    def choose(self, yes: Operand, no: Operand) -> "Tensor":
        """Of a boolean tensor: `yes` where it is true, else `no`."""
        parts = [each if isinstance(each, Tensor) else self.graph.constant(each) for each in (yes, no)]
        columns = max(self.columns, *(part.columns for part in parts))
        return self.graph.node("Where", self, *parts, columns=columns)


class GraphBuilder:
    """Collects nodes and constants; `model()` makes the graph of it."""

    def __init__(self, input_name: str, columns: int) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[bytes, onnx.TensorProto] = {}
        self._functions: list[onnx.NodeProto] = []
        self._input = helper.make_tensor_value_info(input_name, TensorProto.DOUBLE, [None, columns])
        self.input = Tensor(self, input_name, columns)

    def constant(self, value: ArrayLike) -> Tensor:
        """A double constant: a number, or a row (1, columns)."""
        array = np.atleast_2d(np.asarray(value, dtype=np.float64))
        return Tensor(self, self._stored(array), array.shape[1])

    def integers(self, values: list[int]) -> Tensor:
        """An int64 constant (len(values),)."""
        return Tensor(self, self._stored(np.array(values, dtype=np.int64)), 1)

    def _stored(self, array: NDArray[Any]) -> str:
        key = repr((array.dtype.str, array.shape)).encode() + array.tobytes()
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(array, f"c{len(self._constants)}")
        return str(self._constants[key].name)

    def node(self, kind: str, *inputs: Tensor, columns: int, **attributes: Any) -> Tensor:
        """An operation of the standard domain."""
        name = f"t{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, [each.name for each in inputs], [name], **attributes))
        return Tensor(self, name, columns)

    def stacked(self, parts: Sequence[Tensor]) -> Tensor:
        """Tensors with a row for each row of the input, side by side."""
        return self.node("Concat", *parts, columns=sum(each.columns for each in parts), axis=1)

    def embed(self, model: onnx.ModelProto, rows: Tensor) -> Tensor:
        """A converted estimator of one float input (n, columns) and one output (n, 1), applied to `rows`; double."""
        count = len(self._nodes)
        part = onnx.compose.add_prefix(model, f"m{count}_").graph
        assert len(part.input) == 1, "one input"
        assert len(part.output) == 1, "one output"
        self._nodes.append(helper.make_node("Cast", [rows.name], [part.input[0].name], to=TensorProto.FLOAT))
        self._nodes.extend(part.node)
        for initializer in part.initializer:
            self._constants[initializer.name.encode()] = initializer
        result = Tensor(self, part.output[0].name, 1)
        return self.node("Cast", result, columns=1, to=TensorProto.DOUBLE)

    def model(self, outputs: dict[str, Tensor]) -> onnx.ModelProto:
        """The finished graph, checked; outputs are (n, 1) doubles."""
        named = [helper.make_node("Identity", [tensor.name], [name]) for name, tensor in outputs.items()]
        graph = helper.make_graph(
            [*self._nodes, *named],
            "clv",
            [self._input],
            [helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None, 1]) for name in outputs],
            list(self._constants.values()),
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", OPSET_ML)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="clv")
        onnx.checker.check_model(model, full_check=True)
        return model
