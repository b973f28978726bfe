"""The CPU operators in plain NumPy, float64: calls of them, what they have to return, and the file of the driver."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

EPS, SHARE = 1e-3, 0.1
DELAY, FREEZE, DECAY = 2.0, 5.0, 0.99
FACTORS, TIMING = np.array([EPS, SHARE], np.float32), np.array([DELAY, FREEZE, DECAY], np.float32)
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


class Quantization:
    """8-bit fake quantization, by a range that is observed in training."""

    def __init__(self, low: float, high: float, batches: float | None, observes: bool = True):
        self.range = np.array([low, high])
        self.batches, self.observes = batches, observes and batches is not None
        self.on = batches is None or batches > DELAY
        self.fixed = batches is None or batches > FREEZE

    def after(self, x: np.ndarray) -> np.ndarray:
        """The range with this batch in it."""
        if not self.observes:
            return self.range
        seen = np.array([min(x.min(), 0.0), max(x.max(), 0.0)])
        share = 1.0 if self.range[1] <= self.range[0] else 1 - DECAY
        return self.range + share * (seen - self.range)

    def state(self, x: np.ndarray) -> np.ndarray:
        low, high = self.after(x)
        scale = max(high - low, 1e-8) / 255
        return np.array([scale, np.floor(np.clip(-low / scale, 0, 255) + 0.5), self.on, self.fixed])

    def __call__(self, x: np.ndarray) -> np.ndarray:
        scale, zero, on, _ = self.state(x)
        return (np.clip(np.floor(x / scale + zero + 0.5), 0, 255) - zero) * scale if on else x

    def backward(self, x: np.ndarray, g: np.ndarray) -> np.ndarray:
        scale, zero, on, _ = self.state(x)
        return g * ((x >= -zero * scale) & (x <= (255 - zero) * scale)) if on else g


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


# --- calls of fake quantization -----------------------------------------------------------------------------------


def decided(quantization: Quantization, x: np.ndarray, relu: bool = False) -> bool:
    """Whether no value is so near an edge that float32's rounding decides what becomes of it."""
    scale, zero, _, _ = quantization.state(np.maximum(x, 0) if relu else x)
    steps = x / scale + zero
    edges = [np.abs(steps + 0.5 - np.round(steps + 0.5)), np.abs(steps), np.abs(steps - 255)]
    inside = (np.abs(steps - 127.5) < 140) & (x != 0)
    return all((edge[inside] > 2e-3).all() for edge in edges) and (not relu or bool((np.abs(x) > 1e-4).all()))


def modes(seed: int) -> Iterator[Quantization]:
    """Before the delay, after it, frozen, and in evaluation; some values are outside of the range."""
    low, high = -0.3 - 0.01 * seed, 1.2
    for batches in (1.0, 3.0, 7.0, None):
        yield Quantization(low, high, batches)


def point_calls(shape: tuple[int, ...], seed: int) -> Iterator[Call]:
    for add in (False, True):
        for quantization in (*modes(seed), Quantization(-0.5, 1.0, 3.0, observes=False)):
            x, summand, dy = (random(seed + i, *shape) for i in range(3))
            total = x + summand if add else x
            if not decided(quantization, total):
                return
            y, state, training = quantization(total), quantization.state(total), quantization.batches is not None
            inputs = [x, summand] if add else [x]
            name = "point_add" if add else "point"
            settings = [np.array([quantization.batches]), integers(quantization.observes), TIMING] if training else []
            after = [quantization.after(total)] if training else []
            kind = "train" if training else "infer"
            yield Call(f"{name}_{kind}", [*inputs, quantization.range, *settings], [y, *after, state])
            yield Call(f"{name}_backward", [*inputs, dy, state], [quantization.backward(total, dy)])
    fresh = Quantization(0, 0, 7.0)
    outputs = [fresh(x), fresh.after(x), fresh.state(x)]
    if decided(fresh, x[np.abs(x) < np.abs(x).max()]):
        yield Call("point_train", [x, fresh.range, np.array([7.0]), integers(1), TIMING], outputs)
    w = random(seed, 4, 3, 1, 2)
    for name, levels in (("quantize_weight", 127), ("quantize_weight_7", 64)):
        scale = np.abs(w).max((1, 2, 3), keepdims=True) / levels
        yield Call(name, [w], [np.round(w / scale) * scale])


