"""MnasNet (CVPR 2019) on MindSpore: networks, recipes, training, validation.

Importing the package loads nothing; take what you need from its modules, such as
``from mindcv_mnasnet.model.mnasnet import create_model``.
"""

__version__ = "0.1.0"
