"""Images that no weights of this bundle know: volumes, and pictures in colour and in grey, for `known_cases.py`.

Constants, noise, ramps, spheres as of CT and MR, heads of ellipsoids, drawings and text are computed; the rest are cuts
and stacks of photographs, and of images of other tasks. Real cases become wrong ones: their values turned around or in
another order, their voxels of another size. `--photographs` is any folder of pictures; scikit-image brings one, `data`.

    python scripts/wrong_inputs.py --output wrong --photographs FOLDER --others FOLDER/images --volumes FOLDER/imagesTr

The folders `volumes`, `colour` and `grey` below `--output` are for the hippocampus, the lesions and the nodules.
What is of the task itself is no wrong input: leave its folder out.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

Array = NDArray[Any]

SHAPE = (35, 50, 36)  # about that of a volume of the hippocampus
PICTURES = (".png", ".jpg", ".jpeg")


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--photographs", type=Path, help="folder of pictures of anything but medicine")
    parser.add_argument("--others", type=Path, nargs="*", default=[], help="folders of pictures of other tasks")
    parser.add_argument("--volumes", type=Path, help="folder of volumes of the hippocampus, to be spoilt")
    parser.add_argument("--number", type=int, default=12, help="of each kind")
    return parser.parse_args()


def sphere(random: np.random.Generator, radius: float, inside: float, outside: float, noise: float) -> Array:
    """A ball in the middle of a volume."""
    off = np.indices(SHAPE) - (np.array(SHAPE)[:, None, None, None] - 1) / 2
    return np.where((off**2).sum(axis=0) < radius**2, inside, outside) + random.normal(0, noise, SHAPE)


def head(random: np.random.Generator) -> Array:
    """Ellipsoids like brain, skull and skin, in voxels of 3 mm."""
    off = np.stack(np.meshgrid(*[np.linspace(-1, 1, size) for size in (60, 72, 60)], indexing="ij"))
    radius = np.sqrt((off[0] / 0.75) ** 2 + (off[1] / 0.9) ** 2 + (off[2] / 0.8) ** 2)
    tissue = np.select([radius < 0.7, radius < 0.8, radius < 0.9], [300.0, 60.0, 500.0], 5.0)
    texture = 800 * ndimage.gaussian_filter(random.normal(size=radius.shape), 2)
    return tissue + texture * (radius < 0.7) + random.normal(0, 10, radius.shape)


def computed_volumes(random: np.random.Generator, number: int) -> Iterator[tuple[str, Array, Array]]:
    """Kind, values and affine of volumes of nothing."""
    for index in range(number):
        smooth = ndimage.gaussian_filter(random.normal(size=SHAPE), 1 + index % 8)
        yield "noise", random.random(SHAPE) ** (1 + index % 4) * 1000, np.eye(4)
        yield "smooth", 500 + 200 * smooth / smooth.std(), np.eye(4)
        yield "ctsphere", sphere(random, random.uniform(6, 16), 40, -1000, random.uniform(1, 50)), np.eye(4)
        yield "mrsphere", sphere(random, random.uniform(6, 16), 300, 100, random.uniform(1, 50)), np.eye(4)
    for value in (0, 100, -1000):
        yield "constant", np.full(SHAPE, value), np.eye(4)
    for axis in range(3):
        yield "ramp", 10.0 * np.indices(SHAPE)[axis], np.eye(4)
    for _ in range(2):
        yield "head", head(random), np.diag([3.0, 3, 3, 1])


def spoilt_volumes(folder: Path, random: np.random.Generator, number: int) -> Iterator[tuple[str, Array, Array]]:
    """Kind, values and affine of real volumes that became wrong."""
    files = sorted(file for file in folder.iterdir() if file.name.endswith((".nii", ".nii.gz")))
    for file in random.permutation(np.array(files, dtype=object))[:number]:
        image: Any = nibabel.load(file)  # type: ignore[attr-defined]
        values = np.asarray(image.dataobj, dtype=np.float32)
        yield "inverted", values.max() - values, image.affine
        yield "shuffled", random.permutation(values.ravel()).reshape(values.shape), image.affine
        yield "twice", values, image.affine @ np.diag([2.0, 2, 2, 1])
        yield "tenth", values, image.affine @ np.diag([0.1, 0.1, 0.1, 1])


def stacks(
    kind: str, files: list[Path], random: np.random.Generator, number: int
) -> Iterator[tuple[str, Array, Array]]:
    """Kind, values and affine of pictures that lie on one another, cut or made smaller."""
    for index in range(number):
        first = int(random.integers(max(1, len(files) - SHAPE[2])))
        size = None if index % 2 else (SHAPE[1], SHAPE[0])
        chosen = [files[(first + each) % len(files)] for each in range(SHAPE[2])]
        pictures = [Image.open(file).convert("L") for file in chosen]
        planes = [np.asarray(each.resize(size) if size else _middle(each)) for each in pictures]
        yield kind, np.stack(planes, axis=-1), np.eye(4)


def _middle(picture: Image.Image) -> Image.Image:
    left, top = (picture.width - SHAPE[1]) // 2, (picture.height - SHAPE[0]) // 2
    return picture.crop((left, top, left + SHAPE[1], top + SHAPE[0]))


def computed_pictures(random: np.random.Generator, number: int) -> Iterator[tuple[str, Image.Image]]:
    """Kind and pictures of nothing, in colour."""
    plane = (256, 256, 3)
    for index in range(number):
        yield "noise", _picture(random.random(plane) ** (1 + index % 3) * 255)
        smooth = ndimage.gaussian_filter(random.normal(size=plane), (2.0 ** (1 + index % 5),) * 2 + (0,))
        yield "smooth", _picture(128 + 50 * smooth / smooth.std())
        drawing = Image.new("RGB", plane[:2], tuple(random.integers(0, 256, 3).tolist()))
        text = Image.new("RGB", plane[:2], (255, 255, 255))
        for _ in range(1 + index):
            left, top, size = random.integers(0, 150, 3).tolist()
            colour = tuple(random.integers(0, 256, 3).tolist())
            ImageDraw.Draw(drawing).ellipse((left, top, left + size, top + size), fill=colour)
            ImageDraw.Draw(text).text((left, top), "a line of a report", fill=(0, 0, 0))
        yield "drawn", drawing
        yield "text", text
    for colour in ((0, 0, 0), (255, 255, 255), (200, 150, 130)):
        yield "constant", Image.new("RGB", plane[:2], colour)
    yield "ramp", _picture(np.repeat(np.indices(plane[:2])[0][..., None], 3, axis=2))


def cuts(kind: str, files: list[Path], random: np.random.Generator, number: int) -> Iterator[tuple[str, Image.Image]]:
    """Kind and parts of pictures, a third to all of their shorter side."""
    for index in range(number):
        picture = Image.open(files[index % len(files)]).convert("RGB")
        size = int(random.uniform(1 / 3, 1) * min(picture.size))
        left, top = (int(random.integers(whole - size + 1)) for whole in picture.size)
        yield kind, picture.crop((left, top, left + size, top + size))


def _picture(values: Array) -> Image.Image:
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def main() -> None:
    """Write them, and print how many."""
    options = arguments()
    random, number = np.random.default_rng(0), options.number
    folders = {name: options.output / name for name in ("volumes", "colour", "grey")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    sources = [("photo", options.photographs)] if options.photographs else []
    sources += [(f"other{index}", folder) for index, folder in enumerate(options.others, start=1)]
    volumes, pictures = [*computed_volumes(random, number)], [*computed_pictures(random, number)]
    if options.volumes:
        volumes += spoilt_volumes(options.volumes, random, number)
    for kind, folder in sources:
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() in PICTURES)
        volumes += stacks(kind, files, random, number)
        pictures += cuts(kind, files, random, number)
    for index, (kind, values, affine) in enumerate(volumes):
        image = nibabel.Nifti1Image(np.asarray(values, dtype=np.float32), affine)  # type: ignore[attr-defined]
        nibabel.save(image, folders["volumes"] / f"{kind}_{index:03d}.nii.gz")  # type: ignore[attr-defined]
    for index, (kind, picture) in enumerate(pictures):
        picture.resize((256, 256)).save(folders["colour"] / f"{kind}_{index:03d}.png")
        picture.convert("L").resize((128, 128)).save(folders["grey"] / f"{kind}_{index:03d}.png")
    print(f"{len(volumes)} volumes, {len(pictures)} pictures in {str(options.output)!r}")


if __name__ == "__main__":
    main()
