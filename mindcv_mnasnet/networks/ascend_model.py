"""What a training step should take on Ascend, on paper: a roofline per kind of work, and the host that feeds it.

No device was at hand and nothing of this was run. Three factors are fitted, each on published figures of *other*
networks (``docs/ascend.md`` has the sources); MnasNet's own published step is predicted, not fitted.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.networks.cost import network_cost
from mindcv_mnasnet.networks.network import Network


@dataclass(frozen=True)
class Device:
    """Nominal figures of one device; ``docs/ascend.md`` names the sources, which contradict each other for 910B."""

    tflops: float  # float16 on the cube unit
    hbm: float  # TB/s
    hccs: float  # GB/s of one link
    pcie: float  # GB/s
    narrow_convolutions: bool  # whether float32 graphs convolve in float16 unless a setting says otherwise


# 910 is what MindCV's tables call "910", 910B their "910*" (Atlas A2).
DEVICES = {
    "910": Device(tflops=256, hbm=1.2, hccs=30, pcie=31.5, narrow_convolutions=True),
    "910B": Device(tflops=320, hbm=1.6, hccs=56, pcie=31.5, narrow_convolutions=False),
}

# Images/s of 8 devices: all other networks of MindCV's tables at 224 pixels, without automatic augmentation, that pass
# 9,000. Their multiply-adds differ 45-fold and their speed hardly: what they share is the host.
HOST_RATES = {
    "googlenet": {"910": 11962.62, "910B": 10893.62},
    "mobilenet_v1_025": {"910": 12066.93, "910B": 10785.76},
    "mobilenet_v2_075": {"910": 13133.26, "910B": 11726.31},
    "mobilenet_v3_small_100": {"910": 12463.65, "910B": 11454.75},
    "mobilenet_v3_large_100": {"910": 12634.24, "910B": 10735.37},
    "regnet_x_800mf": {"910": 12049.89, "910B": 10090.66},
    "repvgg_a0": {"910": 12439.26, "910B": 10613.60},
    "repvgg_a1": {"910": 12367.15, "910B": 9096.13},
    "seresnet18": {"910": 11531.53, "910B": 10021.53},
    "shufflenet_v1_g3_05": {"910": 12604.63, "910B": 10718.02},
    "shufflenet_v2_x0_5": {"910": 12228.33, "910B": 10819.95},
    "skresnet18": {"910": 11169.28, "910B": 10274.93},
    "squeezenet1_0": {"910": 11449.02, "910B": 10902.90},
}
MACHINE_DEVICES = 8

CONV_PASSES = 3  # forward, gradient of the input, gradient of the weights: each moves input and output once
NORM_PASSES = 8  # batch norm + ReLU per element: read twice, write; backward read twice, then read twice and write
ADD_PASSES = 6  # a residual sum: read two, write; the same for the two gradients that meet
INPUT_BYTES = 1 + 5 * 4  # uint8 in, float32 out, scale and shift as two more passes
UPDATE_BYTES = 7 * 4  # RMSProp: gradient read; weight, mean square and momentum read and written
CAST_BYTES = 4 * (2 + 4)  # into and out of float32, both ways
PIXELS = 224 * 224 * 3
LAUNCH_US = 8.0  # host time per kernel at O0 and O1: assumed, 5 to 10 is what is said of such dispatchers


@dataclass(frozen=True)
class Work:
    """One image's forward pass: multiply-adds, and elements that convolutions read and write, norms and sums write."""

    dense_madds: float = 0
    dense_elements: float = 0
    depthwise_elements: float = 0
    norm_elements: float = 0
    add_elements: float = 0
    params: float = 0
    pixels: float = PIXELS


def work_of(network: Network, image_size: int | None = None) -> Work:
    """Walk a network's layers; squeeze-and-excitation's products count as sums."""
    size = image_size or network.image_size
    cost = network_cost(network, size)
    dense_madds = dense = depthwise = norm = add = 0.0
    for layer in cost.layers:
        written = layer.out_width * layer.out_size**2
        read = layer.in_width * (1 if layer.out_size == 1 else size) ** 2
        if layer.name.endswith(".depthwise"):
            depthwise += read + written
        elif layer.kernel:
            dense_madds += layer.madds
            dense += read + written
        else:
            add += written
        norm += written if layer.bn_statistics else 0
        size = layer.out_size if layer.kernel and layer.bn_statistics else size
    pixels = (image_size or network.image_size) ** 2 * network.in_channels
    return Work(dense_madds, dense, depthwise, norm, add, cost.params, pixels)


# The fits. Work counted on MindCV 0.3's networks; times are published.
RESNET_50 = Work(4_089_184_256, 21_779_432, 0, 11_113_984, 5_519_360, 25_557_032)
RESNET_50_RATE = 2115.0  # images/s, one Ascend 910, batch 256, mixed precision (MindSpore's benchmark page)
VGG_MADDS = 19_632_062_464 - 11_308_466_176  # VGG-19 less VGG-13: six 3x3 convolutions
VGG_MS, VGG_BATCH = 67.42 - 55.20, 32  # ms/step of the same two, 8 x 910, float16 (MindCV)
NASNET_A = Work(495_103_296, 11_849_251, 8_312_507, 4_548_587, 0, 5_289_978)
NASNET_A_MS, NASNET_A_BATCH = 364.35, 256  # 8 x 910B, float32 (MindCV)


def cube_share() -> float:
    """Share of the cube unit's peak that convolutions reach, from the time of VGG-19's six additional ones."""
    return VGG_MADDS * 6 * VGG_BATCH / (VGG_MS / 1e3) / (DEVICES["910"].tflops * 1e12)


