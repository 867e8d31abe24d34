import warnings
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_notebook_runs_on_the_phantom(tiny_run, monkeypatch):
    # Jupyter's own packages warn about each other, which is not ours to correct.
    jupytext = pytest.importorskip("jupytext")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("CXR_DATA", tiny_run.data)
    monkeypatch.setenv("CXR_RUN", tiny_run.run)
    monkeypatch.setenv("CXR_OUTPUT_ROOT", str(tiny_run.output_root))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    notebook = jupytext.read(NOTEBOOKS / "01_explore_gradcam.py")
    client = nbclient.NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(NOTEBOOKS)}},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [output for output in outputs if "image/png" in output.get("data", {})]
    printed = "".join(output.get("text", "") for output in outputs)
    assert len(shown) >= 4
    assert "synthetic phantom" in printed


def test_notebook_is_kept_without_outputs():
    tracked = sorted(path.suffix for path in NOTEBOOKS.glob("*.py"))
    assert tracked == [".py"]
    text = (NOTEBOOKS / "01_explore_gradcam.py").read_text()
    assert "formats: ipynb,py:percent" in text
    assert "not a medical device" in text
