"""Who may import whom, and what only one module may do, read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "mindcv_mnasnet"

# A sub-package imports those before it, and its own modules, never in a circle. The first rows work without MindSpore.
LAYERS = (
    "console",
    "errors",
    "files",
    "networks",
    "recipe",
    "devices",
    "data",
    "kernels",
    "run",
    "weights",
    "model",
    "detection",
    "train",
    "export",
    "inference",
    "latency",
    "search",
    "dry_run",
    "device_check",
    "commands",
    "cli",
    "__main__",
)
WITHOUT_FRAMEWORK = ["console", "errors", "files", "networks", "recipe"]
LAYER_OF = {name: layer for layer, name in enumerate(LAYERS)}

# What is used by its owners alone; a name stands for everything below it too.
OWNERS = {
    "yaml": "recipe networks weights detection",
    "os.environ": "devices weights",
    "os.getenv": "devices",
    "os.putenv": "devices",
    "mindspore.context": "devices",
    "mindspore.set_context": "devices",
    "mindspore.set_device": "devices",
    "mindspore.set_seed": "devices",
    "mindspore.set_deterministic": "devices",
    "mindspore.set_auto_parallel_context": "devices",
    "mindspore.communication": "devices",
    "mindspore.__version__": "devices",
    "mindspore.save_checkpoint": "run weights",
    "mindspore.load_checkpoint": "run weights",
    "mindspore.load_param_into_net": "run weights",
    "mindspore.train.serialization": "run weights",
    "safetensors": "run weights",
    "numpy.load": "run weights",
    "numpy.save": "run weights commands",
    "numpy.savez": "run weights commands",
}
FRAMEWORKS = "mindspore mindcv torch timm torchvision tensorflow onnx onnxruntime ai_edge_litert"
UNSAFE = "pickle marshal dill joblib shelve yaml.load_all yaml.unsafe_load yaml.unsafe_load_all yaml.full_load"

MODULES = sorted((ROOT / PACKAGE).rglob("*.py"))
ENTRY_POINTS = sorted([*(ROOT / "tools").rglob("*.py"), *ROOT.glob("*.py")])


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


each_module = pytest.mark.parametrize("path", MODULES, ids=label)
each_file = pytest.mark.parametrize("path", MODULES + ENTRY_POINTS, ids=label)


def noun(path: Path) -> str:
    """What the layer table calls a file: its module, or the sub-package that it is in."""
    return path.relative_to(ROOT / PACKAGE).parts[0].removesuffix(".py")


def dotted_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def names_used(source: str) -> set[str]:
    """Full dotted names of what a source imports and of the attributes that it takes from there."""
    nodes = list(ast.walk(ast.parse(source)))
    meaning: dict[str, str] = {}
    used = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                used.add(alias.name)
                first = alias.name.split(".")[0]
                meaning[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            used |= {f"{origin}.{alias.name}" for alias in node.names}
            meaning |= {alias.asname or alias.name: f"{origin}.{alias.name}" for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.Attribute):
            root, _, rest = ast.unparse(node).partition(".")
            if root in meaning:
                used.add(f"{meaning[root]}.{rest}")
    return used


def below(name: str, owned: str) -> bool:
    return name == owned or name.startswith(owned + ".")


def modules_used(source: str) -> set[str]:
    """The modules of the package, dotted in full, that a source imports."""
    known = {dotted_name(path) for path in MODULES} - {PACKAGE}
    used = names_used(source)
    return {module for module in known if any(below(name, module) for name in used)}


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import mindspore as ms\nms.set_context(mode=0)", "mindspore.set_context"),
        ("import mindspore.dataset as ds\nds.config.set_seed(1)", "mindspore.dataset.config.set_seed"),
        ("import os.path\nos.environ['A'] = '1'", "os.environ"),
        ("def f():\n    from mindspore.communication import init as start", "mindspore.communication.init"),
        ("from mindcv_mnasnet.run import log\nlog._plain(1)", "mindcv_mnasnet.run.log._plain"),
        ("from .engine import fit", ".engine.fit"),
    ],
)
def test_the_reader_of_sources_sees_through_aliases(source, name):
    assert name in names_used(source)


def test_imports_for_type_checkers_alone_count_too():
    assert names_used("if TYPE_CHECKING:\n    import mindspore\nimport numpy") == {"mindspore", "numpy"}


@each_module
def test_imports_go_down_the_layers(path):
    name = noun(path)
    if name == "__init__":
        light = {"importlib.import_module", "typing.Any", "mindcv_mnasnet.devices.environment.prepare"}
        assert names_used(path.read_text()) <= light, "importing loads no framework"
        return
    assert name in LAYER_OF, f"give {name} its place in LAYERS"
    used = names_used(path.read_text())
    assert not [name for name in used if name.startswith(".")], "imports are absolute"
    for other in {module.split(".")[1] for module in modules_used(path.read_text())} - {name}:
        assert LAYER_OF[other] < LAYER_OF[name], f"{name} imports {other}"


def test_no_import_goes_in_a_circle():
    graph = {
        dotted_name(path): modules_used(path.read_text()) - {dotted_name(path)}
        for path in MODULES
        if path.name != "__init__.py"
    }
    assert len(list(TopologicalSorter(graph).static_order())) >= len(graph)


@each_module
def test_what_has_an_owner_is_left_to_it(path):
    for name in names_used(path.read_text()):
        for owned, owners in OWNERS.items():
            assert not below(name, owned) or noun(path) in owners.split(), f"{name} is the business of {owners}"


@each_module
def test_what_describes_networks_has_no_framework(path):
    if noun(path) in WITHOUT_FRAMEWORK:
        found = {name for name in names_used(path.read_text()) if name.split(".")[0] in FRAMEWORKS.split()}
        assert not found


def test_what_describes_networks_imports_quickly_without_mindspore():
    names = [dotted_name(path) for path in MODULES if noun(path) in WITHOUT_FRAMEWORK]
    program = "\n".join(
        [
            "import sys, time",
            "sys.modules['mindspore'] = None",
            *(f"import {name}" for name in names),
            "assert not {'matplotlib', 'sklearn', 'scipy'} & set(sys.modules)",
            "print(time.process_time())",
        ]
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 1.0


@each_file
def test_private_names_stay_in_their_module(path):
    for name in names_used(path.read_text()):
        private = [part for part in name.split(".") if part.startswith("_") and not part.endswith("__")]
        assert not (below(name, PACKAGE) and private), f"{name} is private"


@each_file
def test_nothing_executes_or_unpickles_data(path):
    source = path.read_text()
    assert not [name for name in names_used(source) if any(below(name, unsafe) for unsafe in UNSAFE.split())]
    nodes = list(ast.walk(ast.parse(source)))
    for node in nodes:
        if isinstance(node, ast.Call):
            function, keywords = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert function not in {"eval", "exec"}, f"line {node.lineno}"
            assert function != "yaml.load", f"line {node.lineno}"
            assert keywords.get("allow_pickle") in {None, "False"}, f"line {node.lineno}"


@each_file
def test_no_function_has_more_than_50_lines(path):
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    assert not [node.name for node in functions if (node.end_lineno or 0) - node.lineno >= 50]


@each_module
def test_no_module_has_more_than_250_lines(path):
    assert len(path.read_text().splitlines()) <= 250


@each_file
def test_no_except_is_bare(path):
    handlers = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ExceptHandler)]
    assert not [node.lineno for node in handlers if node.type is None]
