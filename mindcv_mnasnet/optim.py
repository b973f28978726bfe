"""Optimisers as cells that a compiled step calls: reference semantics, decay groups, layer-wise rates.

Weight decay of rmsprop and sgd is L2 in the loss (added to the gradient), of adamw and lamb decoupled. Every optimiser
takes the learning rate as an argument; schedules are the step's business.
"""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import nn, ops

from mindcv_mnasnet.recipe import Recipe

_NORM_ENDINGS = (".gamma", ".beta")
_BIAS_ENDINGS = (*_NORM_ENDINGS, ".bias")


class Optimiser(nn.Cell):
    """Shared by all: parameters, their decays, and their shares of the learning rate (layer decay).

    ``kept`` are the shares of the old that the rule's moving averages keep, such as momentum; ``l2`` says that weight
    decay is part of the gradient.
    """

    l2 = True

    def __init__(
        self,
        kept: Sequence[float],
        parameters: Sequence[ms.Parameter],
        decays: Sequence[float],
        lr_shares: Sequence[float],
    ):
        super().__init__(auto_prefix=False)
        self.parameters = ms.ParameterTuple(parameters)
        self.decays = tuple(decays)
        self.lr_shares = tuple(lr_shares)
        self.kept = tuple(ms.Tensor(share, ms.float32) for share in kept)
        self.one = ms.Tensor(1.0, ms.float32)

    def slot(self, name: str, init: str = "zeros") -> ms.ParameterTuple:
        """One tensor per parameter, named ``optimiser.<name>.<parameter>``."""
        value = float(init == "ones")
        return ms.ParameterTuple(
            ms.Parameter(ops.full(p.shape, value, dtype=ms.float32), f"optimiser.{name}.{p.name}", False)
            for p in self.parameters
        )

    def construct(self, lr, step, gradients, applies=None):
        """Update all parameters; ``step`` counts from 0.

        Where ``applies``, a bool scalar, is False, nothing changes and the gradients may hold anything: they count as
        0, moving averages keep everything, and the rate is 0.
        """
        moves, kept = self.one, self.kept
        if applies is not None:
            moves = applies.astype(ms.float32)
            kept = tuple([ops.where(applies, share, self.one) for share in kept])
        for index, parameter in enumerate(self.parameters):
            gradient = gradients[index]
            if self.l2 and self.decays[index] > 0:
                gradient = gradient + self.decays[index] * parameter
            if applies is not None:
                gradient = ops.where(applies, gradient, 0.0)
            self.update(index, parameter, gradient, lr * moves * self.lr_shares[index], step, kept, moves)
        return step


class RMSProp(Optimiser):
    """TensorFlow's RMSProp, as the authors used it: epsilon inside the root, mean square from 1, lr in the momentum.

    Written out because MindSpore's fused operator adds epsilon outside the root on CPUs with AVX (seen in 2.10).
    """

    def __init__(self, recipe: Recipe, *groups):
        super().__init__((recipe.rmsprop_decay, recipe.momentum), *groups)
        self.mean_square = self.slot("mean_square", "ones")
        self.moment = self.slot("momentum")
        self.eps = 1e-3 if recipe.eps is None else recipe.eps
        self.apply = ops.ApplyMomentum()

    def update(self, index, parameter, gradient, lr, step, kept, moves):
        mean_square = self.mean_square[index]
        mean_square = ops.assign_add(mean_square, (gradient * gradient - mean_square) * (1 - kept[0]))
        change = lr * gradient / ops.sqrt(mean_square + self.eps)
        self.apply(parameter, self.moment[index], moves, change, kept[1])


class SGD(Optimiser):
    """Momentum SGD as in PyTorch; Nesterov's form on request.

    That form is written out because the fused operator leaves it away on the CPU (seen in MindSpore 2.10).
    """

    def __init__(self, recipe: Recipe, *groups):
        super().__init__((recipe.momentum,), *groups)
        self.moment = self.slot("momentum")
        self.nesterov = recipe.use_nesterov
        self.apply = ops.ApplyMomentum()

    def update(self, index, parameter, gradient, lr, step, kept, moves):
        moment = self.moment[index]
        if self.nesterov:
            moment = ops.assign(moment, kept[0] * moment + gradient)
            ops.assign_sub(parameter, lr * (gradient + kept[0] * moment))
        else:
            self.apply(parameter, moment, lr, gradient, kept[0])


class AdamW(Optimiser):
    """Adam with decoupled decay and bias correction (Loshchilov and Hutter 2019), as ``torch.optim.AdamW``."""

    l2 = False

    def __init__(self, recipe: Recipe, *groups):
        super().__init__(recipe.betas, *groups)
        self.first, self.second = self.slot("first_moment"), self.slot("second_moment")
        self.beta1, self.beta2 = recipe.betas
        self.eps = (1e-8 if recipe.opt == "adamw" else 1e-6) if recipe.eps is None else recipe.eps

    def direction(self, index, gradient, step, kept):
        """Bias-corrected first moment over the root of the second."""
        count = (step + 1).astype(ms.float32)
        first, second = self.first[index], self.second[index]
        m = ops.assign(first, kept[0] * first + (1 - kept[0]) * gradient)
        v = ops.assign(second, kept[1] * second + (1 - kept[1]) * gradient * gradient)
        m_hat = m / (1 - ops.pow(self.beta1, count))
        v_hat = v / (1 - ops.pow(self.beta2, count))
        return m_hat / (ops.sqrt(v_hat) + self.eps)

    def update(self, index, parameter, gradient, lr, step, kept, moves):
        change = self.direction(index, gradient, step, kept) + self.decays[index] * parameter
        ops.assign_sub(parameter, lr * change)


class LAMB(AdamW):
    """AdamW's direction scaled per tensor by weight norm over update norm (You et al. 2020, algorithm 2).

    Tensors that are not decayed (norms, biases) keep the ratio 1, as timm does.
    """

    def update(self, index, parameter, gradient, lr, step, kept, moves):
        change = self.direction(index, gradient, step, kept) + self.decays[index] * parameter
        if self.decays[index] > 0:
            weight_norm, change_norm = _norm(parameter), _norm(change)
            both = ops.logical_and(weight_norm > 0, change_norm > 0)
            change = change * ops.select(both, weight_norm / (change_norm + 1e-30), ops.ones_like(weight_norm))
        ops.assign_sub(parameter, lr * change)


def _norm(x):
    return ops.sqrt(ops.sum(ops.square(x)))


_OPTIMISERS = {"rmsprop": RMSProp, "sgd": SGD, "momentum": SGD, "adamw": AdamW, "lamb": LAMB}


def create_optimiser(recipe: Recipe, parameters: Sequence[ms.Parameter], depths: dict[str, int]) -> Optimiser:
    """The recipe's optimiser over ``parameters``.

    ``depths`` gives each parameter's distance from the classifier in stages, for ``layer_decay``.
    """
    spared = {"disable": (), "norm": _NORM_ENDINGS, "auto": _NORM_ENDINGS}.get(
        recipe.weight_decay_filter, _BIAS_ENDINGS
    )
    decays = [0.0 if p.name.endswith(spared) else recipe.weight_decay for p in parameters]
    share = 1.0 if recipe.layer_decay is None else recipe.layer_decay
    return _OPTIMISERS[recipe.opt](recipe, parameters, decays, [share ** depths[p.name] for p in parameters])
