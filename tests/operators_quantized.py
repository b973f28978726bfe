"""The CPU operators of fake quantization in plain NumPy, float64, beside ``operators_reference``."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from operators_reference import FACTORS, KINDS, NOTHING, Call, Convolution, Norm, integers, random

DELAY, FREEZE, DECAY = 2.0, 5.0, 0.99
TIMING = np.array([DELAY, FREEZE, DECAY], np.float32)


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


def quantized_calls() -> list[Call]:
    """Small planes of many values, of which those that rounding decides are left out."""
    calls: list[Call] = []
    for seed in range(12):
        calls += [*point_calls((2, 2, 3, 5), seed), *quantized_norm_calls(random(seed, 2, 2, 5, 3), seed)]
        for kind in KINDS:
            calls += quantized_depthwise_calls(random(seed, 2, 2, 5, 4), seed, *kind)
    return calls
