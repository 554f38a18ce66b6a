"""Index and table of a folder, and what a report and its page say of its making."""

import csv
import json

import nibabel
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from medsegdiff_bundle.handlers import ReportHandler
from medsegdiff_bundle.pages import write_index
from medsegdiff_bundle.remarks import add_processing, add_warning
from medsegdiff_bundle.transforms import EnsembleStatisticsd, OriginalImaged


@pytest.fixture
def folder(tmp_path):
    """What a run of two cases writes, one of them at the border and with a warning that names its folder."""
    (tmp_path / "patients").mkdir()
    weights = tmp_path / "model.pt"
    weights.write_bytes(b"weights")
    cases = []
    for index, name in enumerate(("a & b #1", "c")):
        path = tmp_path / "patients" / f"{name}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(np.full((12, 10, 8), 7, np.int16), np.diag([-1, -2, 3, 1])), path)
        mask = torch.zeros(1, 12, 10, 8)
        mask[:, 4 * (1 - index) : 6, 3:5, 3:5] = 1
        case = {
            "image": MetaTensor(torch.zeros(1, 4, 4, 4), meta={"filename_or_obj": str(path)}),
            "pred": MetaTensor(mask, affine=np.diag([-1, -2, 3, 1])),
            "member_labels": mask.repeat(2, 1, 1, 1).to(torch.uint8),
            "uncertainty": torch.zeros(1, 12, 10, 8),
        }
        if index == 1:
            add_warning(case, f"The file {str(path)!r} is odd.")
            add_processing(case, "Turned.")
        cases.append(EnsembleStatisticsd("pred", ["x<y"])(OriginalImaged("image")(case)))
    evaluator = Engine(lambda engine, batch: [cases[batch]])
    settings = {"task": "liver", "seed": 5, "roi_size": None}
    ReportHandler(str(tmp_path / "out"), settings=settings, checkpoint=weights, device="cpu").attach(evaluator)
    evaluator.run([0, 1])
    return tmp_path / "out", cases


def test_a_report_says_from_what_it_was_made(folder):
    out, cases = folder
    report = json.loads((out / "c_report.json").read_text())
    assert report == cases[1]["result"]
    assert report["input"] == {
        "file": "c.nii.gz",
        "shape": [12, 10, 8],
        "spacing": [1, 2, 3],
        "orientation": "LPS",
        "obliquity": 0,
    }
    assert (report["case"], report["task"], report["settings"]["seed"]) == ("c", "liver", 5)
    assert report["warnings"] == [
        "The file 'c.nii.gz' is odd.",
        "x<y reaches the border of the image (R): it may be cut off.",
    ]
    assert report["processing"] == ["Turned."]
    structure = report["structures"]["x<y"]
    assert (structure["mean_intensity"], structure["components"], structure["border"]) == (7, 1, ["R"])
    text = (out / "c_report.json").read_text() + (out / "c_report.html").read_text() + (out / "index.html").read_text()
    assert "patients" not in text  # no folder, which may be named after one
    page = (out / "c_report.html").read_text()
    for said in ("LPS", "1 × 2 × 3", "SHA-256 " + report["weights"]["sha256"][:12], "x&lt;y reaches", "<td>5</td>"):
        assert said in page


def test_an_index_and_a_table_of_the_folder(folder):
    out, _ = folder
    page = (out / "index.html").read_text()
    assert "2 cases, 1 of them with warnings" in page and "x&lt;y 0.144 ml" in page
    assert '<a href="a%20%26%20b%20%231_report.html">a &amp; b #1</a>' in page and 'href="index.csv"' in page
    assert "<img" not in page  # where there are no pictures
    (out / "c_overlay.png").write_bytes(b"")
    (out / "other_report.json").write_text("[]")  # of another program
    write_index(out)
    assert '<img src="c_overlay.png"' in (out / "index.html").read_text()
    rows = list(csv.DictReader((out / "index.csv").open()))
    assert [(row["case"], row["structure"], float(row["volume"])) for row in rows] == [
        ("a & b #1", "x<y", pytest.approx(0.048)),
        ("c", "x<y", pytest.approx(0.144)),
    ]
    assert rows[1]["border"] == "R" and rows[1]["warnings"].count("; ") == 1 and rows[0]["warnings"] == ""
    assert float(rows[1]["volume_low"]) == float(rows[1]["volume_high"]) == pytest.approx(0.144)
    assert not [file for file in out.iterdir() if file.name.startswith(".")]
