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

Floats = NDArray[np.float64]
Operand = Union["Tensor", float]


@dataclass(frozen=True, eq=False)
class Tensor:
    """A double tensor (n, columns), or (n, layers, columns), in a graph that is being built."""

    graph: "GraphBuilder"
    name: str
    columns: int
    layers: int | None = None

    def _with(self, kind: str, other: Operand, *, swap: bool = False) -> "Tensor":
        right = other if isinstance(other, Tensor) else self.graph.constant(other)
        inputs = (right, self) if swap else (self, right)
        return self.graph.node(kind, *inputs, columns=max(self.columns, right.columns), layers=_most(self, right))

    def _alike(self, kind: str) -> "Tensor":
        return self.graph.node(kind, self, columns=self.columns, layers=self.layers)

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
        return self._alike("Neg")

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
        return self._alike("Sqrt")

    def floor(self) -> "Tensor":
        """Largest integer that is no larger."""
        return self._alike("Floor")

    def interpolated(self, places: ArrayLike, values: ArrayLike) -> "Tensor":
        """np.interp() of each column along a line of its own: the line's first value and a sum of ramps, one a segment.

        places: (points,) or (lines, points), ascending; values: likewise. Of several columns and lines there are
        equally many; one column goes along every line, and every column along one. A single point means a constant."""
        x, y = np.atleast_2d(np.asarray(places, dtype=np.float64)), np.atleast_2d(np.asarray(values, dtype=np.float64))
        first = self.graph.constant(y[:, 0])
        if x.shape[1] == 1:
            return 0.0 * self + first
        return (self.ramps(x) * self.graph.constant(slopes(x, y)[None])).row_sum() + first

    def ramps(self, places: ArrayLike) -> "Tensor":
        """How far each column has come along each segment between its places, (n, columns, segments), padded.

        places: (points,) or (lines, points), ascending."""
        x = np.atleast_2d(np.asarray(places, dtype=np.float64))
        start, width = (self.graph.constant(padded(each)[None]) for each in (x[:, :-1], np.diff(x)))
        return (self.upright() - start).maximum(0.0).minimum(width)

    def looked_up(self, table: ArrayLike) -> "Tensor":
        """table[each value], of whole numbers that are places in the table, (places,)."""
        places = self.graph.node("Cast", self, columns=self.columns, layers=self.layers, to=TensorProto.INT64)
        return self.graph.node("Gather", self.graph.row(table), places, columns=self.columns, layers=self.layers)

    def _function(self, kind: str) -> "Tensor":
        if self.columns * (self.layers or 1) % LANES == 0:
            return self._alike(kind)
        return self.padded()._alike(kind).at(range(self.columns))

    def padded(self) -> "Tensor":
        """(n, columns) with copies of the first column behind, to a multiple of LANES."""
        return self.at([*range(self.columns), *[0] * (-self.columns % LANES)])

    def at(self, places: Sequence[int]) -> "Tensor":
        """Columns of (n, columns), in this order, one more than once where it is asked for."""
        assert self.layers is None, "of two axes"
        return self.graph.node("Gather", self, self.graph.integers(list(places)), columns=len(places), axis=1)

    def column(self, place: int) -> "Tensor":
        """One column, (n, 1)."""
        return self.at([place])

    def split(self, *sizes: int) -> list["Tensor"]:
        """Its columns from left to right: so many for each size, without sizes one by one."""
        assert self.layers is None, "of two axes"
        return self.graph.split(self, sizes or (1,) * self.columns)

    def upright(self) -> "Tensor":
        """(n, columns) → (n, columns, 1): each column becomes a layer, to have columns of its own."""
        assert self.layers is None, "of two axes"
        axis = self.graph.integers([2])
        return self.graph.node("Unsqueeze", self, axis, columns=1, layers=self.columns)

    def layered(self, layers: int) -> "Tensor":
        """(n, layers · columns) → (n, layers, columns)."""
        assert self.layers is None, "of two axes"
        columns = self.columns // layers
        return self.graph.node(
            "Reshape", self, self.graph.integers([-1, layers, columns]), columns=columns, layers=layers
        )

    def row_sum(self) -> "Tensor":
        """Sum over the columns: (n, 1), or (n, layers); rows are padded, so that each is summed in the same order."""
        assert self.columns % LANES == 0, "pad to a multiple of LANES"
        if self.layers is None:
            return self.graph.node("ReduceSum", self, self.graph.integers([1]), columns=1, keepdims=1)
        return self.graph.node("ReduceSum", self, self.graph.integers([2]), columns=self.layers, keepdims=0)

    def row_max(self) -> "Tensor":
        """Maximum of each row, (n, 1)."""
        return self.graph.node("ReduceMax", self, columns=1, axes=[1], keepdims=1)

    def is_nan(self) -> "Tensor":
        """A boolean tensor."""
        return self._alike("IsNaN")

    def at_least(self, other: Operand) -> "Tensor":
        """A boolean tensor; false for NaN."""
        return self._with("GreaterOrEqual", other)

    def above(self, other: Operand) -> "Tensor":
        """A boolean tensor; false for NaN."""
        return self._with("Greater", other)

    def choose(self, yes: Operand, no: Operand) -> "Tensor":
        """Of a boolean tensor: `yes` where it is true, else `no`."""
        parts = [each if isinstance(each, Tensor) else self.graph.constant(each) for each in (yes, no)]
        columns = max(self.columns, *(part.columns for part in parts))
        return self.graph.node("Where", self, *parts, columns=columns, layers=_most(self, *parts))


