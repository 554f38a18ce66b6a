"""`medsegdiff prepare`: outlines in XML become masks."""

import json

import numpy as np
import pytest
from PIL import Image

from medsegdiff_bundle import cli
from medsegdiff_bundle.datalist import read_data_set
from medsegdiff_bundle.datalist.forms.sections import case_groups
from medsegdiff_bundle.planning.ddti import prepare_ddti

SQUARE = [(10, 5), (20, 5), (20, 15), (10, 15)]


def outline(*polygons):
    return json.dumps([{"points": [{"x": x, "y": y} for x, y in each], "regionType": "freehand"} for each in polygons])


def write(folder, case, marks):
    """A file of a patient, and pictures of 40 x 30 pixels."""
    folder.mkdir(exist_ok=True)
    text = "".join(f"<mark><image>{number}</image><svg>{svg}</svg></mark>" for number, svg in marks)
    (folder / f"{case}.xml").write_text(f"<case><number>{case}</number><age>40</age>{text}</case>")
    for number, _ in marks:
        Image.new("RGB", (40, 30), (number, 0, 0)).save(folder / f"{case}_{number}.jpg")


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "DDTI"
    write(folder, 7, [(1, outline(SQUARE)), (2, outline(SQUARE, [(30, 20), (38, 20), (38, 28)])), (3, "")])
    write(folder, 10, [(1, outline(SQUARE)), (1, outline([(1, 1), (4, 1), (4, 4), (1, 4)]))])
    return folder


def test_masks_are_what_is_within_the_outlines(source, tmp_path):
    done = []
    assert prepare_ddti(source, tmp_path / "out", done.append) == {"7_3.jpg": "it has no outline"} and done == [1, 1]
    names = ["patient007_1", "patient007_2", "patient010_1"]
    assert sorted(file.stem for file in (tmp_path / "out/masks").iterdir()) == names
    mask = np.asarray(Image.open(tmp_path / "out/masks/patient007_1.png"))
    expected = np.zeros((30, 40), dtype=np.uint8)
    expected[5:16, 10:21] = 255  # with its outline
    np.testing.assert_array_equal(mask, expected)
    assert np.asarray(Image.open(tmp_path / "out/masks/patient007_2.png"))[22, 37] == 255
    assert np.asarray(Image.open(tmp_path / "out/masks/patient010_1.png"))[[2, 10], [2, 12]].tolist() == [255, 255]
    for name, original in (("patient007_2", "7_2"), ("patient010_1", "10_1")):
        assert (tmp_path / f"out/images/{name}.jpg").read_bytes() == (source / f"{original}.jpg").read_bytes()


def test_what_is_written_is_a_data_set(source, tmp_path):
    for case in range(20, 29):
        write(source, case, [(1, outline(SQUARE)), (2, outline(SQUARE))])
    prepare_ddti(source, tmp_path / "out")
    found = read_data_set(tmp_path / "out")
    assert len(found.cases) == 21 and all(case.label is not None for case in found.cases)
    groups = case_groups(found.cases)
    assert len(set(groups)) == 11
    assert {group for group, case in zip(groups, found.cases, strict=True) if "020" in case.images[0].name} == {
        "patient020"
    }


@pytest.mark.parametrize(
    ("svg", "reason"),
    [
        (outline(SQUARE)[:-20], "its outline is damaged"),
        ('[{"annotation": {}}]', "its outline is damaged"),
        (outline(SQUARE[:2]), "its outline has fewer than three points"),
    ],
)
def test_outlines_that_are_none(svg, reason, source, tmp_path):
    write(source, 8, [(1, svg)])
    (source / "9.xml").write_text("<case>")
    write(source, 11, [])
    write(source, 12, [(1, outline(SQUARE))])
    (source / "12_1.jpg").unlink()
    left_out = prepare_ddti(source, tmp_path / "out")
    assert left_out.pop("9.xml").startswith("it is no XML: ")
    assert left_out == {
        "7_3.jpg": "it has no outline",
        "8_1.jpg": reason,
        "11.xml": "it marks no picture",
        "12_1.jpg": "it is missing",
    }


def test_nothing_is_outlined(tmp_path):
    write(tmp_path / "DDTI", 1, [(1, "")])
    with pytest.raises(ValueError, match="None of the 1 XML files in '.*DDTI' has an outline of a picture."):
        prepare_ddti(tmp_path / "DDTI", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command(source, tmp_path, capsys):
    words = ["prepare", "ddti", str(source), str(tmp_path / "out")]
    assert cli.main(words) == 1
    out, said = capsys.readouterr()
    assert "3 pictures with masks, 1 left out. The database was published for research" in out
    assert said == "left out: 7_3.jpg: it has no outline\n"
    assert cli.main(words) == 2
    assert capsys.readouterr().err == f"error: {str(tmp_path / 'out')!r} is there already and not empty.\n"
    assert cli.main(["prepare", "ddti", str(tmp_path / "none"), str(tmp_path / "b")]) == 2
    assert "error: There is no folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert cli.main(["prepare", "ddti", str(tmp_path / "empty"), str(tmp_path / "b")]) == 2
    assert "holds no XML files" in capsys.readouterr().err and not (tmp_path / "b").exists()
