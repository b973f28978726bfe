"""What a network costs, before anything is trained or even installed: no framework is loaded."""

from mindcv_mnasnet.networks.cost import network_cost
from mindcv_mnasnet.networks.network import resolve

for name, size in (("mnasnet-a1", 224), ("mnasnet_small", 224), ("mnasnet_small", 96)):
    cost = network_cost(resolve(name, image_size=size))
    print(f"{name} at {size} px: {cost.params / 1e6:.2f} M parameters, {cost.madds / 1e6:.0f} M multiply-adds")
