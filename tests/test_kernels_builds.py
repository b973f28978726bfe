"""The CPU operators as built for other processors and by another compiler, in one driver, against plain NumPy."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import operators_reference as reference
import pytest
from operators_quantized import quantized_calls
from operators_reference import Call, float_calls

from mindcv_mnasnet.kernels import build

DRIVER = Path(__file__).with_name("operators_driver.cpp")
ARM_ROOT = "/usr/aarch64-linux-gnu"


@dataclass(frozen=True)
class Build:
    """How the driver is compiled and run; ``needs`` are flags in /proc/cpuinfo."""

    flags: tuple[str, ...]
    needs: tuple[str, ...] = ()
    compiler: str = "g++"
    runner: tuple[str, ...] = ()

    def obstacle(self) -> str | None:
        """Why it cannot be run here, or None."""
        if not self.runner and platform.machine() != "x86_64":
            return f"this is {platform.machine()}, not x86_64"
        missing = [flag for flag in self.needs if flag not in processor_flags()]
        if missing:
            return f"this processor has no {', '.join(missing)}"
        absent = [tool for tool in (self.compiler, *self.runner[:1]) if shutil.which(tool) is None]
        return f"{', '.join(absent)} not installed" if absent else None


BUILDS = {
    "avx512": Build(build.LIMITS["avx512"], ("avx512f", "fma")),
    "avx2": Build(build.LIMITS["avx2"], ("avx2", "fma")),
    "sse2": Build(build.LIMITS["sse2"]),
    "sanitized": Build(("-march=native", "-fsanitize=address", "-g")),
    "clang": Build(build.LIMITS["avx2"], ("avx2", "fma"), "clang++"),
    "aarch64": Build((), compiler="aarch64-linux-gnu-g++", runner=("qemu-aarch64", "-L", ARM_ROOT)),
}
#: Built by ``make test-aarch64``, and with all else that takes long.
LONG = {"clang", "aarch64", "sanitized"}


@cache
def processor_flags() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in text.splitlines() if line.startswith("flags")), "").split())


@pytest.fixture(scope="module")
def calls() -> list[Call]:
    return [*float_calls(), *quantized_calls()]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Compiles the driver for a build once; skips the test where that cannot be run."""
    folder = tmp_path_factory.mktemp("drivers")

    @cache
    def compile_driver(name: str) -> Path:
        chosen = BUILDS[name]
        if (obstacle := chosen.obstacle()) is not None:
            pytest.skip(f"{name}: {obstacle}")
        shared = [flag for flag in build.FLAGS if flag not in ("-O3", "-shared", "-fPIC")]
        command = [chosen.compiler, *shared, "-O1", *chosen.flags, str(DRIVER), "-o", str(folder / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[:3000]
        return folder / name

    return compile_driver


def run(driver: Path, name: str, calls: list[Call], threads: int = 2, short: int = 0) -> subprocess.CompletedProcess:
    files = driver.with_suffix(".calls"), driver.with_suffix(".results")
    files[0].write_bytes(b"".join(call.encoded() for call in calls))
    command = [*BUILDS[name].runner, str(driver), *map(str, files), str(threads), str(short)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})


def results(driver: Path, calls: list[Call]) -> list[list[np.ndarray]]:
    values = np.fromfile(driver.with_suffix(".results"), np.float32)
    assert values.size == sum(output.size for call in calls for output in call.outputs)
    found, at = [], 0
    for call in calls:
        found.append([])
        for output in call.outputs:
            found[-1].append(values[at : at + output.size].reshape(output.shape))
            at += output.size
    return found


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in LONG else []) for n in BUILDS])
def test_every_build_computes_what_numpy_does(compiled, calls, name):
    driver = compiled(name)
    done = run(driver, name, calls)
    assert (done.returncode, done.stderr[:3000]) == (0, "")
    for call, outputs in zip(calls, results(driver, calls), strict=True):
        for index, (got, wanted) in enumerate(zip(outputs, call.outputs, strict=True)):
            if wanted is reference.NOTHING:
                continue
            scale = max(float(np.abs(wanted).max()), 1.0)  # sums of numbers about 1 may cancel
            np.testing.assert_allclose(got / scale, wanted / scale, rtol=0, atol=3e-5, err_msg=f"{call.name}, {index}")


def test_every_operator_is_called(calls):
    names = re.findall(r"^OPERATOR\(mnasnet_(\w+)\)", build.SOURCE.read_text(), re.MULTILINE)
    assert {call.name for call in calls} == set(names)


def test_results_are_the_same_bits_whatever_the_number_of_threads(compiled, calls):
    driver = compiled("sse2")
    found = []
    for threads in (1, 2, 5):
        assert run(driver, "sse2", calls, threads).returncode == 0
        found.append(driver.with_suffix(".results").read_bytes())
    wanted = results(driver, calls)
    assert any(output.any() for outputs in wanted for output in outputs)
    assert found[0] == found[1] == found[2]


@pytest.mark.slow
def test_the_address_sanitizer_finds_a_planted_error(compiled, calls):
    done = run(compiled("sanitized"), "sanitized", calls[:1], short=1)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