def hbm_share() -> float:
    """Share of nominal HBM bandwidth that other work reaches, from what ResNet-50's convolutions leave of its time."""
    device = DEVICES["910"]
    seconds = 1 / RESNET_50_RATE - RESNET_50.dense_madds * 6 / (device.tflops * 1e12 * cube_share())
    moved = 2 * (NORM_PASSES * RESNET_50.norm_elements + ADD_PASSES * RESNET_50.add_elements)
    return moved / seconds / (device.hbm * 1e12)


def depthwise_floor() -> float:
    """The same for depthwise convolutions if they alone were to blame for all that NASNet-A takes: a lower bound."""
    choice = Choice("910B", batch=NASNET_A_BATCH)
    rest = sum(ms for part, ms in device_parts(NASNET_A, choice).items() if part != "depthwise")
    moved = 4 * CONV_PASSES * NASNET_A.depthwise_elements * NASNET_A_BATCH
    return moved / ((NASNET_A_MS - rest) / 1e3) / (DEVICES["910B"].hbm * 1e12)


@dataclass(frozen=True)
class Choice:
    """How to train. ``precision`` as amp_level and amp_dtype: fp32 (O0), fp16_fp32bn (O2), fp16 and bf16 (O3)."""

    device: str = "910B"
    devices: int = 8
    batch: int = 256
    precision: str = "fp32"
    sinks: bool = True
    host_rate: float | None = None  # images/s of a machine of 8; None is the fit
    depthwise_share: float | None = None  # None is that of other memory traffic
    kernels: int = 0  # that the host launches one by one; 0: the whole graph is the device's (O2)
    launch_us: float = LAUNCH_US

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise UserError(f"device {self.device!r} is not one of {', '.join(DEVICES)}")
        if self.precision not in PRECISIONS:
            raise UserError(f"precision {self.precision!r} is not one of {', '.join(PRECISIONS)}")
        if self.precision == "bf16" and self.device == "910":
            raise UserError("precision bf16 needs 910B: the 910 has no bfloat16")
        if not 1 <= self.devices <= MACHINE_DEVICES or self.batch < 1:
            raise UserError(f"devices are 1 to {MACHINE_DEVICES} (one machine), batch is at least 1")


# Bytes per element of convolutions, of norms and sums, of casts in between; and the cube's peak against float16.
PRECISIONS = {
    "fp32": (4, 4, 0, 0.5),  # 910B: HF32, assumed at half the float16 rate
    "fp16_fp32bn": (2, 4, CAST_BYTES, 1.0),
    "fp16": (2, 2, 0, 1.0),
    "bf16": (2, 2, 0, 1.0),
}


@dataclass(frozen=True)
class Step:
    """A predicted step: milliseconds of the device by part, of the host for the next batch, and to launch kernels."""

    parts: dict[str, float]
    host_ms: float
    images: int
    launch_ms: float = 0.0

    @property
    def device_ms(self) -> float:
        return sum(self.parts.values())

    @property
    def ms(self) -> float:
        """Workers, the launching thread and the device work side by side, so the slowest of them is the step."""
        return max(self.device_ms, self.host_ms, self.launch_ms)

    @property
    def images_per_second(self) -> float:
        return self.images / self.ms * 1e3


def device_parts(work: Work, choice: Choice) -> dict[str, float]:
    """Milliseconds of each kind of work on one device."""
    device, batch = DEVICES[choice.device], choice.batch
    conv, norm, casts, peak = PRECISIONS[choice.precision]
    if choice.precision == "fp32" and device.narrow_convolutions:
        peak = 1.0
    hbm = device.hbm * 1e9 * hbm_share()  # bytes per ms
    slow = device.hbm * 1e9 * (choice.depthwise_share or hbm_share())
    cube = device.tflops * 1e9 * cube_share() * peak  # operations per ms
    ring = 2 * (choice.devices - 1) / choice.devices
    return {
        "convolutions": max(
            work.dense_madds * 6 * batch / cube, work.dense_elements * CONV_PASSES * conv * batch / hbm
        ),
        "depthwise": work.depthwise_elements * CONV_PASSES * conv * batch / slow,
        "norm, ReLU, sums": (work.norm_elements * (NORM_PASSES * norm + casts) + work.add_elements * ADD_PASSES * norm)
        * batch
        / hbm,
        "input": work.pixels * INPUT_BYTES * batch / hbm,
        "update": work.params * UPDATE_BYTES / hbm,
        "all-reduce": work.params * 4 * ring / (device.hccs * 1e6),
        "copy": 0.0 if choice.sinks else work.pixels * batch / (device.pcie * 1e6),
    }


def host_rate(device: str) -> float:
    """Images/s that the host of 8 devices delivers: the median over the light networks of MindCV's tables."""
    return median(rates[device] for rates in HOST_RATES.values())


def predict(work: Work, choice: Choice) -> Step:
    """The step of ``choice``. Every process is fed by its own workers: an eighth of the machine's rate."""
    own_rate = (choice.host_rate or host_rate(choice.device)) / MACHINE_DEVICES
    launch_ms = choice.kernels * choice.launch_us / 1e3
    return Step(device_parts(work, choice), choice.batch / own_rate * 1e3, choice.batch * choice.devices, launch_ms)


def host_cores(images_per_second: float, per_core: float) -> float:
    """Cores that are busy feeding so many images per second; threads that launch and copy come on top."""
    if per_core <= 0:
        raise UserError(f"per_core: {per_core} is not above 0")
    return images_per_second / per_core
