"""The CPU operators in plain NumPy, float64: calls of them, what they have to return, and the file of the driver."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

EPS, SHARE = 1e-3, 0.1
FACTORS = np.array([EPS, SHARE], np.float32)
NOTHING = np.zeros(1, np.float32)


@dataclass(frozen=True)
class Call:
    """An operator's inputs, and its expected outputs."""

    name: str
    inputs: Sequence[np.ndarray]
    outputs: Sequence[np.ndarray]

    def encoded(self) -> bytes:
        shapes = [np.shape(array) for array in (*self.inputs, *self.outputs)]
        lines = [f"{self.name} {len(self.inputs)} {len(self.outputs)}"]
        lines += [" ".join(map(str, (len(shape), *shape))) for shape in shapes]
        data = [array.astype(np.int32 if array.dtype.kind == "i" else np.float32).tobytes() for array in self.inputs]
        return "\n".join([*lines, ""]).encode() + b"".join(data)


def random(seed: int, *shape: int) -> np.ndarray:
    """Standard normal numbers that float32 holds, as float64."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32).astype(float)


def integers(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def column(values: np.ndarray) -> np.ndarray:
    """(C,) beside (N, C, H, W)."""
    return np.asarray(values).reshape(1, -1, 1, 1)


# --- parts --------------------------------------------------------------------------------------------------------


class Norm:
    """Batch norm and ReLU if asked for, in training unless ``fixed``, and its gradient."""

    def __init__(self, width: int, seed: int, relu: bool, fixed: bool):
        self.gamma, self.beta, self.mean = (random(seed + i, width) for i in range(3))
        self.variance = np.abs(random(seed + 3, width)) + 0.5
        self.relu, self.fixed = relu, fixed

    @property
    def inputs(self) -> list[np.ndarray]:
        return [self.gamma, self.beta, self.mean, self.variance]

    def used(self, x: np.ndarray) -> list[np.ndarray]:
        """Mean and variance."""
        return [self.mean, self.variance] if self.fixed else [x.mean((0, 2, 3)), x.var((0, 2, 3))]

    def statistics(self, x: np.ndarray) -> list[np.ndarray]:
        """Those in use, and what the moving ones become."""
        mean, variance = self.used(x)
        if self.fixed:
            return [mean, variance, self.mean, self.variance]
        count = x.size / x.shape[1]
        moved = [(self.mean, mean), (self.variance, variance * count / max(count - 1, 1))]
        return [mean, variance, *((1 - SHARE) * old + SHARE * new for old, new in moved)]

    def affine(self, x: np.ndarray) -> np.ndarray:
        mean, variance = map(column, self.used(x))
        return (x - mean) / np.sqrt(variance + EPS) * column(self.gamma) + column(self.beta)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.maximum(self.affine(x), 0) if self.relu else self.affine(x)

    def backward(self, x: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gradients of x, gamma, beta."""
        if self.relu:
            g = g * (self.affine(x) > 0)
        mean, variance = map(column, self.used(x))
        scaled = (x - mean) / np.sqrt(variance + EPS)
        dgamma, dbeta = (g * scaled).sum((0, 2, 3)), g.sum((0, 2, 3))
        if not self.fixed:
            g = g - g.mean((0, 2, 3), keepdims=True) - scaled * (g * scaled).mean((0, 2, 3), keepdims=True)
        return column(self.gamma) / np.sqrt(variance + EPS) * g, dgamma, dbeta


