"""The floors of DESIGN.md: who may import whom, and where torch may be."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "cxr"
FLOORS = {"data": 1, "training": 2, "explain": 3, "evaluation": 4, "bundle": 5, "serve": 6,
          "stages": 7, "cli": 7, "__init__": 7}  # fmt: skip
ORDER = {
    "data": ["manifest", "sources", "phantom", "near", "alike", "overlay", "groups",
             "overlap", "splits",
             "decode", "prepared", "folds", "copied", "loader"],
    "training": ["align", "ensemble", "ensemble_fit", "augment", "members", "inference", "fit",
                 "curves", "callbacks", "trainer"],
    "evaluation": ["intervals", "metrics", "summary", "bootstrap", "evaluate", "tables", "figures",
                   "cv", "leak", "audit",
                   "calibration", "selective", "sets", "certainty", "uncertainty_figures",
                   "published", "report"],
    "bundle": ["format", "maps", "show", "runtimes", "prediction", "predictor", "films",
               "results", "overlays", "batch", "graph", "export", "compare", "gates", "quantise"],
    "serve": ["settings", "store", "migrations", "metrics", "files", "overlay", "context", "live",
              "line", "queue", "records", "passwords", "login", "security", "tidy", "wording",
              "problems", "logs", "health", "schemas", "openapi", "api", "auth", "pages", "results",
              "model", "errors", "commands", "app", "gunicorn_conf"],
    "stages": ["run", "prepare", "train", "out_of_fold", "uncertainty", "ensemble", "explainer",
               "audit_tests", "report", "evaluate", "evaluate_on", "cv", "leak",
               "audit", "explain", "exported", "eightbit", "export", "download"],
}  # fmt: skip
TORCH_FREE = ["cxr.data.prepared", "cxr.evaluation.evaluate", "cxr.evaluation.figures",
              "cxr.training.ensemble_fit", "cxr.config", "cxr.preprocess", "cxr.images",
              "cxr.bundle.predictor", "cxr.bundle.show", "cxr.bundle.batch", "cxr.cli",
              "cxr.ood_fit", "cxr.serve.app", "cxr.evaluation.report.page"]  # fmt: skip
TORCH_ALLOWED = ("data.loader", "training", "explain", "evaluation.audit", "bundle.export",
                 "bundle.graph", "bundle.gates",
                 "stages")  # fmt: skip


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


def floor(name: str) -> int:
    return FLOORS.get(name.split(".")[0], 0)


def inside(name: str) -> int:
    """Return a module's place in the order of its folder."""
    room, _, rest = name.partition(".")
    order = ORDER.get(room, [])
    first = rest.split(".")[0]
    return order.index(first) if first in order else -1


def test_no_module_imports_from_a_higher_floor():
    for name, tree in modules().items():
        for imported in imports(tree):
            if imported.startswith("cxr."):
                other = imported.removeprefix("cxr.")
                assert floor(other) <= floor(name), f"cxr.{name} imports {imported}"


def test_inside_a_room_imports_go_backwards():
    for name, tree in modules().items():
        room = name.split(".")[0]
        if room not in ORDER or "." not in name:
            continue
        assert inside(name) >= 0, f"cxr.{name} is not in the order of its room: add it"
        for imported in imports(tree):
            if imported.startswith(f"cxr.{room}.") and imported.split(".")[2] in ORDER[room]:
                other = imported.removeprefix("cxr.")
                assert inside(other) <= inside(name), f"cxr.{name} imports {imported}"


def test_only_named_rooms_import_torch():
    for name, tree in modules().items():
        roots = {imported.split(".")[0] for imported in imports(tree)}
        if roots & {"torch", "timm", "lightning", "torchmetrics", "pytorch_grad_cam"}:
            assert name.startswith(TORCH_ALLOWED), f"cxr.{name} imports torch"


def test_only_config_knows_hydra():
    for name, tree in modules().items():
        roots = {imported.split(".")[0] for imported in imports(tree)}
        assert name == "config" or not roots & {"hydra", "omegaconf"}, name


@pytest.mark.parametrize("module", TORCH_FREE)
def test_torch_does_not_come_along(module: str):
    code = f"import sys, {module}; assert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_scripts_are_thin():
    for path in (PACKAGE.parent / "scripts").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 60, path
