"""Pictures with a file for each channel, as nnU-Net lays them out."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from medsegdiff_bundle import cli
from medsegdiff_bundle.datalist import segmentation_datalist
from medsegdiff_bundle.transforms import LoadImaged, OriginalImaged

SMALL = {"network_def#channels": [4, 8], "network_def#denoiser_channels": [4, 8], "network_def#num_heads": 2}
SMALL |= {"network_def#token_size": 2, "num_inference_steps": 1, "ensemble_size": 2, "val_interval": 1}
SMALL |= {"network_def#strides": [[2, 2]], "network_def#kernel_sizes": [[3, 3], [3, 3]], "patch_size": [16, 16]}
SMALL |= {"picture_size": [16, 16]}


def pictures_of_channels(root, channels, cases=6):
    """Raw data of nnU-Net: channel c of case n is 20 c + n, and brighter where the label is 1."""
    names = {str(channel): f"stain {channel}" for channel in range(channels)}
    content = {"channel_names": names, "labels": {"background": 0, "cell": 1}, "numTraining": cases}
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    (root / "dataset.json").write_text(json.dumps(content | {"file_ending": ".png"}))
    label = np.zeros((20, 24), np.uint8)
    label[5:12, 6:15] = 1
    for number in range(cases):
        Image.fromarray(label).save(root / "labelsTr" / f"case{number}.png")
        for channel in range(channels):
            values = (20 * channel + number + 100 * label).astype(np.uint8)
            Image.fromarray(values).save(root / "imagesTr" / f"case{number}_{channel:04d}.png")
    return root


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_each_file_is_a_channel(channels, tmp_path):
    case = segmentation_datalist(pictures_of_channels(tmp_path, channels), "training", channels, 2)[0]
    image = LoadImaged("image", channels)(case)["image"]
    expected = torch.tensor([20.0 * channel + 1 for channel in range(channels)])
    assert torch.equal(image[:, 0, 0].as_tensor(), expected)
    again = OriginalImaged("image")({"image": image})["original"]
    assert again[0, 0, 0] == 1 and again.shape[1:] == (24, 20)


@pytest.mark.parametrize("channels", [2, 3])
def test_from_a_check_to_masks(channels, tmp_path, no_measurements):
    root = pictures_of_channels(tmp_path / "set", channels)
    settings = tmp_path / "mine.json"
    assert cli.main(["check", str(root)]) == 0
    words = ["--memory", "8GB", "--hours", "1", "-d", "cpu"]
    assert cli.main(["configure", str(root), "-o", str(settings), *words]) == 0
    entries = json.loads(settings.read_text())
    assert entries["image_channels"] == channels
    settings.write_text(json.dumps(entries | SMALL))
    training = ["train", str(settings), "-o", str(tmp_path / "training"), "--epochs", "1"]
    assert cli.main([*training, "-d", "cpu", "-q"]) == 0
    weights = ["-c", str(tmp_path / "training" / "model.pt"), "-t", str(settings), "-d", "cpu", "-q"]
    assert cli.main(["segment", str(root / "imagesTr"), "-o", str(tmp_path / "masks"), *weights]) == 0
    assert len([*(tmp_path / "masks").glob("*_seg.png")]) == 6
