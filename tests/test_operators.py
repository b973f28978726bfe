"""Plain convolutions and pooled shortcuts, the operators that only search spaces use."""

from __future__ import annotations

import exported
import mindspore as ms
import numpy as np
import pytest
import tiny
from mindspore import ops

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.export.export import Options, export
from mindcv_mnasnet.model.create import create_model
from mindcv_mnasnet.model.layers import PooledShortcut
from mindcv_mnasnet.networks.blocks import BlockSpec
from mindcv_mnasnet.networks.cost import network_cost
from mindcv_mnasnet.networks.network import resolve
from mindcv_mnasnet.weights.name_maps import NAME_MAPS, shapes

pytestmark = pytest.mark.usefixtures("cpu")
#: Narrower and wider than before, with stride and without, gated, expanded and not.
BLOCKS = (
    "r1_k3_s11_e1_o24_conv_pool r2_k5_s22_e1_o8_se0.25_conv_pool r2_k3_s22_e3_o16_se0.25_conv r2_k3_s22_e3_o16_pool"
)


def network(**fields):
    return resolve(None, **{"blocks": BLOCKS, "stem": 16, "head": 32, "num_classes": 10, "image_size": 26, **fields})


def test_what_is_counted_is_what_is_built():
    net = network()
    model = create_model(net)
    built = {p.name: p.shape for p in model.get_parameters()}
    assert built == shapes(net)
    assert network_cost(net).params == sum(p.size for p in model.trainable_params())


def test_a_plain_convolution_is_charged_for_every_pair_of_channels():
    layers = network_cost(resolve(None, blocks="r1_k3_s22_e1_o24_conv", stem=16, image_size=32)).layers
    spatial = next(layer for layer in layers if layer.name == "blocks.0.spatial")
    assert spatial.madds == 3 * 3 * 16 * 24 * 8 * 8
    assert [layer.name for layer in layers if layer.name.startswith("blocks")] == ["blocks.0.spatial"]


@pytest.mark.parametrize(("size", "expected"), [(4, [[2.5, 4.5], [10.5, 12.5]]), (3, [[2, 3.5], [6.5, 8]])])
def test_a_pooled_shortcut_is_the_mean_of_the_pixels_there_are(size, expected):
    x = np.arange(size * size, dtype=np.float32).reshape(1, 1, size, size)
    y = PooledShortcut(1, 3, 2)(ms.Tensor(x)).asnumpy()
    np.testing.assert_array_equal(y[0, 1:], 0)
    np.testing.assert_array_equal(y[0, 0], expected)


def test_a_pooled_shortcut_cuts_channels_and_passes_gradients():
    cell = PooledShortcut(3, 2, 2)
    x = ms.Tensor(np.ones((1, 3, 3, 3), np.float32))
    gradient = ops.GradOperation()(cell)(x).asnumpy()
    np.testing.assert_array_equal(gradient[0, 2], 0)
    np.testing.assert_array_equal(gradient[0, 0], [[0.25, 0.25, 0.5], [0.25, 0.25, 0.5], [0.5, 0.5, 1]])


def test_where_nothing_differs_a_pooled_shortcut_is_the_input_itself():
    pooled, plain = (resolve(None, blocks=f"r3_k3_s11_e3_o16{ending}", stem=16) for ending in ("_pool", ""))
    assert pooled.layers() == plain.layers()


def test_they_learn():
    step = tiny.train_step(0.1, tiny.network(blocks="r1_k3_s22_e1_o12_conv_pool r2_k3_s22_e3_o8_se0.25_conv_pool"))
    losses = [tiny.run(step, *tiny.batch(0)) for _ in range(40)]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("form", ["onnx", "tflite", "mindir"])
@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_they_are_exported(tmp_path, digits, form, padding):
    for module in {"onnx": ("onnx", "onnxruntime"), "tflite": ("tensorflow", "ai_edge_litert"), "mindir": ()}[form]:
        pytest.importorskip(module)
    fields = {**network(padding=padding).to_dict(), "width_mult": None}
    fields.pop("family")
    path = exported.write(tmp_path / "net.safetensors", digits, None, **fields)
    report = export(path, tmp_path / f"net.{form}", Options(form, check_images=20))
    assert report.difference < 1e-4
    assert report.agreement == 100


@pytest.mark.parametrize("source", ["timm", "torchvision", "mindcv"])
def test_other_libraries_do_not_have_them(source):
    with pytest.raises(UserError, match="no plain convolutions or pooled shortcuts"):
        NAME_MAPS[source].names(network())
    assert NAME_MAPS["own"].names(network()) == {name: name for name in shapes(network())}


def test_no_shortcut_and_a_pooled_one_contradict():
    with pytest.raises(UserError, match="skip is False, but must be true where there is a pooled shortcut"):
        BlockSpec(repeats=1, kernel=3, stride=1, expand=3, out=8, skip=False, pool=True)
