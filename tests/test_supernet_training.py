"""A supernet's training: its steps and rates, a resume, and the ranking of candidates by the weights."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from supernets import (
    BATCH,
    CANDIDATES,
    CHOICES,
    CHOSEN,
    CLASSES,
    SIZE,
    SMALL,
    inherited,
    net,
    places_of,
    used,
    values,
    values_of,
)

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.model.create import create_model
from mindcv_mnasnet.model.parameters import load_parameters
from mindcv_mnasnet.search.supernet.choices import Choices
from mindcv_mnasnet.search.supernet.network import SuperNetwork
from mindcv_mnasnet.search.supernet.ranking import Ranker
from mindcv_mnasnet.search.supernet.training import SuperTrainer, SuperTraining
from mindcv_mnasnet.weights.name_maps import shapes

EPOCHS = 14
PIXELS = ([127.5] * 3, [64.0] * 3)


def labeled_images(count, seed=0):
    """Noise whose class is the brighter one of three colors, or none."""
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(0, 160, (count, SIZE, SIZE, 3), np.uint8), rng.integers(0, CLASSES, count)
    for image, label in zip(images, labels, strict=True):
        image[..., label:][..., :1] += 95
    return images, labels.astype(np.int32)


def batches(epoch):
    return [labeled_images(BATCH, 100 * epoch + index) for index in range(10)]


CALIBRATION = [batch for batch, _ in batches(0)][:3]


def trainer(supernet, checkpoint=None, resume=False, **keys):
    training = SuperTraining(**{"epochs": EPOCHS, "warmup_epochs": 0.5, "lr": 0.15, **keys})
    return SuperTrainer(supernet, batches, training, *PIXELS, checkpoint, resume)


@dataclass
class Trained:
    """A finished training: its trainer, the file that it wrote, the file as it was before the last two epochs."""

    trainer: SuperTrainer
    path: Path
    earlier: Path


@pytest.fixture(scope="module")
def finished(cpu, tmp_path_factory):
    folder = tmp_path_factory.mktemp("supernet")
    path, earlier = folder / "supernet.safetensors", folder / "earlier.safetensors"

    def keep(epoch, loss):
        if epoch == EPOCHS - 2:
            shutil.copy(path, earlier)

    one = trainer(SuperNetwork(CHOICES), checkpoint=path)
    one.run(keep)
    return Trained(one, path, earlier)


@pytest.fixture
def trained(finished):
    """The same for every test, whatever it does to weights and moments."""
    before = values(finished.trainer.supernet), values_of(finished.trainer.update.moments)
    yield finished
    load_parameters(finished.trainer.supernet.get_parameters(), before[0], "the training")
    load_parameters(finished.trainer.update.moments, before[1], "the training")


@pytest.fixture(scope="module")
def ranker(finished):
    return Ranker(finished.trainer.supernet, *PIXELS, CALIBRATION, *labeled_images(21, seed=9))


def take_step(run, networks, rate=0.1):
    """The gradients of a step, which is taken."""
    images, labels = labeled_images(BATCH)
    run.supernet.set_train()
    for network in networks:
        run.step(ms.Tensor(images), ms.Tensor(labels), *run.supernet.masks(network))
    gradients = values_of(run.step.summed)
    run.update(ms.Tensor(rate, ms.float32))
    return gradients


def test_a_step_moves_what_it_uses_and_nothing_else(trained):
    run = trained.trainer
    before, moments = values(run.supernet), values_of(run.update.moments)
    take_step(run, [CHOSEN])
    pushed = values_of(run.update.moments)
    rename = places_of(CHOSEN)
    own = {rename(name): shape for name, shape in shapes(CHOSEN).items()}
    for parameter in run.step.weights:
        name = parameter.name
        changed = (parameter.asnumpy() != before[name]) | (pushed[f"momentum.{name}"] != moments[f"momentum.{name}"])
        allowed = np.zeros(changed.shape, bool)
        if name in own:
            allowed[used(changed.shape, own[name])] = True
            assert changed.any() or ".se." in name, name  # the one squeezed unit may be dead
        assert not (changed & ~allowed).any(), name


def test_an_update_is_nesterovs_of_the_summed_gradients(trained):
    run, name = trained.trainer, "classifier.weight"
    weight, moment = values(run.supernet)[name], values_of(run.update.moments)[f"momentum.{name}"]
    gradient = take_step(run, [CHOICES.largest, CHOICES.smallest])[f"summed.{name}"] + 4e-5 * weight
    moment = 0.9 * moment + gradient
    expected = weight - 0.1 * (gradient + 0.9 * moment)
    np.testing.assert_allclose(values(run.supernet)[name], expected, rtol=1e-5, atol=1e-7)
    assert not any(one.any() for one in values_of(run.step.summed).values())


def test_a_sandwich_takes_the_whole_rate(monkeypatch):
    """The rule sums gradients of its three networks, and does not divide the rate by three."""
    run, rates = trainer(SuperNetwork(CHOICES), sandwich=True), []
    monkeypatch.setattr(run, "step", lambda *_: ms.Tensor(1.0))
    monkeypatch.setattr(run, "update", lambda rate: rates.append(float(rate.asnumpy())))
    run._epoch(0)
    np.testing.assert_allclose(rates, [run.training.rate((index + 1) / 11) for index in range(10)], rtol=1e-6)


def test_candidates_of_a_step_depend_on_seed_and_step_alone():
    single, sandwich = SuperTraining(5), SuperTraining(5, sandwich=True)
    assert single.candidates(CHOICES, 3) == single.candidates(CHOICES, 3)
    drawn = [single.candidates(CHOICES, step)[0] for step in range(20)]
    assert len(set(drawn)) > 15
    assert sandwich.candidates(CHOICES, 3) == [CHOICES.largest, CHOICES.smallest, drawn[3]]
    assert SuperTraining(5, seed=1).candidates(CHOICES, 3) != [drawn[3]]


def test_rates_rise_in_warm_up_and_fall_as_a_cosine():
    training = SuperTraining(11, lr=0.4, warmup_epochs=1.0)
    rates = [training.rate(epochs) for epochs in (0.5, 1, 6, 11)]
    np.testing.assert_allclose(rates, [0.2, 0.4, 0.2, 0], atol=1e-12)


def test_training_lowers_the_loss_and_raises_accuracies(trained, ranker):
    losses = trained.trainer.losses
    assert len(losses) == EPOCHS
    assert losses[-1] < 0.85 * losses[0]
    assert ranker.accuracy(CHOICES.largest) > 0.5  # of four classes


def test_a_resume_gives_the_same_bits(trained):
    heard = []
    resumed = trainer(SuperNetwork(CHOICES, seed=5), checkpoint=trained.earlier, resume=True)
    assert resumed.run(lambda epoch, loss: heard.append(epoch)) == trained.trainer.losses
    assert heard == [EPOCHS - 1, EPOCHS]
    assert trained.earlier.read_bytes() == trained.path.read_bytes()


def test_a_resume_refuses_what_was_trained_otherwise(trained, tmp_path):
    path = trained.path
    with pytest.raises(UserError, match="there already"):
        trainer(SuperNetwork(CHOICES), checkpoint=path)
    with pytest.raises(UserError, match="other training"):
        trainer(SuperNetwork(CHOICES), checkpoint=path, resume=True, lr=0.07)
    with pytest.raises(UserError, match="other choices"):
        trainer(SuperNetwork(Choices.of([net(SMALL)])), checkpoint=path, resume=True)
    with pytest.raises(UserError, match="no checkpoint"):
        trainer(SuperNetwork(CHOICES), checkpoint=tmp_path / "none", resume=True)
    with pytest.raises(UserError, match="above warmup_epochs"):
        trainer(SuperNetwork(CHOICES), epochs=1, warmup_epochs=1.0)


def test_a_ranking_compiles_two_graphs_for_all_candidates(trained, ranker):
    first = ranker.accuracy(CHOSEN)
    compiled, cell = set(ranker.forward.compile_cache), ranker.forward
    assert len(compiled) == 2
    for network in CANDIDATES.values():
        assert 0 <= ranker.accuracy(network) <= 1
    assert ranker.forward is cell
    assert set(cell.compile_cache) == compiled
    assert ranker.accuracy(CHOSEN) == first, "an accuracy does not depend on what was ranked before"


def test_an_accuracy_is_that_of_the_network_alone_with_its_own_statistics(trained, ranker):
    images, labels = labeled_images(21, seed=9)
    found = ranker.accuracy(CHOSEN)
    alone = create_model(replace(CHOSEN, bn_momentum=0.0))
    load_parameters(alone.get_parameters(), inherited(trained.trainer.supernet, CHOSEN), "the supernet")

    def prepare(batch):
        return ms.Tensor(((batch.astype(np.float32) - PIXELS[0]) / PIXELS[1]).transpose(0, 3, 1, 2).astype(np.float32))

    alone.set_train(False)
    assert found == float((alone(prepare(images)).asnumpy().argmax(1) == labels).mean())
    ranked, taken = values(alone), []
    alone.set_train()
    for batch in CALIBRATION:
        alone(prepare(batch)).asnumpy()
        taken.append(values(alone))
    for name, value in ranked.items():
        if "moving" in name:
            np.testing.assert_allclose(value, np.mean([one[name] for one in taken], 0), rtol=1e-4, atol=1e-5)


def test_a_ranking_needs_images(trained):
    images, labels = labeled_images(4)
    with pytest.raises(UserError, match="calibration"):
        Ranker(trained.trainer.supernet, *PIXELS, [], images, labels)
    with pytest.raises(UserError, match="as many labels"):
        Ranker(trained.trainer.supernet, *PIXELS, [images], images, labels[:3])
