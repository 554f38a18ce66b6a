"""The notebooks of docs/ run from top to bottom, and are kept without output."""

import json
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest

DOCS = Path(__file__).parent.parent / "docs"


def code_cells(path):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def test_there_is_one():
    assert [path.name for path in DOCS.glob("*.ipynb")] == ["hippocampus.ipynb"]


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.ipynb")), ids=lambda path: path.name)
def test_no_output_is_kept(path):
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code_cells(path))


def test_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()))
    names = {}
    for number, cell in enumerate(code_cells(DOCS / "hippocampus.ipynb"), start=1):
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    plt.close("all")
    assert len(shown) == 1 and len(shown[0].axes) == 3
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:4]] == ["anterior", "posterior"] * 2
    assert all(float(line.split()[-1]) > 0.8 for line in lines[2:4])  # Dice
    assert lines[4].endswith("% of the errors are in the most uncertain tenth")
    assert int(lines[4].split("%")[0]) > 50
    assert names["cropped"].mask.shape == tuple(length - 8 for length in names["result"].mask.shape)
    assert list(tmp_path.iterdir()) == []
