"""Networks as cells: parameters, initial weights, feature maps, freezing."""

import itertools

import mindspore as ms
import numpy as np
import pytest
import tiny
from mindspore import nn

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.model.create import create_model
from mindcv_mnasnet.model.mnasnet import MnasNet
from mindcv_mnasnet.model.parameters import freeze, load_parameters
from mindcv_mnasnet.networks.cost import network_cost
from mindcv_mnasnet.networks.network import FAMILIES, resolve

pytestmark = pytest.mark.usefixtures("cpu")


def images(*shape: int) -> ms.Tensor:
    return tiny.tensor(tiny.normal(*shape))


def trainable(model: nn.Cell) -> int:
    return sum(parameter.size for parameter in model.trainable_params())


# --- sizes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"num_clases": 3}, "no field 'num_clases'; the nearest are num_classes"),
        ({"in_chans": 1}, "in_channels"),
        ({"drop_path_rate": 0.1}, "drop_connect"),
        ({"out_indices": (1, 2)}, "features_only"),
        ({"global_pool": "avg"}, "features_only"),
        ({"checkpoint_path": "x.pth"}, "open_classifier"),
        ({"model_name": "mnasnet_small"}, "model_name of timm and MindCV is model here"),
        ({"num_classes": 0}, "num_classes is 0.*features_only"),
        ({"num_classes": 2.5}, "num_classes is 2.5"),
        ({"seed": -1}, "seed is -1, but must be a whole number from 0"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"blocks": "r1_k2"}, "block 'r1_k2'"),
    ],
)
@pytest.mark.parametrize("model", ["mnasnet_small", tiny.network()])
def test_what_no_network_has_is_one_sentence_with_a_way_out(model, keys, said):
    with pytest.raises(UserError, match=said) as refused:
        create_model(model, **keys)
    assert len(str(refused.value)) < 160


def test_the_first_argument_given_by_another_word_is_no_field():
    with pytest.raises(UserError, match="no field 'name'"):
        create_model("mnasnet_small", name="mnasnet_small")


def test_other_blocks_of_a_description_are_read_as_those_of_a_name():
    model = create_model(resolve("mnasnet_small"), blocks="r1_k3_s11_e1_o8")
    assert model.network == resolve("mnasnet_small", blocks="r1_k3_s11_e1_o8")
    with pytest.raises(UserError, match="unknown model"):
        create_model(["mnasnet_small"])


@pytest.mark.parametrize("width", [None, 0.35, 0.5, 0.75, 1.0, 1.3, 1.4])
@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_those_of_the_cost_layer_by_layer(family, width):
    network = resolve(family, width_mult=width, num_classes=10)
    model, cost = MnasNet(network), network_cost(network)
    assert trainable(model) == cost.params
    assert sum(parameter.size for parameter in model.get_parameters()) == cost.params_with_bn
    sizes = {name: parameter.size for name, parameter in model.parameters_and_names()}
    for layer in cost.layers:
        own = sum(size for name, size in sizes.items() if name.startswith(layer.name + "."))
        assert own == layer.params + layer.bn_statistics, layer.name


# Counted on the models of timm, torchvision, MindCV and the authors' graph.
@pytest.mark.parametrize(
    ("name", "params", "with_statistics"),
    [
        ("mnasnet-a1", 3_887_038, 3_920_526),
        ("mnasnet_100", 4_383_312, 4_421_232),
        ("mnasnet_small", 2_030_264, 2_047_192),
        ("mnasnet0_5", 2_218_512, 2_239_136),
        ("mnasnet_075", 3_170_208, 3_200_016),
        ("mnasnet-d1", 3_638_404, 3_686_428),
    ],
)
def test_parameters_are_those_of_the_sources(name, params, with_statistics):
    model = create_model(name)
    assert trainable(model) == params
    assert sum(parameter.size for parameter in model.get_parameters()) == with_statistics


def test_parameter_names_are_unique_and_say_what_they_are():
    names = [parameter.name for parameter in create_model("semnasnet_100").get_parameters()]
    assert len(set(names)) == len(names)
    assert {"stem.conv.weight", "blocks.3.depthwise.bn.gamma", "blocks.3.se.reduce.bias", "classifier.bias"} <= set(
        names
    )


# --- initial weights ----------------------------------------------------------------------------------------------


