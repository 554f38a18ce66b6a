"""What transforms say about a case reaches its result, before and after inference, alone and in batches."""

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.transforms import CenterSpatialCrop, Compose, Lambdad, Orientation, Orientationd, Resize, SpatialPad
from PIL import Image

from medsegdiff_bundle.remarks import add_processing, add_warning, operations, remarks
from medsegdiff_bundle.transforms import EnsembleStatisticsd, LoadImaged


def warned(data):
    if "b.png" in data["image"].meta["filename_or_obj"]:
        add_warning(data, "The picture\nis blurred.")
        add_warning(data, "The picture is blurred.")  # said once
        add_processing(data, "Turned.")
    return data


@pytest.mark.parametrize("batch_size", [1, 2])
def test_from_the_file_to_the_result(batch_size, tmp_path):
    for name in "ab":
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / f"{name}.png")
    files = [{"image": str(tmp_path / f"{name}.png")} for name in "ab"]
    read = Compose([LoadImaged("image"), warned, Lambdad("image", lambda image: image[None] + 1)])
    results = []
    for batch in DataLoader(Dataset(files, read), batch_size=batch_size):
        for case in decollate_batch(batch):
            maps = {"pred": torch.zeros(1, 8, 8), "member_labels": torch.zeros(2, 8, 8, dtype=torch.uint8)}
            case |= {**maps, "uncertainty": torch.zeros(1, 8, 8)}
            case = EnsembleStatisticsd("pred", ["lesion"])(case)
            add_warning(case, "No SEG.")
            add_warning(case, "No SEG.")
            results.append(case["result"])
    assert [result["warnings"] for result in results] == [["No SEG."], ["The picture is blurred.", "No SEG."]]
    assert [result["processing"] for result in results] == [[], ["Turned."]]


def test_a_reader_has_the_metadata_alone():
    metadata = {}
    add_processing(metadata, "Turned.")
    image = MetaTensor(torch.zeros(1, 4, 4, 4), meta=metadata)
    turned = Orientationd("image", "LPS", labels=None)({"image": image})["image"]
    assert remarks(turned.meta) == {"warnings": [], "processing": ["Turned."]}


def test_what_was_done_to_the_grid():
    affine = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0]))
    image = MetaTensor(torch.zeros(1, 6, 4, 4), affine=affine, meta={"original_affine": affine})
    prepared = Compose(
        [Orientation("RAS", labels=None), Resize((8, 4, 4)), CenterSpatialCrop((4, 4, 4)), SpatialPad((4, 4, 6))]
    )(image)
    assert operations(prepared) == [
        "Turned from LPS to RAS.",
        "Resized from 6 x 4 x 4 to 8 x 4 x 4 voxels.",
        "Cropped from 8 x 4 x 4 to 4 x 4 x 4 voxels.",
        "Padded from 4 x 4 x 4 to 4 x 4 x 6 voxels.",
    ]
    picture = MetaTensor(torch.zeros(3, 6, 4))
    assert operations(Resize((4, 4))(picture)) == ["Resized from 6 x 4 to 4 x 4 pixels."]
    assert operations(Resize((6, 4))(picture)) == []
