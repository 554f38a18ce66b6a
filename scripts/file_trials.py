"""One embedded volume and one drawn picture, as scanners and other programs hand them over: what becomes of each.

Prints a Markdown table: the situation, the Dice of the mask with the label (of a picture with what was drawn), volumes,
and whether the mask lies on its image in ITK's programs; or the sentence of a refusal. With PYTHONPATH it shows another
version of the package. Examples:

    python scripts/file_trials.py
    python scripts/file_trials.py --situations "code 7|SPM"
"""

from __future__ import annotations

import argparse
import re
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK
from PIL import Image
from scipy import ndimage

import medsegdiff_bundle
from medsegdiff_bundle.segmentation import segment

SAMPLE = Path(medsegdiff_bundle.__file__).parent / "sample_data" / "hippocampus"
FILE, LABEL = (SAMPLE / folder / "hippocampus_001.nii.gz" for folder in ("imagesTr", "labelsTr"))
Array = np.ndarray
Make = Callable[[Path], tuple[Path, Array]]  # writes a file into a folder: the file, and its label in the file's grid


def volume() -> tuple[Array, Array, Array]:
    """Values, label and affine of the embedded volume."""
    image, label = nibabel.load(FILE), nibabel.load(LABEL)
    return np.asarray(image.dataobj, dtype=np.float32), np.asarray(label.dataobj), image.affine


def saved(change: Callable[[Array, bool], Array], affine: Array | None = None) -> Make:
    """The volume and its label after a change, told whether it is the label."""

    def make(folder: Path) -> tuple[Path, Array]:
        values, label, own = volume()
        nibabel.save(nibabel.Nifti1Image(change(values, False), own if affine is None else affine), folder / "x.nii.gz")
        return folder / "x.nii.gz", change(label, True)

    return make


def header(change: Callable[[nibabel.Nifti1Image], None]) -> Make:
    """The volume with another header."""

    def make(folder: Path) -> tuple[Path, Array]:
        values, label, affine = volume()
        image = nibabel.Nifti1Image(values, affine)
        change(image)
        nibabel.save(image, folder / "x.nii.gz")
        return folder / "x.nii.gz", label

    return make


def resampled(size: float) -> Make:
    """The volume with voxels of another size, and its label by the nearest voxel."""
    affine = volume()[2] @ np.diag([size, size, size, 1])
    return saved(lambda x, label: ndimage.zoom(x, 1 / size, order=0 if label else 1, grid_mode=False), affine)


def format_of(ending: str) -> Make:
    """The volume in another format, by SimpleITK, or by nibabel for MGH."""

    def make(folder: Path) -> tuple[Path, Array]:
        file = folder / f"x{ending}"
        values, label, affine = volume()
        if ending in (".mgz", ".mgh"):
            nibabel.save(nibabel.MGHImage(values, affine), file)
        else:
            SimpleITK.WriteImage(SimpleITK.ReadImage(str(FILE)), str(file))
        return file, label

    return make


def photograph(orientation: int) -> Make:
    """A drawn lesion as a camera stores it, and what every viewer shows of it, (W, H)."""

    def make(folder: Path) -> tuple[Path, Array]:
        y, x = np.ogrid[:240, :200]
        lesion = ((y - 80) / 40) ** 2 + ((x - 120) / 55) ** 2 < 1
        share = ndimage.gaussian_filter(lesion.astype(float), 2)[..., None]
        noise = np.random.default_rng(0).normal(size=(240, 200))
        texture = ndimage.gaussian_filter(noise, 2)[..., None] * 40
        colour = share * np.array([110, 70, 50]) + (1 - share) * np.array([225, 180, 165]) + texture
        shown = Image.fromarray(np.clip(colour, 0, 255).astype(np.uint8))
        turns = [
            "FLIP_LEFT_RIGHT",
            "ROTATE_180",
            "FLIP_TOP_BOTTOM",
            "TRANSPOSE",
            "ROTATE_90",
            "TRANSVERSE",
            "ROTATE_270",
        ]
        back = {number: Image.Transpose[name] for number, name in enumerate(turns, start=2)}
        exif = Image.Exif()
        exif[274] = orientation
        stored = shown.transpose(back[orientation]) if orientation in back else shown
        stored.save(folder / "x.jpg", exif=exif, quality=95)
        return folder / "x.jpg", lesion.astype(np.uint8)

    return make


def turned(values: Array, label: bool) -> Array:
    """Turned by 10 degrees into a new grid, whose corners are 0."""
    return ndimage.rotate(values, 10, order=0 if label else 1)


def cut_out(values: Array, label: bool) -> Array:
    """With 0 in the place of all that is more than 6 voxels off the structure."""
    near = ndimage.binary_dilation(volume()[1] > 0, iterations=6)
    return values if label else np.where(near, values, 0).astype(values.dtype)


def codes(sform: int, qform: int) -> Make:
    """Sform and qform 8 mm apart, with these codes."""

    def change(image: nibabel.Nifti1Image) -> None:
        apart = image.affine.copy()
        apart[2, 3] += 8
        image.header.set_sform(image.affine)
        image.header.set_qform(apart)
        image.header["sform_code"], image.header["qform_code"] = sform, qform  # also those that NIfTI does not have

    return header(change)


