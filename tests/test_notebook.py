"""The notebooks of docs/ run from top to bottom, and are kept with what they print and draw."""

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
def test_it_is_kept_executed(path):
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert all(cell["outputs"] for cell in cells)
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not any(output["output_type"] == "error" or output.get("name") == "stderr" for output in outputs)
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1


def printed(path):
    """Lines that the cells of a notebook printed when it was stored."""
    outputs = [output for cell in code_cells(path) for output in cell["outputs"]]
    return "".join("".join(output["text"]) for output in outputs if output["output_type"] == "stream").splitlines()


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
    kept = printed(DOCS / "hippocampus.ipynb")
    assert [line.split(":")[0].split("%")[-1] for line in kept] == [line.split(":")[0].split("%")[-1] for line in lines]
    for line, now in zip(kept[2:4], lines[2:4], strict=True):
        assert float(line.split()[-1]) == pytest.approx(float(now.split()[-1]), abs=0.005)  # as machines round
    assert [line.split(":")[0] for line in lines[:4]] == ["anterior", "posterior"] * 2
    assert all(float(line.split()[-1]) > 0.8 for line in lines[2:4])  # Dice
    assert lines[4].endswith("% of the errors are in the most uncertain tenth")
    assert int(lines[4].split("%")[0]) > 50
    assert names["cropped"].mask.shape == tuple(length - 8 for length in names["result"].mask.shape)
    assert list(tmp_path.iterdir()) == []