class Convolution:
    """Depthwise convolution of (N, C, H, W) by (C, 1, K, K)."""

    def __init__(self, kernel: int, stride: int, same: bool, height: int, width: int):
        self.kernel, self.stride, self.size = kernel, stride, (height, width)
        self.out = tuple(-(-size // stride) for size in self.size)
        wanted = [max((out - 1) * stride + kernel - size, 0) for out, size in zip(self.out, self.size, strict=True)]
        before = [total // 2 if same else kernel // 2 for total in wanted]
        self.padding = [(pad, kernel + stride) for pad in before]  # enough behind

    def windows(self, padded: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
        """Of every tap, the view of the pixels that it meets."""
        s, (height, width) = self.stride, self.out
        for ky, kx in np.ndindex(self.kernel, self.kernel):
            yield ky, kx, padded[:, :, ky : ky + s * height : s, kx : kx + s * width : s]

    def padded(self, x: np.ndarray) -> np.ndarray:
        return np.pad(x, [(0, 0), (0, 0), *self.padding])

    def __call__(self, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        return sum(view * column(w[:, 0, ky, kx]) for ky, kx, view in self.windows(self.padded(x)))

    def backward(self, x: np.ndarray, w: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gradients of x and w."""
        padded, dw = self.padded(x), np.zeros_like(w)
        dx = np.zeros_like(padded)
        for ky, kx, view in self.windows(padded):
            dw[:, 0, ky, kx] = (view * g).sum((0, 2, 3))
        for ky, kx, view in self.windows(dx):
            view += g * column(w[:, 0, ky, kx])
        (top, _), (left, _) = self.padding
        return dx[:, :, top : top + self.size[0], left : left + self.size[1]], dw


# --- calls --------------------------------------------------------------------------------------------------------


def norm_calls(x: np.ndarray, seed: int) -> Iterator[Call]:
    dy, summand = random(seed + 10, *x.shape), random(seed + 11, *x.shape)
    for relu, add, fixed in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 0, 1), (0, 1, 1)]:
        norm = Norm(x.shape[1], seed, bool(relu), bool(fixed))
        settings = [integers(relu, add, fixed), FACTORS]
        inputs = [x, summand if add else NOTHING, *norm.inputs, *settings]
        y = norm(x) + summand if add else norm(x)
        name = "norm_add" if add else "norm"
        if fixed:
            yield Call(f"{name}_infer", inputs, [y])
        else:
            yield Call(f"{name}_train", inputs, [y, *norm.statistics(x)])
        given = [norm.gamma, norm.beta, *norm.used(x)]
        yield Call("norm_backward", [x, dy, *given, *settings], norm.backward(x, dy))


def depthwise_calls(x: np.ndarray, seed: int, kernel: int, stride: int, same: bool) -> Iterator[Call]:
    convolution = Convolution(kernel, stride, same, *x.shape[2:])
    w = random(seed + 20, x.shape[1], 1, kernel, kernel)
    for pre, fixed in np.ndindex(2, 2):
        first = Norm(x.shape[1], seed, True, bool(fixed)) if pre else None
        second = Norm(x.shape[1], seed + 5, True, bool(fixed))
        inner = first(x) if first else x
        z = convolution(inner, w)
        dy = random(seed + 21, *z.shape)
        settings = [integers(kernel, stride, same, pre, fixed), FACTORS]
        inputs = [x, w, *(first.inputs if first else [NOTHING] * 4), *second.inputs, *settings]
        if fixed:
            yield Call("depthwise_infer", inputs, [second(z)])
        else:
            statistics = first.statistics(x) if first else [NOTHING] * 4
            yield Call("depthwise_train", inputs, [second(z), *statistics, *second.statistics(z)])
        dz, *of_second = second.backward(z, dy)
        dx, dw = convolution.backward(inner, w, dz)
        of_first = [NOTHING, NOTHING]
        if first:
            dx, *of_first = first.backward(x, dx)
        used = [first.gamma, first.beta, *first.used(x)] if first else [NOTHING] * 4
        given = [x, w, dy, *used, second.gamma, second.beta, *second.used(z), *settings]
        yield Call("depthwise_backward", given, [dx, dw, *of_first, *of_second])


def gate_calls(x: np.ndarray, seed: int) -> Iterator[Call]:
    gates, dy = random(seed, *x.shape[:2], 1, 1), random(seed + 1, *x.shape)
    yield Call("pool", [x], [x.mean((2, 3), keepdims=True)])
    yield Call("spread", [x, gates], [np.broadcast_to(gates / x[0, 0].size, x.shape)])
    yield Call("scale", [x, gates], [x * gates])
    yield Call("scale_backward", [x, gates, dy], [dy * gates, (dy * x).sum((2, 3), keepdims=True)])


KINDS = [(kernel, stride, same) for kernel in (3, 5, 7) for stride in (1, 2) for same in (False, True)]


def float_calls() -> list[Call]:
    """Planes of many sizes: smaller than a vector, than a kernel, and larger than both."""
    calls: list[Call] = []
    for height, width in [(1, 5), (4, 7), (9, 6), (16, 16), (33, 18)]:
        x = random(height, 2, 3, height, width)
        calls += [*norm_calls(x, 1), *gate_calls(x, 2)]
        for kind in KINDS:
            calls += depthwise_calls(x, 3, *kind)
    return calls
