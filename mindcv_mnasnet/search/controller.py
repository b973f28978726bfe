"""The paper's controller: an LSTM that writes a network decision by decision, trained by PPO, in MindSpore.

As NASNet's, which the paper reuses (Zoph et al. 2018, appendix A.1 and Bello et al. 2017): one layer of 100 units,
weights from +-0.1, one softmax per decision, Adam at 3.5e-4, an entropy bonus of 1e-5, rewards against an exponential
moving average of 0.95, 20 networks per update. PPO's clip (0.2) and passes (2 per generation) are published nowhere
and are ours, as is dividing advantages by their deviation. A generation whose rewards are all alike, such as one that
was lost to a full disk, teaches nothing: its advantages would be huge and would spoil Adam's moments for long.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from mindcv_mnasnet.devices import runtime
from mindcv_mnasnet.search.decisions import Decisions, Tokens
from mindcv_mnasnet.search.strategy import Accept, Arrays, Outcome, draw, generator
from mindcv_mnasnet.train.tensor_lists import zeros_like

UNITS = 100
LEARNING_RATE = 3.5e-4
ENTROPY_BONUS = 1e-5
BASELINE_DECAY = 0.95
INITIAL_WEIGHTS = 0.1
CLIP = 0.2
PASSES = 2
BATCH = 20  # rows per call of the compiled graphs; other numbers of networks are filled up
LEAST_DEVIATION = 1e-5  # of a generation's rewards; below it they are alike
MOST_ADVANTAGE = 10.0  # in deviations
_NEVER = -1e9
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


class Policy(nn.Cell):
    """Log-probabilities of token rows, decision by decision.

    Every decision has an embedding of its own for what was chosen, which is the next one's input, and a softmax of its
    own over its choices; ``mask`` (decisions, most choices) is 0 for choices there are and very negative for others.
    """

    def __init__(self, mask: np.ndarray, rng: np.random.Generator):
        super().__init__(auto_prefix=False)
        length, most = mask.shape
        self.length, self.most = length, most

        def weights(name: str, *shape: int) -> ms.Parameter:
            values = rng.uniform(-INITIAL_WEIGHTS, INITIAL_WEIGHTS, shape).astype(np.float32)
            return ms.Parameter(ms.Tensor(values), name)

        self.start = weights("start", 1, UNITS)
        self.embedding = weights("embedding", length, most, UNITS)
        self.kernel = weights("kernel", 2 * UNITS, 4 * UNITS)
        self.bias = ms.Parameter(ms.Tensor(np.zeros(4 * UNITS, np.float32)), "bias")
        self.softmax = weights("softmax", length, UNITS, most)
        self.mask = ms.Tensor(mask)

    def step(self, x, hidden, memory):
        """One step of the LSTM; gates in the order input, forget, candidate, output."""
        gates = ops.matmul(ops.cat((x, hidden), 1), self.kernel) + self.bias
        entry, forget, candidate, leave = ops.split(gates, UNITS, 1)
        memory = ops.sigmoid(forget) * memory + ops.sigmoid(entry) * ops.tanh(candidate)
        return ops.sigmoid(leave) * ops.tanh(memory), memory

    def construct(self, choice, noise):
        """One-hot choices (rows, decisions, most) and log-probabilities of all choices, of the same shape.

        ``choice`` are the one-hot choices to follow; with ``noise`` (Gumbel noise of that shape) new ones are drawn.
        """
        rows = choice.shape[0] if noise is None else noise.shape[0]
        x = ops.tile(self.start, (rows, 1))
        hidden = ops.zeros((rows, UNITS), ms.float32)
        memory = hidden
        chosen: Any = ()
        logs: Any = ()
        for index in range(self.length):
            hidden, memory = self.step(x, hidden, memory)
            scores = ops.log_softmax(ops.matmul(hidden, self.softmax[index]) + self.mask[index], 1)
            if noise is None:
                one = choice[:, index]
            else:
                one = ops.one_hot(ops.argmax(scores + noise[:, index], 1), self.most, 1.0, 0.0)
            x = ops.matmul(one, self.embedding[index])
            chosen = (*chosen, one)
            logs = (*logs, scores)
        return ops.stack(chosen, 1), ops.stack(logs, 1)


class Sampler(nn.Cell):
    """Gumbel noise (rows, decisions, most) to tokens, int32 (rows, decisions)."""

    def __init__(self, policy: Policy):
        super().__init__(auto_prefix=False)
        self.policy = policy

    def construct(self, noise):
        chosen, _ = self.policy(None, noise)
        return ops.argmax(chosen, 2)


class Likelihood(nn.Cell):
    """One-hot choices (rows, decisions, most) to their log-probabilities (rows, decisions)."""

    def __init__(self, policy: Policy):
        super().__init__(auto_prefix=False)
        self.policy = policy

    def construct(self, chosen):
        _, logs = self.policy(chosen, None)
        return ops.sum(chosen * logs, 2)


class Update(nn.Cell):
    """A step of PPO on a batch of networks, by Adam."""

    def __init__(self, policy: Policy):
        super().__init__(auto_prefix=False)
        self.policy = policy
        self.weights = ms.ParameterTuple(policy.trainable_params())
        self.first, self.second = zeros_like("first", self.weights), zeros_like("second", self.weights)
        self.gradient = ops.value_and_grad(self.loss, None, self.weights)

    def loss(self, chosen, old, advantage, weight):
        """Clipped surrogate of every decision, less the entropy bonus.

        ``old`` (rows, decisions) are log-probabilities before the generation's first step; ``weight`` (rows,) is 0 for
        filling rows.
        """
        _, logs = self.policy(chosen, None)
        ratio = ops.exp(ops.sum(chosen * logs, 2) - old)
        gain = advantage.reshape(-1, 1)
        objective = ops.minimum(ratio * gain, ops.clamp(ratio, 1 - CLIP, 1 + CLIP) * gain)
        entropy = -ops.sum(ops.exp(logs) * ops.maximum(logs, -100.0), 2)
        return -ops.sum((objective + ENTROPY_BONUS * entropy) * weight.reshape(-1, 1)) / ops.sum(weight)

    def construct(self, chosen, old, advantage, weight, count):
        """The loss before the step; ``count`` float32 (1,) is the number of this step, from 1."""
        loss, gradients = self.gradient(chosen, old, advantage, weight)
        rate = LEARNING_RATE * ops.sqrt(1 - _BETA2**count) / (1 - _BETA1**count)
        for index in range(len(self.weights)):
            first = self.first[index] * _BETA1 + gradients[index] * (1 - _BETA1)
            second = self.second[index] * _BETA2 + ops.square(gradients[index]) * (1 - _BETA2)
            ops.assign(self.first[index], first)
            ops.assign(self.second[index], second)
            ops.assign_sub(self.weights[index], rate * first / (ops.sqrt(second) + _EPSILON))
        return loss


class Controller:
    """The controller as a ``strategies.Strategy``."""

    def __init__(self, space: Decisions, seed: int):
        runtime.start("CPU")
        self._space, self._seed = space, seed
        most = 1 + max(max(one) for one in space.allowed)
        mask = np.full((space.length, most), _NEVER, np.float32)
        for index, allowed in enumerate(space.allowed):
            mask[index, list(allowed)] = 0
        self._policy = Policy(mask, np.random.default_rng([seed, 2**31]))
        self._sampler, self._update = Sampler(self._policy), Update(self._policy)
        self._likelihood = Likelihood(self._policy)
        self._steps, self._baseline = 0, float("nan")

    def ask(self, generation: int, count: int, accept: Accept | None = None) -> list[Tokens]:
        """See ``strategies.Strategy``."""
        drawn = self._drawn(generator(self._seed, generation))
        return [draw(lambda: next(drawn), accept) for _ in range(count)]

    def _drawn(self, rng: np.random.Generator) -> Iterator[Tokens]:
        """Networks as the policy draws them, without end."""
        while True:
            noise = rng.gumbel(size=(BATCH, self._space.length, self._policy.most)).astype(np.float32)
            for row in self._sampler(ms.Tensor(noise)).asnumpy():
                yield tuple(int(token) for token in row)

    def tell(self, generation: int, outcomes: Sequence[Outcome]) -> None:
        """See ``strategies.Strategy``; a network that diverged counts with its reward of 0."""
        outcomes = [one for one in outcomes if one.informative]
        rewards = np.array([one.reward for one in outcomes])
        if len(rewards) < 2 or rewards.std() < LEAST_DEVIATION:
            return
        mean, deviation = float(rewards.mean()), float(rewards.std())
        if np.isnan(self._baseline):
            self._baseline = mean
        advantage = np.clip((rewards - self._baseline) / deviation, -MOST_ADVANTAGE, MOST_ADVANTAGE)
        self._baseline = BASELINE_DECAY * self._baseline + (1 - BASELINE_DECAY) * mean
        chosen = np.eye(self._policy.most, dtype=np.float32)[np.array([one.tokens for one in outcomes])]
        batches = []
        for start in range(0, len(outcomes), BATCH):
            part = slice(start, start + BATCH)
            rows = ms.Tensor(_filled(chosen[part]))
            gain = ms.Tensor(_filled(advantage[part].astype(np.float32)))
            weight = ms.Tensor(_filled(np.ones(len(chosen[part]), np.float32)))
            batches.append((rows, ms.Tensor(self._likelihood(rows).asnumpy()), gain, weight))
        for batch in PASSES * batches:
            self._steps += 1
            self._update(*batch, ms.Tensor(np.array([self._steps], np.float32)))

    def state(self) -> Arrays:
        """See ``strategies.Strategy``."""
        parameters = (*self._update.weights, *self._update.first, *self._update.second)
        found = {p.name: p.asnumpy().copy() for p in parameters}
        return {**found, "steps": np.array(self._steps), "baseline": np.array(self._baseline)}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """See ``strategies.Strategy``."""
        for parameter in (*self._update.weights, *self._update.first, *self._update.second):
            parameter.set_data(ms.Tensor(np.array(state[parameter.name])))
        self._steps, self._baseline = int(state["steps"]), float(state["baseline"])


def _filled(rows: np.ndarray) -> np.ndarray:
    """The rows, and rows of zeros up to a whole batch."""
    missing = BATCH - len(rows)
    return np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)]) if missing else rows