def slopes(places: ArrayLike, values: ArrayLike) -> Floats:
    """Of each segment of lines through (lines, points), padded; of a segment without a length 0."""
    width, rise = np.diff(np.atleast_2d(places)), np.diff(np.atleast_2d(values))
    none = np.zeros(np.broadcast_shapes(width.shape, rise.shape))
    return padded(np.divide(rise, width, out=none, where=width > 0))


def padded(rows: Floats) -> Floats:
    """Rows with zeros behind, to a multiple of LANES."""
    return np.pad(rows, ((0, 0), (0, -rows.shape[1] % LANES)))


def _most(*tensors: Tensor) -> int | None:
    """Layers of what an elementwise operation makes of these."""
    return max((each.layers for each in tensors if each.layers is not None), default=None)


class GraphBuilder:
    """Collects nodes and constants; `model()` makes the graph of it.

    What a scorer pays for a few customers is the number of nodes, not what is in them: nodes are of many columns, and
    the same one is never made twice."""

    def __init__(self, input_name: str, columns: int) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._known: dict[str, list[Tensor]] = {}
        self._constants: dict[bytes, onnx.TensorProto] = {}
        self._input = helper.make_tensor_value_info(input_name, TensorProto.DOUBLE, [None, columns])
        self.input = Tensor(self, input_name, columns)

    def constant(self, value: ArrayLike) -> Tensor:
        """A double constant: a number, a row (1, columns), or layers of them, (1, layers, columns)."""
        array = np.atleast_2d(np.asarray(value, dtype=np.float64))
        layers = array.shape[1] if array.ndim == 3 else None
        return Tensor(self, self._stored(array), array.shape[-1], layers)

    def row(self, values: ArrayLike) -> Tensor:
        """A double constant (len(values),)."""
        array = np.asarray(values, dtype=np.float64)
        return Tensor(self, self._stored(array), len(array))

    def integers(self, values: list[int]) -> Tensor:
        """An int64 constant (len(values),)."""
        return Tensor(self, self._stored(np.array(values, dtype=np.int64)), 1)

    def _stored(self, array: NDArray[Any]) -> str:
        key = repr((array.dtype.str, array.shape)).encode() + array.tobytes()
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(array, f"c{len(self._constants)}")
        return str(self._constants[key].name)

    def node(self, kind: str, *inputs: Tensor, columns: int, layers: int | None = None, **attributes: Any) -> Tensor:
        """An operation of the standard domain."""
        return self._made(kind, inputs, [(columns, layers)], attributes)[0]

    def split(self, tensor: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """The columns of (n, columns) from left to right, so many for each size."""
        assert sum(sizes) == tensor.columns, "every column goes somewhere"
        return self._made("Split", (tensor, self.integers(list(sizes))), [(size, None) for size in sizes], {"axis": 1})

    def _made(
        self, kind: str, inputs: Sequence[Tensor], shapes: list[tuple[int, int | None]], attributes: dict[str, Any]
    ) -> list[Tensor]:
        names = [each.name for each in inputs]
        key = repr((kind, names, sorted(attributes.items())))
        if key not in self._known:
            outputs = (
                [f"t{len(self._nodes)}"]
                if len(shapes) == 1
                else [f"t{len(self._nodes)}_{place}" for place in range(len(shapes))]
            )
            self._nodes.append(helper.make_node(kind, names, outputs, **attributes))
            self._known[key] = [Tensor(self, name, *shape) for name, shape in zip(outputs, shapes, strict=True)]
        return self._known[key]

    def stacked(self, parts: Sequence[Tensor]) -> Tensor:
        """Tensors with a row for each row of the input, side by side."""
        return self.node("Concat", *parts, columns=sum(each.columns for each in parts), axis=1)

    def piled(self, parts: Sequence[Tensor]) -> Tensor:
        """Tensors (n, layers, columns), one's layers after the other's."""
        layers = [each.layers or 0 for each in parts]
        assert all(layers), "of three axes"
        return self.node("Concat", *parts, columns=parts[0].columns, layers=sum(layers), axis=1)

    def embed(self, model: onnx.ModelProto, rows: Tensor) -> Tensor:
        """A converted estimator of one float input (n, columns) and one output (n, 1), applied to `rows`; double."""
        as_float = self.node("Cast", rows, columns=rows.columns, to=TensorProto.FLOAT)
        part = onnx.compose.add_prefix(model, f"m{len(self._nodes)}_").graph
        assert len(part.input) == 1, "one input"
        assert len(part.output) == 1, "one output"
        for node in part.node:
            node.input[:] = [as_float.name if each == part.input[0].name else each for each in node.input]
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
