"""The floors of DESIGN.md: who may import whom, and where torch may be."""

import ast
import subprocess
import sys
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "cxr"
FLOORS = (
    *(
        "imaging",
        "lungs",
        "data",
        "models",
        "training",
        "reliability",
        "explain",
        "evaluation",
        "audit",
    ),
    *("report", "bundle", "serve", "cli", "pipeline"),
)
"""From the lowest; what is not named is below all of them."""
WITHOUT_TORCH = (
    *("imaging", "lungs", "data", "reliability", "evaluation", "report", "bundle", "serve", "cli"),
)
TORCH_ALLOWED = ("data.loader", "bundle.export", "bundle.gates")
"""What imports torch all the same."""
TORCH_FREE = (
    *("cxr.cli", "cxr.data.prepared", "cxr.evaluation.evaluate", "cxr.evaluation.plots"),
    *("cxr.imaging.read", "cxr.lungs.find", "cxr.models.ensemble_fit", "cxr.pipeline.config"),
    *("cxr.bundle.predictor", "cxr.bundle.format", "cxr.bundle.batch", "cxr.serve.app"),
    *("cxr.reliability.ood_fit", "cxr.reliability.conformal", "cxr.report.page"),
    *("cxr.reliability.drift", "cxr.pipeline.recalibrate_stage"),
)
TORCH = {"torch", "timm", "lightning", "torchmetrics", "pytorch_grad_cam"}


def modules() -> dict[str, ast.Module]:
    """Return every module of the package, by its name below ``cxr``."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = ast.parse(path.read_text())
    return found


def imports(tree: ast.Module) -> set[str]:
    """Return the full names that a module imports anywhere, also inside functions."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own_imports() -> dict[str, set[str]]:
    """Return, for each module below ``cxr``, which others it imports."""
    trees = modules()
    return {
        name: {
            other
            for other in {full.removeprefix("cxr.") for full in imports(tree)} & set(trees)
            if not f"{name}.".startswith(f"{other}.")
        }
        for name, tree in trees.items()
    }


def floor(name: str) -> int:
    room = name.split(".")[0]
    return FLOORS.index(room) if room in FLOORS else len(FLOORS) if room == "__init__" else -1


def test_no_module_imports_from_a_higher_floor():
    for name, others in own_imports().items():
        for other in others:
            assert floor(other) <= floor(name), f"cxr.{name} imports cxr.{other}"
            served = name.startswith("serve") and other.startswith(("pipeline", "audit", "report"))
            assert not served, f"cxr.{name} imports cxr.{other}"


def test_no_modules_import_each_other_in_a_circle():
    assert list(TopologicalSorter(own_imports()).static_order())


def test_only_named_rooms_import_torch():
    for name, tree in modules().items():
        if {imported.split(".")[0] for imported in imports(tree)} & TORCH:
            held = name.startswith(WITHOUT_TORCH) or "." not in name
            assert not held or name.startswith(TORCH_ALLOWED), f"cxr.{name} imports torch"


def test_only_the_configuration_knows_hydra():
    for name, tree in modules().items():
        roots = {imported.split(".")[0] for imported in imports(tree)}
        assert name == "pipeline.config" or not roots & {"hydra", "omegaconf"}, name


@pytest.mark.parametrize("module", TORCH_FREE)
def test_torch_does_not_come_along(module: str):
    code = f"import sys, {module}; assert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_module_names_are_unique():
    names = Counter(name.rsplit(".", 1)[-1] for name in modules())
    twice = {name for name, count in names.items() if count > 1}
    assert not twice


def test_scripts_are_thin():
    for path in (PACKAGE.parent / "scripts").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 60, path