def test_initial_convolutions_have_the_authors_deviation():
    """Normal with std sqrt(2 / (k k out)); depthwise sqrt(2 / (k k)), because there a filter has one output."""
    standardized = {"depthwise": [], "full": []}
    for name, cell in create_model("semnasnet_100").cells_and_names():
        if isinstance(cell, nn.Conv2d):
            weight = cell.weight.asnumpy()
            out, per_group, kernel, _ = weight.shape
            kind = "depthwise" if name.endswith("depthwise.conv") else "full"
            assert (per_group == 1) == (kind == "depthwise")
            expected = (2 / (kernel * kernel * (1 if kind == "depthwise" else out))) ** 0.5
            if weight.size > 1000:
                assert weight.std() == pytest.approx(expected, rel=5 / (2 * weight.size) ** 0.5), name
            standardized[kind].append(weight.ravel() / expected)
    for values in (np.concatenate(parts).astype(float) for parts in standardized.values()):
        noise = values.size**-0.5
        assert values.mean() == pytest.approx(0, abs=5 * noise)
        assert values.std() == pytest.approx(1, abs=5 * noise)
        assert (values**4).mean() == pytest.approx(3, abs=50 * noise)  # a normal distribution, not cut off


@pytest.mark.parametrize("classes", [10, 1000])
def test_the_initial_classifier_is_uniform_within_one_over_root_of_its_outputs(classes):
    weight = create_model(tiny.network(num_classes=classes, head=640)).classifier.weight.asnumpy()
    bound = classes**-0.5
    assert 0.99 * bound < np.abs(weight).max() <= bound
    assert weight.std() == pytest.approx(bound / 3**0.5, rel=0.03)


def test_initial_norms_are_neutral_and_biases_zero():
    for name, value in tiny.values(create_model(tiny.network()).get_parameters()).items():
        if name.endswith(("gamma", "moving_variance")):
            assert (value == 1).all(), name
        elif name.endswith(("beta", "moving_mean", "bias")):
            assert (value == 0).all(), name


def test_equal_seeds_give_equal_weights_and_others_do_not():
    first, same, other = (tiny.values(create_model(tiny.network(), seed=seed).get_parameters()) for seed in (3, 3, 4))
    for name, value in first.items():
        np.testing.assert_array_equal(value, same[name])
        assert not name.endswith("weight") or not np.array_equal(value, other[name]), name
    kernels = [value.ravel()[:50] for name, value in first.items() if name.endswith("weight")]
    assert all(not np.array_equal(a, b) for a, b in itertools.combinations(kernels, 2)), "layers share their numbers"


# --- feature maps -------------------------------------------------------------------------------------------------

# Channels at reductions 2, 4, 8, 16, 32, of timm 1.0.31 with features_only for the first three.
CHANNELS = {
    "mnasnet_100": (16, 24, 40, 96, 320),
    "semnasnet_100": (16, 24, 40, 112, 320),
    "mnasnet_small": (8, 16, 16, 32, 144),
    "mnasnet-d1": (24, 36, 48, 96, 320),
}


@pytest.mark.parametrize("name", CHANNELS)
def test_feature_maps_have_the_channels_of_their_sources(name):
    backbone = create_model(name, features_only=True)
    assert backbone.feature_channels == CHANNELS[name]
    assert backbone.feature_reductions == (2, 4, 8, 16, 32)


@pytest.fixture(scope="module")
def backbone():
    blocks = "r1_k3_s11_e1_o8_noskip r2_k3_s22_e2_o8 r1_k5_s22_e2_o16_se0.25 r1_k3_s22_e2_o24 r1_k3_s11_e2_o16"
    return create_model(tiny.network(blocks=f"{blocks} r1_k7_s22_e2_o32"), features_only=True).set_train(False)


