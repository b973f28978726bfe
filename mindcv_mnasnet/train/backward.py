"""Loss, counts and gradients of one batch, as a compiled step takes them."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import nn, ops

from mindcv_mnasnet.model.mnasnet import MnasNet
from mindcv_mnasnet.model.quantization import PREFIXES
from mindcv_mnasnet.recipe.recipe import Recipe
from mindcv_mnasnet.recipe.training_keys import OptimizerKeys
from mindcv_mnasnet.train.objective import objective_of
from mindcv_mnasnet.train.preprocess import EraseAndMix, Preprocess
from mindcv_mnasnet.train.random_inputs import RandomLayout
from mindcv_mnasnet.train.tensor_lists import TensorList, all_finite, for_each

STATISTICS = (".moving_mean", ".moving_variance")


def skips_overflow(keys: OptimizerKeys) -> bool:
    """Whether a step whose gradients are not finite is left out."""
    return keys.loss_scale_type != "fixed" or keys.drop_overflow_update


class Backward(nn.Cell):
    """Loss and gradients of one batch; the loss is scaled inside and the gradients are unscaled again.

    ``trained`` is what gradients move, ``by_row`` or not; ``statistics`` is what a forward pass changes, or None.
    """

    def __init__(
        self, recipe: Recipe, model: MnasNet, layout: RandomLayout, loss_scale: ms.Parameter, trained: TensorList
    ):
        super().__init__(auto_prefix=False)
        self.model, self.layout, self.loss_scale = model, layout, loss_scale
        self.preprocess = Preprocess(*recipe.pixel_statistics())
        self.erase_and_mix = EraseAndMix(layout, float(recipe.re_value)) if layout.mixes or layout.erases else None
        self.objective: Any = objective_of(recipe, model, layout)
        self.weights, self.trained = trained.parameters, trained
        statistics = moving_statistics(model)
        self.guards = skips_overflow(recipe) and bool(statistics)
        mirrored = trained.by_row and self.guards
        self.statistics: Any = TensorList(statistics, by_row=True, mirrored=mirrored) if statistics else None
        # Without half precision a fixed scale is nothing but two roundings, and compiling it takes seconds.
        self.scales = recipe.amp_level != "O0" or skips_overflow(recipe)
        self.gradient = ops.value_and_grad(self.forward, None, self.weights, has_aux=True)

    def forward(self, images, labels, random_inputs):
        images = self.preprocess(images)
        if self.erase_and_mix is not None:
            images = self.erase_and_mix(images, random_inputs)
        answer = self.model(images, None if random_inputs is None else random_inputs[:, self.layout.erase_end :])
        loss, details = self.objective(answer, labels, random_inputs)
        return loss * self.loss_scale if self.scales else loss, (loss, details)

    def construct(self, images, labels, random_inputs):
        """(loss, counts, gradients, statistics) of a batch.

        counts is what the task's ``objective`` sums up. gradients is a tuple of the layout of ``trained``. statistics
        is a row that the caller hands to ``set_statistics``: where overflows are skipped those of a batch that
        overflows are forgotten; else None.
        """
        before = self.statistics_before() if self.guards else None
        (_, (loss, details)), gradients = self.gradient(images, labels, random_inputs)
        gradients = self.trained.join(gradients)
        statistics = None
        if self.guards:
            statistics = ops.where(all_finite(gradients), self.statistics.values()[0], before)
        if self.scales:
            gradients = for_each(ops.partial(ops.Mul(), 1 / self.loss_scale.value()), gradients)
        return loss, self.objective.counts(loss, details, labels), gradients, statistics

    def statistics_before(self):
        """A row of the statistics as the last step left them."""
        return self.statistics.values()[0] if self.statistics.row is None else self.statistics.row.value()

    def set_statistics(self, row):
        """Set the statistics, and what is kept of them, from a row."""
        self.statistics(row)
        if self.statistics.row is not None:
            ops.assign(self.statistics.row, row)
        return row


def moving_statistics(model: MnasNet) -> list[ms.Parameter]:
    """What a forward pass in training changes: statistics of batch norms, observed ranges of activations.

    Those of frozen parts are left out: they do not change, and a mean over ranks would round them.
    """
    parameters = list(model.get_parameters())
    trained = {p.name for p in parameters if p.requires_grad}
    fixed = {p.name for p in parameters} - trained

    def frozen(owner: str) -> bool:
        inside = f"{owner}."
        own = [name for name in fixed if name.startswith(inside) and not name.endswith(STATISTICS)]
        return bool(own) and not any(name.startswith(inside) for name in trained)

    found = []
    for parameter in parameters:
        group, _, owner = parameter.name.partition(".")
        if parameter.name.endswith(STATISTICS):
            owner = parameter.name.rpartition(".")[0]
        elif f"{group}." not in PREFIXES:
            continue
        if not frozen(owner):
            found.append(parameter)
    return found
