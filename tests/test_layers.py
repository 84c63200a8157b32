"""What the modules at the top level may import: import-linter knows packages alone."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = {
    "SyncNetModel": {"syncnet.constants"},
    "SyncNetInstance": {
        *("SyncNetModel", "syncnet.constants", "syncnet.defaults", "syncnet.errors", "syncnet.reasons"),
        *("syncnet.media", "syncnet.models", "syncnet.results", "syncnet.sync"),
    },
}
SCRIPTS = {"detectors", "SyncNetInstance", "syncnet"}
MAKERS = {"detectors", "SyncNetInstance"}  # of networks: only scripts, the API and the filter's scorer call them


def imports(path):
    """Every module of ours that a file imports, wherever in it."""
    own = {"syncnet", "detectors", "training", "benchmarks", "tests", *(file.stem for file in ROOT.glob("*.py"))}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
            if node.module == "syncnet":
                names = [f"syncnet.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.partition(".")[0] in own)


def within(name, allowed):
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in allowed)


@pytest.mark.parametrize("module", sorted(path.stem for path in ROOT.glob("*.py")))
def test_root_modules(module):
    allowed = LIBRARY.get(module, SCRIPTS)
    assert [name for name in imports(ROOT / f"{module}.py") if not within(name, allowed)] == []


@pytest.mark.parametrize("path", ["detectors/s3fd/nets.py", "detectors/s3fd/box_utils.py"])
def test_plain_networks(path):
    assert [name for name in imports(ROOT / path) if not within(name, {"syncnet.constants", "detectors.s3fd"})] == []


def test_who_makes_networks():
    makers = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "syncnet").rglob("*.py")
        if any(within(name, MAKERS) and not within(name, {"detectors.s3fd.nets"}) for name in imports(path))
    }
    assert makers == {"syncnet/api.py", "syncnet/filter/scorer.py"}
