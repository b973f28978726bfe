"""Optimizers as cells that a compiled step calls: reference semantics, decay groups, layer-wise rates.

Weight decay of rmsprop and sgd is L2 in the loss (added to the gradient), of adamw and lamb decoupled. Every optimizer
takes the learning rate as an argument; schedules are the step's business.
"""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from mindcv_mnasnet.recipe.training_keys import OptimizerKeys
from mindcv_mnasnet.train.tensor_lists import Kept, TensorList, for_each

add, sub, mul, div, sqrt = ops.Add(), ops.Sub(), ops.Mul(), ops.Div(), ops.Sqrt()
assign, assign_add, assign_sub = ops.Assign(), ops.AssignAdd(), ops.AssignSub()
_NORM_ENDINGS = (".gamma", ".beta")
_BIAS_ENDINGS = (*_NORM_ENDINGS, ".bias")


class Optimizer(nn.Cell):
    """Shared by all: parameters, their decays, and their shares of the learning rate (layer decay).

    ``kept`` are the shares of the old that the rule's moving averages keep, such as momentum; ``l2`` says that weight
    decay is part of the gradient. With ``by_row`` the rule updates one row that holds all parameters, which are set
    from it: some twenty operators in place of some for each, which is what NPUs want and CPUs do not.
    """

    l2 = True

    def __init__(
        self,
        kept: Sequence[float],
        parameters: Sequence[ms.Parameter],
        decays: Sequence[float],
        lr_shares: Sequence[float],
        by_row: bool = False,
    ):
        super().__init__(auto_prefix=False)
        self.by_row = by_row
        self.trained = TensorList(parameters, by_row, mirrored=by_row)
        self.decays, self.lr_shares = tuple(decays), tuple(lr_shares)
        self.kept = tuple(ms.Tensor(share, ms.float32) for share in kept)
        self.one = ms.Tensor(1.0, ms.float32)
        self.slots: tuple[ms.ParameterTuple, ...] = ()
        self.states: list[Kept] = []
        if by_row:
            self.decay, self.lr_share = self._factor("decays", decays), self._factor("lr_shares", lr_shares)
            self.decays_some = any(decays)
            self.scales_some = any(share != 1 for share in lr_shares)

    def _factor(self, name: str, values: Sequence[float]) -> float | ms.Parameter:
        """What to multiply the row by: one number where all are equal."""
        if len(set(values)) == 1:
            return values[0]
        sizes = [parameter.size for parameter in self.trained.parameters]
        return ms.Parameter(ms.Tensor(np.repeat(np.array(values, np.float32), sizes)), name, False)

    def slot(self, name: str, start: float = 0.0) -> ms.ParameterTuple:
        """One tensor per parameter, named ``optimizer.<name>.<parameter>`` in checkpoints."""
        self.states.append(Kept(f"optimizer.{name}", self.trained.parameters, start, self.by_row))
        return self.states[-1].parameters

    def construct(self, lr, step, gradients, applies=None):
        """Update all parameters; ``step`` counts from 0, ``gradients`` is a tuple of the layout of ``trained``.

        Where ``applies``, a bool scalar, is False, nothing changes and the gradients may hold anything: they count as
        0, moving averages keep everything, and the rate is 0.
        """
        moves, kept = self.one, self.kept
        if applies is not None:
            moves = applies.astype(ms.float32)
            kept = tuple([ops.where(applies, share, self.one) for share in kept])
        one = ops.partial(self.one_update, lr * moves, step, applies, moves, kept)
        if self.by_row:
            row, slots = self.trained.row, self.slots
            if len(slots) == 1:
                one(self.decay, self.lr_share, row, gradients[0], slots[0][0])
            else:
                one(self.decay, self.lr_share, row, gradients[0], slots[0][0], slots[1][0])
            self.trained(row.value())
        elif len(self.slots) == 1:
            for_each(one, self.decays, self.lr_shares, self.trained.parameters, gradients, self.slots[0])
        else:
            slots = self.slots
            for_each(one, self.decays, self.lr_shares, self.trained.parameters, gradients, slots[0], slots[1])
        return step

    def one_update(self, lr, step, applies, moves, kept, decay, lr_share, parameter, gradient, *slots):
        """Update one parameter, whose ``slots`` are what the rule keeps of it."""
        if self.l2 and self.decays_one(decay):
            gradient = add(gradient, mul(parameter, decay))
        if applies is not None:
            gradient = ops.where(applies, gradient, 0.0)
        if self.scales_one(lr_share):
            lr = mul(lr, lr_share)
        return self.update(parameter, gradient, slots, lr, decay, step, kept, moves)

    def decays_one(self, decay):
        """Whether there is anything to decay in a parameter, or in the row."""
        return self.decays_some if self.by_row else decay > 0

    def scales_one(self, lr_share):
        """Whether the rate of a parameter, or of some in the row, is not the common one."""
        return self.scales_some if self.by_row else lr_share != 1


class RMSProp(Optimizer):
    """TensorFlow's RMSProp, as the authors used it: epsilon inside the root, mean square from 1, lr in the momentum.

    Written out because MindSpore's fused operator adds epsilon outside the root on CPUs with AVX (seen in 2.10).
    """

    def __init__(self, recipe: OptimizerKeys, *groups):
        super().__init__((recipe.rmsprop_decay, recipe.momentum), *groups)
        self.mean_square, self.moment = self.slot("mean_square", 1.0), self.slot("momentum")
        self.slots = (self.mean_square, self.moment)
        self.eps = ms.Tensor(1e-3 if recipe.eps is None else recipe.eps, ms.float32)
        self.apply = ops.ApplyMomentum()

    def update(self, parameter, gradient, slots, lr, decay, step, kept, moves):
        mean_square, moment = slots
        difference = sub(mul(gradient, gradient), mean_square)
        mean_square = assign_add(mean_square, mul(difference, sub(self.one, kept[0])))
        change = div(mul(lr, gradient), sqrt(add(mean_square, self.eps)))
        return self.apply(parameter, moment, moves, change, kept[1])


