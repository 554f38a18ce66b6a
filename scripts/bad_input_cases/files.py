"""Images that cannot be segmented, and other files and arrays."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

import medsegdiff_bundle

from .doors import OUT, ROOT, Make, Trial, calling, holding, in_turn, labelling, running, segmenting
from .writers import Foreign, content, cut, metaimage, nifti, npy, nrrd, picture, png_of_size, series, setting, values

SHEAR = np.array([[1, 1, 0, 0], [0, 1e-9, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
NAN, BIG = float("nan"), 1e30
VOLUMES: dict[str, tuple[str, Make | None]] = {  # by fault: the file, and how it is made
    "a missing file": ("nowhere.nii.gz", None),
    "an empty file": ("x.nii", content(b"")),
    "an empty .nii.gz": ("x.nii.gz", content(b"", "x.nii.gz")),
    "a cut .nii.gz": ("x.nii.gz", cut("image.nii.gz", "x.nii.gz")),
    "a .nii.gz cut within its header": ("x.nii.gz", cut("image.nii.gz", "x.nii.gz", 0.01)),
    "a .nii.gz without its checksum": ("x.nii.gz", cut("image.nii.gz", "x.nii.gz", 0.9999)),
    "a text": ("x.nii", content("This is no image.\n" * 50)),
    "a text as .nii.gz": ("x.nii.gz", content("This is no image.\n", "x.nii.gz")),
    "a text as .txt": ("x.txt", content("This is no image.\n", "x.txt")),
    "a page of HTML": ("x.nii.gz", content("<html>Not found</html>", "x.nii.gz")),
    "a picture as .nii": ("x.nii", lambda folder: shutil.copy(folder / "picture.png", folder / "x.nii")),
    "a folder called x.nii": ("x.nii", lambda folder: (folder / "x.nii").mkdir()),
    "an empty folder": ("empty", lambda folder: (folder / "empty").mkdir()),
    "a folder of texts": ("f", lambda folder: (folder / "f").mkdir() or (folder / "f" / "a.txt").write_text("a")),
    "a wrong magic": ("x.nii", nifti(magic=b"abcd")),
    "dim[0] 0": ("x.nii", nifti(dim=[0, 24, 24, 24, 1, 1, 1, 1])),
    "dim[0] 9": ("x.nii", nifti(dim=[9, 24, 24, 24, 1, 1, 1, 1])),
    "dim[0] -3": ("x.nii", nifti(dim=[-3, 24, 24, 24, 1, 1, 1, 1])),
    "an axis of 0": ("x.nii", nifti(dim=[3, 24, 0, 24, 1, 1, 1, 1])),
    "an axis of -24": ("x.nii", nifti(dim=[3, 24, -24, 24, 1, 1, 1, 1])),
    "sizes of 32767": ("x.nii", nifti(dim=[3, 32767, 32767, 32767, 1, 1, 1, 1])),
    "sizes of 32767 in .nii.gz": ("x.nii.gz", nifti(name="x.nii.gz", dim=[3, 32767, 32767, 32767, 1, 1, 1, 1])),
    "two axes": ("x.nii", nifti(values((24, 24)))),
    "four axes": ("x.nii", nifti(values((24, 24, 24, 3)))),
    "five axes": ("x.nii", nifti(values((24, 24, 24, 2, 2)))),
    "complex numbers": ("x.nii", nifti(values().astype(np.complex64))),
    "a type that is none": ("x.nii", nifti(datatype=77)),
    "a type of RGB": ("x.nii", nifti(np.zeros((24, 24, 24), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")]))),
    "NaN all over": ("x.nii", nifti(np.full((24, 24, 24), np.nan, dtype=np.float32))),
    "an infinite value": ("x.nii", nifti(np.where(np.arange(24) == 5, np.inf, values()).astype(np.float32))),
    "a slope of 1e38": ("x.nii", nifti((values() * 100).astype(np.int16) + 1, scl_slope=3e38)),
    "an offset of values of -5": ("x.nii", nifti(vox_offset=-5.0)),
    "an offset of values of 1e9": ("x.nii", nifti(vox_offset=1e9)),
    "an offset of values of NaN": ("x.nii", nifti(vox_offset=NAN)),
    "constant values": ("x.nii", nifti(np.full((24, 24, 24), 7, dtype=np.float32))),
    "one voxel": ("x.nii", nifti(values((1, 1, 1)))),
    "a singular sform": ("x.nii", nifti(sform_code=1, qform_code=0, srow_x=[0, 0, 0, 0])),
    "a sheared sform that is flat": ("x.nii", nifti(affine=SHEAR)),
    "an sform of NaN": ("x.nii", nifti(sform_code=1, qform_code=0, srow_x=[NAN, 0, 0, 0])),
    "an sform of infinity": ("x.nii", nifti(sform_code=1, qform_code=0, srow_y=[0, np.inf, 0, 0])),
    "voxels of 1e30 mm": ("x.nii", nifti(affine=np.diag([BIG, BIG, BIG, 1]))),
    "voxels of 1e-30 mm": ("x.nii", nifti(affine=np.diag([1e-30, 1e-30, 1e-30, 1]))),
    "voxels of 0 mm": ("x.nii", nifti(sform_code=0, qform_code=0, pixdim=[1, 0, 0, 0, 1, 1, 1, 1])),
    "voxels of NaN mm": ("x.nii", nifti(sform_code=0, qform_code=0, pixdim=[1, NAN, 1, 1, 1, 1, 1, 1])),
    "a qform that is no rotation": ("x.nii", nifti(sform_code=0, qform_code=1, quatern_b=3.0, quatern_c=3.0)),
    "a unit that is none": ("x.nii", nifti(xyzt_units=7)),
    "an .img without .hdr": ("x.img", content(b"\0" * 5000, "x.img")),
    "an .hdr without .img": ("x.hdr", content(b"\0" * 348, "x.hdr")),
    "a text as NRRD": ("x.nrrd", content("NRRD0004\nno\n\n", "x.nrrd")),
    "a cut NRRD": ("x.nrrd", content(nrrd()[:5000], "x.nrrd")),
    "NRRD of size 0": ("x.nrrd", content(nrrd(sizes="24 0 24"), "x.nrrd")),
    "NRRD of huge sizes": ("x.nrrd", content(nrrd(sizes="100000 100000 100000"), "x.nrrd")),
    "NRRD of a type that is none": ("x.nrrd", content(nrrd(type="quaternion"), "x.nrrd")),
    "NRRD with axes of NaN": ("x.nrrd", content(nrrd(space_directions="(nan,0,0) (0,1,0) (0,0,1)"), "x.nrrd")),
    "NRRD with flat axes": ("x.nrrd", content(nrrd(space_directions="(1,0,0) (1,0,0) (0,0,1)"), "x.nrrd")),
    "NRRD with axes of 0": ("x.nrrd", content(nrrd(space_directions="(0,0,0) (0,1,0) (0,0,1)"), "x.nrrd")),
    "NRRD in parsecs": ("x.nrrd", content(nrrd(space_units='"pc" "pc" "pc"'), "x.nrrd")),
    "an .nhdr without values": ("x.nhdr", content(nrrd(data_file="gone.raw"), "x.nhdr")),
    "a text as MetaImage": ("x.mha", content("no\n", "x.mha")),
    "a cut MetaImage": ("x.mha", content(metaimage()[:5000], "x.mha")),
    "MetaImage of size 0": ("x.mha", content(metaimage(DimSize="24 0 24"), "x.mha")),
    "MetaImage of huge sizes": ("x.mha", content(metaimage(DimSize="100000 100000 100000"), "x.mha")),
    "MetaImage with spacing 0": ("x.mha", content(metaimage(ElementSpacing="0 1 1"), "x.mha")),
    "MetaImage with spacing NaN": ("x.mha", content(metaimage(ElementSpacing="nan 1 1"), "x.mha")),
    "MetaImage with flat axes": ("x.mha", content(metaimage(TransformMatrix="1 0 0 1 0 0 0 0 1"), "x.mha")),
    "an .mhd without values": ("x.mhd", content(metaimage(ElementDataFile="gone.raw"), "x.mhd")),
    "a text as MGH": ("x.mgz", content("no", "x.mgz")),
    "an array with objects": ("x.npy", content(npy(np.array([Foreign()], dtype=object)), "x.npy")),
    "a text as .npy": ("x.npy", content("no", "x.npy")),
    "a zip that is none": ("x.zip", content("no", "x.zip")),
    "a text as DICOM": ("x.dcm", content("no", "x.dcm")),
    "DICOM with nothing behind its preamble": ("x.dcm", content(b"\0" * 128 + b"DICM", "x.dcm")),
    "a series without places": ("series", series(setting("ImagePositionPatient", None))),
    "a series with one slice without a place": ("series", series(setting("ImagePositionPatient", None, 1))),
    "a series without spacing": ("series", series(setting("PixelSpacing", None))),
    "a series with spacing 0": ("series", series(setting("PixelSpacing", [0, 0]))),
    "a series without pixels": ("series", series(setting("PixelData", None))),
    "a series with too few pixels": ("series", series(setting("PixelData", b"\0" * 100))),
    "a series of slices of two sizes": ("series", series(setting("Rows", 12, 2))),
    "a series of all slices at one place": ("series", series(setting("ImagePositionPatient", [0, 0, 0]))),
    "a series with a gap": ("series", series(setting("ImagePositionPatient", [0, 0, 30], 3))),
    "a series without directions": ("series", series(setting("ImageOrientationPatient", None))),
    "a series with directions of 0": ("series", series(setting("ImageOrientationPatient", [0] * 6))),
    "a series without rows": ("series", series(setting("Rows", None))),
}
PICTURES: dict[str, tuple[str, Make | None]] = {
    "a picture of 1 x 1": ("x.png", picture(np.zeros((1, 1, 3), dtype=np.uint8))),
    "a picture of 1 x 9": ("x.png", picture(np.zeros((1, 9), dtype=np.uint8))),
    "an empty picture": ("x.png", content(b"", "x.png")),
    "a cut picture": ("x.png", cut("picture.png", "x.png")),
    "a picture cut in its header": ("x.png", cut("picture.png", "x.png", 0.01)),
    "a text as .jpg": ("x.jpg", content("no", "x.jpg")),
    "a picture of 60000 x 60000": ("x.png", content(png_of_size(60000, 60000), "x.png")),
    "a picture of 0 x 0": ("x.png", content(png_of_size(0, 0), "x.png")),
    "a volume for pictures": ("image.nii.gz", None),
    "a missing picture": ("nowhere.png", None),
    "several pictures in one GIF": (
        "x.gif",
        lambda folder: Image.new("L", (8, 8)).save(
            folder / "x.gif", save_all=True, append_images=[Image.new("L", (8, 8), 9)]
        ),
    ),
    "a TIFF with NaN": ("x.tif", picture(np.full((16, 16), np.nan, dtype=np.float32), "x.tif")),
    "a folder of pictures that is empty": ("empty", lambda folder: (folder / "empty").mkdir()),
}


def files() -> Iterator[Trial]:
    """Bad images, through the doors in turn."""
    for turn, (what, (name, make)) in enumerate(VOLUMES.items()):
        doors = [
            Trial("medsegdiff segment", "file", what, segmenting(image=name), (name,), make),
            Trial("segment()", "file", what, calling(image=name), (name,), make),
            Trial("monai.bundle run", "file", what, running("dataset_dir", name), (name,), make),
        ]
        yield from in_turn(doors, turn, 2 if turn % 4 == 0 else 1)
        if turn % 5 == 0:
            yield Trial("MONAI Label's way", "file", what, labelling(name), (name,), make)
    for turn, (what, (name, make)) in enumerate(PICTURES.items()):
        words = segmenting(["--task", "isic"], name, checkpoint="picture.pt")
        of_isic = str(ROOT / "configs" / "tasks" / "isic.json")
        run = running("dataset_dir", name, files=[of_isic], checkpoint="picture.pt")
        held = holding(image=name, task="isic", checkpoint="picture.pt")
        doors = [
            Trial("medsegdiff segment", "file", what, words, (name,), make),
            Trial("monai.bundle run", "file", what, run, (name,), make),
            Trial("Segmenter", "file", what, held, (name,), make),
        ]
        yield from in_turn(doors, turn)
    arrays = {
        "an array of two axes": np.zeros((4, 4)),
        "an array of five axes": np.zeros((4, 4, 4, 1, 1)),
        "an array without voxels": np.zeros((4, 0, 4)),
        "an array of NaN": np.full((4, 4, 4), np.nan),
        "an array of objects": np.full((4, 4, 4), None),
        "an array of texts": np.full((4, 4, 4), "a"),
        "an array of complex numbers": np.zeros((4, 4, 4), dtype=complex),
        "an array of two channels": np.zeros((4, 4, 4, 2)),
        "a list": [[1, 2], [3, 4]],
        "None": None,
        "a number": 3,
    }
    for what, array in arrays.items():
        yield Trial("segment()", "file", what, calling(image=array))
    for what, affine in {
        "an affine of 0": np.zeros((4, 4)),
        "an affine of NaN": np.full((4, 4), np.nan),
        "an affine of 3 x 3": np.eye(3),
        "a text as affine": "RAS",
        "an affine without a last row": np.vstack([np.eye(4)[:3], [1, 1, 1, 1]]),
        "an affine of texts": [["a"] * 4] * 4,
    }.items():
        yield Trial("segment()", "file", what, _with_affine(affine), ("affine",))
    yield Trial(
        "segment()", "file", "results into a file", calling(output_dir="image.nii.gz"), ("image.nii.gz", "not a folder")
    )
    words = ["segment", "image.nii.gz", "-o", "picture.png"]
    yield Trial("medsegdiff segment", "file", "results into a file", words, ("picture.png",))
    for name in ("picture.png", "gone.json"):
        yield Trial("medsegdiff segment", "file", f"the report {name}", segmenting(["--like", name]), (name,))
    for what, text in {"a list": "[]", "a number": "3", "an empty object": "{}", "no JSON": "{", "nothing": ""}.items():
        yield Trial(
            "medsegdiff segment", "file", f"a report that is {what}", segmenting(["--like", "r.json"]), ("r.json",),
            content(text, "r.json"),
        )  # fmt: skip


def _with_affine(affine: Any) -> Callable[[], object]:
    return lambda: medsegdiff_bundle.segment(
        np.zeros((8, 8, 8)), affine=affine, output_dir=OUT, checkpoint="weights.pt", device="cpu"
    )