@pytest.mark.parametrize("size", [(32, 32), (33, 33), (57, 91), (224, 224), (320, 320)])
def test_feature_maps_are_the_image_size_over_their_reduction_rounded_up(backbone, size):
    maps = backbone(images(1, 3, *size))
    assert backbone.feature_channels == (8, 8, 16, 16, 32)
    for features, width, reduction in zip(maps, backbone.feature_channels, backbone.feature_reductions, strict=True):
        assert features.shape == (1, width, -(-size[0] // reduction), -(-size[1] // reduction))


def test_a_stem_that_nothing_follows_at_its_size_is_a_feature_map_itself():
    model = create_model(tiny.network(blocks="r1_k3_s22_e1_o16"), features_only=True).set_train(False)
    assert (model.feature_reductions, model.feature_channels) == ((2, 4), (8, 16))
    x = images(1, 3, 16, 16)
    stem, last = model(x)
    np.testing.assert_array_equal(stem.asnumpy(), model.stem(x).asnumpy())
    assert last.shape == (1, 16, 4, 4)


def test_a_backbone_has_the_classifiers_weights_but_no_head():
    classifier, features = (create_model(tiny.network(), features_only=only) for only in (False, True))
    whole, part = tiny.values(classifier.get_parameters()), tiny.values(features.get_parameters())
    assert {name.split(".")[0] for name in whole.keys() - part.keys()} == {"head", "classifier"}
    assert all(np.array_equal(whole[name], value) for name, value in part.items())


# --- freezing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "free"),
    [
        ("backbone", {"classifier"}),
        (3, {"head", "classifier", "blocks.3"}),
        (1, {"head", "classifier", "blocks.1", "blocks.2", "blocks.3"}),
    ],
)
def test_freezing_leaves_only_the_rest_trainable(what, free):
    blocks = "r1_k3_s11_e1_o8_noskip r1_k3_s22_e3_o8 r1_k3_s11_e3_o8 r1_k3_s11_e3_o8"
    model = create_model(tiny.network(blocks=blocks)).set_train()
    freeze(model, what)
    names = [parameter.name for parameter in model.get_parameters() if parameter.requires_grad]
    assert {".".join(name.split(".")[: 2 if name.startswith("blocks") else 1]) for name in names} == free


def test_frozen_batch_norms_keep_their_statistics_in_training():
    model = create_model(tiny.network()).set_train()
    freeze(model, 1)
    before = tiny.values(model.get_parameters())
    model(images(4, 3, 16, 16))
    changed = {
        name for name, value in tiny.values(model.get_parameters()).items() if not np.array_equal(value, before[name])
    }
    assert changed
    assert all(name.split(".")[0] == "head" or name.startswith(("blocks.1", "blocks.2")) for name in changed)


def test_a_backbone_freezes_too():
    model = create_model(tiny.network(), features_only=True).set_train()
    freeze(model, "backbone")
    assert not model.trainable_params()


@pytest.mark.parametrize("stages", [3, -1])
def test_more_stages_than_there_are_cannot_be_frozen(stages):
    with pytest.raises(UserError, match=f"{stages} stages.* 2$"):
        freeze(create_model(tiny.network()), stages)


# --- loading ------------------------------------------------------------------------------------------------------


def test_loading_takes_every_tensor_of_another_model():
    mine, other = (create_model(tiny.network(), seed=seed) for seed in (0, 1))
    load_parameters(mine.get_parameters(), tiny.values(other.get_parameters()), "a file")
    for name, value in tiny.values(mine.get_parameters()).items():
        np.testing.assert_array_equal(value, tiny.values(other.get_parameters())[name])


def test_what_does_not_fit_is_listed_and_nothing_is_loaded():
    model, other = create_model(tiny.network()), create_model(tiny.network(num_classes=9), seed=1)
    before, tensors = tiny.values(model.get_parameters()), tiny.values(other.get_parameters())
    del tensors["stem.conv.weight"]
    tensors["stem.odd"] = np.zeros(1)
    with pytest.raises(UserError) as caught:
        load_parameters(model.get_parameters(), tensors, "a file")
    for part in ("a file", "1 missing (stem.conv.weight)", "1 left over (stem.odd)", "2 of another shape (classifier"):
        assert part in str(caught.value)
    for name, value in tiny.values(model.get_parameters()).items():
        np.testing.assert_array_equal(value, before[name])


def test_depths_rise_from_the_classifier_to_the_stem():
    depths = create_model("mnasnet_050").depths()
    assert depths["classifier.weight"] == depths["head.conv.weight"] == 0
    assert depths["blocks.16.project.conv.weight"] == 1
    assert depths["blocks.0.depthwise.conv.weight"] == 7
    assert depths["stem.conv.weight"] == 8
    stages = [depths[f"blocks.{index}.project.conv.weight"] for index in range(17)]
    assert stages == sorted(stages, reverse=True)
