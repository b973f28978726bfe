"""MnasNet as a backbone of another network: feature maps at every reduction, in graph mode."""

import mindspore as ms
import numpy as np

import mindcv_mnasnet as mm

ms.set_context(mode=ms.GRAPH_MODE)
backbone = mm.create_model("mnasnet_small", features_only=True, image_size=96).set_train(False)
images = ms.Tensor(np.zeros((1, 3, 96, 96), np.float32))
for features, channels, reduction in zip(
    backbone(images), backbone.feature_channels, backbone.feature_reductions, strict=True
):
    print(f"1/{reduction}: {channels} channels, {features.shape}")