def quantized_norm_calls(x: np.ndarray, seed: int) -> Iterator[Call]:
    dy = random(seed + 10, *x.shape)
    for relu in (0, 1):
        for quantization in modes(seed):
            norm = Norm(x.shape[1], seed, bool(relu), quantization.fixed)
            if not decided(quantization, norm.affine(x), bool(relu)):
                return
            y, config = norm(x), integers(relu, 0, 0)
            state = quantization.state(y)
            inputs = [x, *norm.inputs, quantization.range]
            if quantization.batches is None:
                yield Call("quantized_norm_infer", [*inputs, config, FACTORS], [quantization(y), state])
            else:
                inputs += [np.array([quantization.batches]), config, FACTORS, TIMING]
                outputs = [quantization(y), *norm.statistics(x), quantization.after(y), state]
                yield Call("quantized_norm_train", inputs, outputs)
            given = [x, dy, norm.gamma, norm.beta, *norm.used(x), state, config, FACTORS]
            yield Call("quantized_norm_backward", given, norm.backward(x, quantization.backward(y, dy)))


def quantized_depthwise_calls(x: np.ndarray, seed: int, kernel: int, stride: int, same: bool) -> Iterator[Call]:
    convolution = Convolution(kernel, stride, same, *x.shape[2:])
    w = random(seed + 20, x.shape[1], 1, kernel, kernel)
    for pre in (0, 1):
        for one in modes(seed):
            two = Quantization(-0.1, 1.5, one.batches)
            first, second = (Norm(x.shape[1], seed + i, True, one.fixed) for i in (0, 5))
            inner = one(first(x)) if pre else x
            z = convolution(inner, w)
            if not decided(two, second.affine(z), True) or (pre and not decided(one, first.affine(x), True)):
                return
            y, dy = second(z), random(seed + 21, *z.shape)
            states = [one.state(first(x)) if pre else NOTHING, two.state(y)]
            config = integers(kernel, stride, same, pre, 0)
            of_first = [*first.inputs, one.range] if pre else [NOTHING] * 5
            inputs = [x, w, *of_first, *second.inputs, two.range]
            if one.batches is None:
                yield Call("quantized_depthwise_infer", [*inputs, config, FACTORS], [two(y), *states])
            else:
                before = [*first.statistics(x), one.after(first(x))] if pre else [NOTHING] * 5
                outputs = [two(y), *before, states[0], *second.statistics(z), two.after(y), states[1]]
                settings = [np.array([one.batches]), config, FACTORS, TIMING]
                yield Call("quantized_depthwise_train", [*inputs, *settings], outputs)
            dz, *of_second = second.backward(z, two.backward(y, dy))
            dx, dw = convolution.backward(inner, w, dz)
            of_first = [NOTHING, NOTHING]
            if pre:
                dx, *of_first = first.backward(x, one.backward(first(x), dx))
            used = [first.gamma, first.beta, *first.used(x), states[0]] if pre else [NOTHING] * 5
            given = [x, w, dy, *used, second.gamma, second.beta, *second.used(z), states[1], config, FACTORS]
            yield Call("quantized_depthwise_backward", given, [dx, dw, *of_first, *of_second])


def all_calls() -> list[Call]:
    """Every operator on planes of many sizes: smaller than a vector, than a kernel, and larger than both."""
    calls: list[Call] = []
    kinds = [(kernel, stride, same) for kernel in (3, 5, 7) for stride in (1, 2) for same in (False, True)]
    for height, width in [(1, 5), (4, 7), (9, 6), (16, 16), (33, 18)]:
        x = random(height, 2, 3, height, width)
        calls += [*norm_calls(x, 1), *gate_calls(x, 2)]
        for kind in kinds:
            calls += depthwise_calls(x, 3, *kind)
    for seed in range(12):  # many are not decided
        calls += [*point_calls((2, 2, 3, 5), seed), *quantized_norm_calls(random(seed, 2, 2, 5, 3), seed)]
        for kind in kinds:
            calls += quantized_depthwise_calls(random(seed, 2, 2, 5, 4), seed, *kind)
    return calls