class SGD(Optimizer):
    """Momentum SGD as in PyTorch; Nesterov's form on request.

    That form is written out because the fused operator leaves it away on the CPU (seen in MindSpore 2.10).
    """

    def __init__(self, recipe: OptimizerKeys, *groups):
        super().__init__((recipe.momentum,), *groups)
        self.moment = self.slot("momentum")
        self.slots = (self.moment,)
        self.nesterov = recipe.use_nesterov
        self.apply = ops.ApplyMomentum()

    def update(self, parameter, gradient, slots, lr, decay, step, kept, moves):
        (moment,) = slots
        if not self.nesterov:
            return self.apply(parameter, moment, lr, gradient, kept[0])
        moment = assign(moment, add(mul(kept[0], moment), gradient))
        return assign_sub(parameter, mul(lr, add(gradient, mul(kept[0], moment))))


class AdamW(Optimizer):
    """Adam with decoupled decay and bias correction (Loshchilov and Hutter 2019), as ``torch.optim.AdamW``."""

    l2 = False

    def __init__(self, recipe: OptimizerKeys, *groups):
        super().__init__(recipe.betas, *groups)
        self.first, self.second = self.slot("first_moment"), self.slot("second_moment")
        self.slots = (self.first, self.second)
        self.beta1, self.beta2 = recipe.betas
        self.eps = (1e-8 if recipe.opt == "adamw" else 1e-6) if recipe.eps is None else recipe.eps

    def direction(self, gradient, slots, step, kept):
        """Bias-corrected first moment over the root of the second."""
        count = (step + 1).astype(ms.float32)
        first, second = slots
        m = assign(first, add(mul(kept[0], first), mul(sub(self.one, kept[0]), gradient)))
        v = assign(second, add(mul(kept[1], second), mul(mul(sub(self.one, kept[1]), gradient), gradient)))
        m_hat = div(m, 1 - ops.pow(self.beta1, count))
        v_hat = div(v, 1 - ops.pow(self.beta2, count))
        return div(m_hat, add(sqrt(v_hat), self.eps))

    def update(self, parameter, gradient, slots, lr, decay, step, kept, moves):
        change = add(self.direction(gradient, slots, step, kept), mul(parameter, decay))
        return assign_sub(parameter, mul(lr, change))


class LAMB(AdamW):
    """AdamW's direction scaled per tensor by weight norm over update norm (You et al. 2020, algorithm 2).

    Tensors that are not decayed (norms, biases) keep the ratio 1, as timm does.
    """

    def __init__(self, recipe: OptimizerKeys, *groups):
        super().__init__(recipe, *groups)
        if self.by_row:
            sizes = [parameter.size for parameter in self.trained.parameters]
            owners = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
            self.owners = ms.Parameter(ms.Tensor(owners), "owners", False)

    def update(self, parameter, gradient, slots, lr, decay, step, kept, moves):
        change = add(self.direction(gradient, slots, step, kept), mul(parameter, decay))
        if self.by_row:
            if self.decays_some:
                ratios = _trust_ratios(self.norms(parameter), self.norms(change))
                change = mul(change, ops.Gather()(ratios, self.owners, 0))
        elif decay > 0:
            change = mul(change, _trust_ratios(_norm(parameter), _norm(change)))
        return assign_sub(parameter, mul(lr, change))

    def norms(self, row):
        """The norm of each decayed tensor in a row, 0 for the others; float32 (tensors,)."""
        return sqrt(ops.Stack()(for_each(_sum_decayed, self.decays, self.trained.split(ops.Square()(row)))))


def _norm(x):
    return ops.sqrt(ops.sum(ops.square(x)))


def _sum_decayed(decay, squares):
    return ops.ReduceSum()(squares) if decay > 0 else _ZERO


def _trust_ratios(weight_norms, change_norms):
    """Norms of weights over norms of their changes; 1 where one of them is 0."""
    both = ops.logical_and(weight_norms > 0, change_norms > 0)
    ratios = div(weight_norms, add(change_norms, 1e-30))
    return ops.select(both, ratios, ops.ones_like(weight_norms))


_ZERO = ms.Tensor(0.0, ms.float32)
_OPTIMIZERS = {"rmsprop": RMSProp, "sgd": SGD, "momentum": SGD, "adamw": AdamW, "lamb": LAMB}


def create_optimizer(
    recipe: OptimizerKeys, parameters: Sequence[ms.Parameter], depths: dict[str, int], by_row: bool = False
) -> Optimizer:
    """The recipe's optimizer over ``parameters``.

    ``depths`` gives each parameter's distance from the classifier in stages, for ``layer_decay``.
    """
    spared = {"disable": (), "norm": _NORM_ENDINGS, "auto": _NORM_ENDINGS}.get(
        recipe.weight_decay_filter, _BIAS_ENDINGS
    )
    decays = [0.0 if p.name.endswith(spared) else recipe.weight_decay for p in parameters]
    share = 1.0 if recipe.layer_decay is None else recipe.layer_decay
    return _OPTIMIZERS[recipe.opt](recipe, parameters, decays, [share ** depths[p.name] for p in parameters], by_row)