def placed_by_spm(folder: Path) -> tuple[Path, Array]:
    """The volume in Analyze as a program stores it whose voxels run to the right, placed by SPM's file beside it."""
    values, label, affine = volume()
    turned_over = affine @ np.diag([-1.0, -1, 1, 1])
    turned_over[:2, 3] = (affine @ [values.shape[0] - 1, values.shape[1] - 1, 0, 1])[:2]
    nibabel.save(nibabel.Spm99AnalyzeImage(values[::-1, ::-1].copy(), turned_over), folder / "x.img")
    return folder / "x.img", label[::-1, ::-1]


def without_compressed_size(folder: Path) -> tuple[Path, Array]:
    """The volume as a compressed MetaImage that leaves out the optional length of its values."""
    values, label, _ = volume()
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(FILE), SimpleITK.sitkInt16), str(folder / "plain.mha"))
    head, _, _ = (folder / "plain.mha").read_bytes().partition(b"ElementDataFile")
    head = head.replace(b"CompressedData = False", b"CompressedData = True") + b"ElementDataFile = LOCAL\n"
    packed = zlib.compress(values.astype("<i2").transpose(2, 1, 0).tobytes())
    (folder / "x.mha").write_bytes(head + packed)
    return folder / "x.mha", label


def micrometres(folder: Path) -> tuple[Path, Array]:
    """The volume with lengths in micrometres, and said so."""
    values, label, affine = volume()
    image = nibabel.Nifti1Image(values, np.diag([1000, 1000, 1000, 1]) @ affine)
    image.header.set_xyzt_units("micron")
    nibabel.save(image, folder / "x.nii.gz")
    return folder / "x.nii.gz", label


SITUATIONS: dict[str, Make] = {
    "the file as it is": header(lambda image: None),
    **{
        f"a rim of {rim} voxels of {value}": saved(
            lambda x, label, r=rim, v=value: np.pad(x, r, constant_values=0 if label else v)
        )
        for rim, value in ((1, 0), (4, 0), (12, 0), (4, -1024))
    },
    "turned by 10 degrees into a new grid": saved(turned),
    "the same, with the rings of a cubic spline": saved(
        lambda x, label: ndimage.rotate(x, 10, order=0 if label else 3)
    ),
    "its surroundings cut away, as of a stripped skull": saved(cut_out),
    **{f"voxels of {size} mm": resampled(size) for size in (0.5, 0.7, 1.4, 2.0, 3.0)},
    **{f"sform and qform 8 mm apart, codes {a} and {b}": codes(a, b) for a, b in ((1, 1), (2, 1), (1, 2))},
    "lengths in micrometres": micrometres,
    **{f"as {ending}": format_of(ending) for ending in (".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh", ".img")},
    "a sform of code 7 and no qform": codes(7, 0),
    "Analyze, placed by SPM's .mat": placed_by_spm,
    "a compressed .mha without the length of its values": without_compressed_size,
    "the same value everywhere": saved(lambda x, label: x if label else np.full_like(x, 5)),
    **{f"photograph, Exif orientation {number}": photograph(number) for number in range(1, 9)},
}


def dice(mask: Array, label: Array) -> str:
    """Of each class that the label holds."""
    if mask.shape != label.shape:
        return f"mask of {mask.shape}, shown {label.shape}"
    each = [(mask == k, label == k) for k in range(1, int(label.max()) + 1)]
    return " / ".join(f"{2 * (a & b).sum() / max(1, a.sum() + b.sum()):.3f}" for a, b in each)


def lies_on_its_image(image: Path, mask: Path) -> str:
    """Whether ITK takes the mask for one of the image."""
    try:
        SimpleITK.Mask(SimpleITK.ReadImage(str(image)), SimpleITK.ReadImage(str(mask), SimpleITK.sitkUInt8))
    except RuntimeError:
        return "no"
    return "yes"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--situations", default="", metavar="PATTERN", help="those whose names match (default: all)")
    pattern = parser.parse_args().situations
    print(
        f"Version {medsegdiff_bundle.__version__}\n\n| file | Dice | volumes | on its image in ITK |\n|---|---|---|---|"
    )
    for name, make in SITUATIONS.items():
        if not re.search(pattern, name):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            file, label = make(Path(scratch))
            task = "isic" if file.suffix == ".jpg" else "hippocampus"
            try:
                found = segment(file, task, output_dir=Path(scratch) / "out", device="cpu")
            except ValueError as error:
                print(f"| {name} | {str(error).replace(scratch + '/', '')} | | |", flush=True)
                continue
            unit = found.report["unit"]
            volumes = ", ".join(f"{each['volume']:.4g} {unit}" for each in found.report["structures"].values())
            on_it = "" if file.suffix in (".jpg", ".mgz", ".mgh") else lies_on_its_image(file, found.mask_file)
            print(f"| {name} | {dice(found.mask, label)} | {volumes} | {on_it} |", flush=True)


if __name__ == "__main__":
    main()
