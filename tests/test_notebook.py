"""The notebook runs from its first cell to its last."""

from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.filterwarnings("default")  # Jupyter's own machinery warns
def test_notebook_runs():
    notebook = nbformat.read(ROOT / "notebook.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(ROOT)}}).execute()
    outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    assert "<<BOS>>" in str(outputs[0])
    assert "image/png" in str(outputs[-1])


def test_notebook_is_committed_without_outputs():
    notebook = nbformat.read(ROOT / "notebook.ipynb", as_version=4)
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code")
