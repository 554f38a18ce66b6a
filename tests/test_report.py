"""Numbers of a case against hand-computed ones, its page, and the handler that writes both."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor, decollate_batch
from monai.transforms import Compose, SaveImaged
from PIL import Image

from medsegdiff_bundle import configuration
from medsegdiff_bundle.case_page import html_report
from medsegdiff_bundle.handlers import ReportHandler
from medsegdiff_bundle.statistics import ensemble_statistics
from medsegdiff_bundle.transforms import EnsembleStatisticsd

ROOT = Path(__file__).parent.parent


def labels(*rows):
    return torch.tensor(rows, dtype=torch.uint8)


def test_by_hand():
    members = labels([1, 1, 0, 0, 2], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0])
    fused, uncertainty = labels(1, 1, 1, 0, 0), torch.tensor([0.0, 0.1, 0.5, 0.9, 0.4])
    result = ensemble_statistics(members, fused, uncertainty, ["liver", "tumour", "cyst"], voxel_volume=2000.0)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert (result["unit"], result["ensemble_size"], result["coverage"]) == ("ml", 3, 0.9)
    assert result["mean_uncertainty"] == pytest.approx(1.9 / 5)
    liver, tumour, cyst = result["structures"].values()
    assert (liver["volume"], liver["member_volumes"]) == (6.0, [4.0, 6.0, 8.0])
    assert (liver["volume_mean"], liver["volume_std"]) == pytest.approx((6.0, 2.0))
    # The 5th percentile of three values lies a tenth of the way from the first to the second.
    assert liver["volume_interval"] == pytest.approx([4.2, 7.8])
    assert liver["pairwise_dice"] == pytest.approx((4 / 5 + 4 / 6 + 6 / 7) / 3)
    assert liver["mean_uncertainty"] == pytest.approx(1.5 / 4)
    # One of three marks it: one pair of empty masks, 1, two pairs of 0.
    assert (tumour["volume"], tumour["pairwise_dice"]) == pytest.approx((0.0, 1 / 3))
    assert tumour["mean_uncertainty"] == pytest.approx(0.4)
    nothing = {"volume": 0, "member_volumes": [0, 0, 0], "volume_mean": 0, "volume_std": 0, "volume_interval": [0, 0]}
    agreement = {"pairwise_dice": 1.0, "expected_dice": 1.0, "mean_uncertainty": None}
    assert cyst == {**nothing, "members_interval": [0, 0], **agreement}


def test_one_member_has_no_spread():
    result = ensemble_statistics(labels([1, 0]), labels(1, 0), torch.rand(2), ["lesion"])
    lesion = result["structures"]["lesion"]
    assert (result["unit"], lesion["volume"], lesion["volume_mean"]) == ("pixels", 1.0, 1.0)
    assert lesion["volume_std"] is lesion["volume_interval"] is lesion["pairwise_dice"] is None


def test_equal_members_have_no_deviation_whatever_the_voxel():
    members = torch.zeros(7, 9, dtype=torch.uint8)
    members[:, :3] = 1
    lesion = ensemble_statistics(members, members[0], torch.rand(9), ["lesion"], 0.1)["structures"]["lesion"]
    assert lesion["volume_std"] == 0 and lesion["pairwise_dice"] == 1


@pytest.mark.parametrize(
    ("members", "fused", "message"),
    [
        (labels([1, 0]), labels(1, 0, 0), "got (1, 2), (3,) and (3,)"),
        (labels([2, 0, 0]), labels(1, 0, 0), "must be in 0..1, got 0..2"),
    ],
)
def test_refuses(members, fused, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ensemble_statistics(members, fused, torch.zeros(fused.shape), ["lesion"])


class Page(HTMLParser):
    """Tags that were opened and not closed, pictures, addresses, text."""

    def __init__(self, page):
        super().__init__()
        self.open, self.images, self.tags, self.text = [], [], set(), ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def disc(size, radius):
    """Members (3, S) that are discs or balls of growing radius around the middle."""
    squares = sum(torch.meshgrid(*[(torch.arange(n) - n // 2) ** 2 for n in size], indexing="ij"))
    return torch.stack([squares < (radius + step) ** 2 for step in range(3)]).to(torch.uint8)


@pytest.mark.parametrize(("size", "pictures"), [((50, 40), 4), ((50, 40, 12), 12)])  # a row for each plane
def test_page_needs_no_other_file(size, pictures):
    members = disc(size, 5)
    meta = {"filename_or_obj": "a.png" if len(size) == 2 else "a.nii.gz"}
    image = MetaTensor(torch.rand(1, *size), affine=torch.diag(torch.tensor([1.0, 2.0, 5.0, 1.0])), meta=meta)
    voxel_volume = 10.0 if len(size) == 3 else None
    statistics = ensemble_statistics(members, members[1], torch.rand(size), ["a<b"], voxel_volume)
    page = Page(html_report("case & 1", image, members[1], members, torch.rand(size), statistics))
    assert page.open == [] and not page.tags & {"script", "link", "iframe"}
    assert len(page.images) == pictures
    widths = []
    for each in page.images:
        kind, data = each["src"].split(",")
        assert kind == "data:image/png;base64"
        shown = Image.open(io.BytesIO(base64.b64decode(data)))
        assert shown.mode == "RGB" and max(shown.size) >= 256
        widths.append(shown.width / float(re.fullmatch(r"width: ([\d.]+)%", each["style"])[1]))
    assert max(widths) == pytest.approx(min(widths), rel=1e-2)  # one scale for all
    assert ("the patient's right (R) is on the left" in page.text) == (len(size) == 3)
    for text in ("case & 1", "a<b", "Not a medical device", "3 time(s)", "90%"):
        assert text in page.text
    unit, decimals = ("ml", 3) if len(size) == 3 else ("pixels", 1)
    values = statistics["structures"]["a<b"]
    assert f"fused mask, {unit}" in page.text
    assert all(f"{values[name]:.{decimals}f}" in page.text for name in ("volume", "volume_mean", "volume_std"))


def test_handler_names_each_case_by_its_file(tmp_path):
    members, cases = disc((20, 20, 8), 3), []
    for name in ("case.1", "case.2"):
        path = tmp_path / f"{name}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(np.random.default_rng(0).random((20, 20, 8)), np.eye(4)), path)
        cases.append(
            {
                "image": MetaTensor(torch.zeros(1), meta={"filename_or_obj": str(path)}),
                "pred": members[1:2].float(),
                "member_labels": members,
                "uncertainty": torch.rand(1, 20, 20, 8),
                "result": ensemble_statistics(members, members[1], torch.rand(20, 20, 8), [name], 1.0),
            }
        )
    for html in (True, False):
        evaluator = Engine(lambda engine, batch: [cases[batch]])
        ReportHandler(str(tmp_path / str(html)), html=html).attach(evaluator)
        evaluator.run([0, 1])
    assert {path.name for path in (tmp_path / "False").iterdir()} == {"case.1_report.json", "case.2_report.json"}
    for name in ("case.1", "case.2"):
        written = json.loads((tmp_path / "False" / f"{name}_report.json").read_text())
        assert written["case"] == name and list(written["structures"]) == [name]
        assert f"<h1>{name}</h1>" in (tmp_path / "True" / f"{name}_report.html").read_text()


def test_transforms_alone_give_the_numbers_and_write_nothing(small_run, tmp_path):
    """As MONAI Label runs them: without handlers, and without the transforms that save."""
    config = configuration.load(
        [ROOT / "configs" / "inference.json"], {**small_run, "output_dir": str(tmp_path / "nothing")}
    )
    batch = next(iter(config.get_parsed_content("dataloader")))
    members = torch.rand(1, 3, 3, *batch["image"].shape[2:]).softmax(2)
    batch["pred"] = MetaTensor(members).copy_meta_from(batch["image"])
    (case,) = decollate_batch(batch)
    transforms = config.get_parsed_content("postprocessing").transforms
    result = Compose([each for each in transforms if not isinstance(each, SaveImaged)])(case)["result"]
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    anterior = result["structures"]["anterior"]
    low, high = anterior["volume_interval"]
    assert 0 < low < anterior["volume_mean"] < high and 0 < result["mean_uncertainty"] <= 1
    assert anterior["mean_intensity"] > 1 and anterior["components"] > 1  # of the file's values, not of normalised ones
    assert any(sentence.startswith("anterior reaches the border") for sentence in result["warnings"])
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    ("members", "views", "expected", "sentence"),
    [
        (
            5,
            2,
            [3, 2],
            "take turns with 2 views, the image and its mirror images, and each view has 2 or 3: what differs",
        ),
        (
            4,
            4,
            [1, 1, 1, 1],
            "and each view has 1: what is due to the noise and what to mirroring cannot be told apart",
        ),
        (3, 1, [3], "Each is drawn from noise of its own, and all see the image as it is."),
        (1, 4, [1], None),
    ],
)
def test_page_says_what_was_drawn_and_what_was_mirrored(members, views, expected, sentence):
    labels_of_members = disc((20, 20), 4)[:1].repeat(members, 1, 1)
    data = {
        "pred": MetaTensor(labels_of_members[:1].float()),
        "member_labels": labels_of_members,
        "uncertainty": torch.zeros(1, 20, 20),
    }
    result = EnsembleStatisticsd("pred", ["lesion"], views=views)(data)["result"]
    assert result["views"] == expected
    page = Page(
        html_report("a", torch.rand(1, 20, 20), labels_of_members[0], labels_of_members, torch.rand(20, 20), result)
    )
    text = " ".join(page.text.split())
    assert sentence in text if sentence else "Each is drawn" not in text
