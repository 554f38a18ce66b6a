"""The tasks of configs/tasks on tiny pictures made here: train, evaluate, segment."""

import csv
import json
from pathlib import Path

import monai.bundle
import nibabel
import numpy as np
import pytest
import torch
from matplotlib.image import imread
from monai.transforms import RandomizableTrait, RandRotate90d
from PIL import Image

from medsegdiff_bundle import configuration

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"
NAMES = "abcde"
SIZE = {"isic": (40, 28), "lidc": (32, 32)}  # width, height
SMALL = {
    "bundle_root": str(ROOT),
    "device": "cpu",
    "network_def#channels": [4, 8, 8],
    "network_def#denoiser_channels": [4, 8, 8],
    "network_def#num_heads": 2,
    "network_def#token_size": 2,
    "patch_size": [16, 16],
    "max_shift": 8,
    "num_inference_steps": 2,
}


def bundle_run(*files, run_id="run", **settings):
    if "tasks/lidc.json" not in files:
        settings.pop("max_shift", None)  # which only nodules have
    monai.bundle.run(
        run_id=run_id,
        config_file=[str(CONFIGS / name) for name in files],
        meta_file=str(CONFIGS / "metadata.json"),
        logging_file=str(CONFIGS / "logging.conf"),
        **settings,
    )


def blob(size, seed):
    """A wide, flat box in the upper left: (H, W) bool, as a picture shows it."""
    width, height = size
    mask = np.zeros((height, width), dtype=bool)
    mask[2 + seed : 8 + seed, 4 : width // 2] = True
    return mask


def lesion(folder, name, seed):
    """A bright lesion, with the mask in one bit."""
    mask = blob(SIZE["isic"], seed)
    picture = np.full((*mask.shape, 3), 60, dtype=np.uint8)
    picture[mask] = 200, 160, 120
    Image.fromarray(picture).save(folder / "images" / f"{name}.png")
    Image.fromarray(mask).save(folder / "masks" / f"{name}.png")


def nodule(folder, name, seed):
    """A nodule that three readers drew, the third smaller, with their masks in the bits of a palette PNG."""
    mask = blob(SIZE["lidc"], seed)
    Image.fromarray((60 + 140 * mask).astype(np.uint8)).save(folder / "images" / f"{name}.png")
    smaller = mask & (np.arange(mask.shape[1]) < 8)
    packed = Image.fromarray((mask * 0b0011 + smaller * 0b0100).astype(np.uint8), mode="P")
    packed.putpalette([value for grey in range(16) for value in [17 * grey] * 3])
    packed.save(folder / "masks" / f"{name}.png", bits=4)


@pytest.fixture(scope="module", params=["isic", "lidc"])
def task(request, tmp_path_factory):
    """Name of the task, folder of its pictures, folder of a training of one epoch."""
    data, output = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("training")
    for part in ("images", "masks"):
        (data / part).mkdir()
    for seed, name in enumerate(NAMES):
        {"isic": lesion, "lidc": nodule}[request.param](data, name, seed)
    splits = {"train": list("abc"), "val": ["d"], "test": ["e"]}
    (data / "splits.json").write_text(json.dumps(splits))
    bundle_run(
        "train.json",
        f"tasks/{request.param}.json",
        run_id="training",
        dataset_dir=str(data),
        output_dir=str(output),
        epochs=1,
        val_interval=1,
        batch_size=3,
        ensemble_size=3,
        **SMALL,
    )
    return request.param, data, output


def test_training(task):
    weights = torch.load(task[2] / "model.pt", weights_only=True)
    assert weights["condition_model.head.weight"].shape[0] == 2
    assert len(list((task[2] / "overlays").glob("epoch_0001_d.png"))) == 1


def test_training_to_draw(task, tmp_path):
    """Several masks of each image against all of its raters, on a Condition Model that stays as it is."""
    name, data, output = task
    bundle_run(
        "train.json",
        f"tasks/{name}.json",
        "denoiser_only.json",
        run_id="training",
        dataset_dir=str(data),
        output_dir=str(tmp_path),
        pretrained=str(output / "model.pt"),
        drawn_members=2,
        epochs=2,  # the first iteration has a learning rate of 0
        val_interval=2,
        batch_size=1,
        ensemble_size=2,
        **SMALL,
    )
    before, after = (torch.load(folder / "model.pt", weights_only=True) for folder in (output, tmp_path))
    changed = {key for key in after if not torch.equal(before[key], after[key])}
    assert changed and not any(key.startswith("condition_model.") for key in changed)
    assert all(weight.isfinite().all() for weight in after.values())


@pytest.mark.parametrize(("drawn", "raters"), [(None, 1), (2, 4)])
def test_drawn_masks_meet_all_raters(drawn, raters, tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    nodule(tmp_path, "a", 0)
    config = configuration.load(
        [CONFIGS / "train.json", CONFIGS / "tasks" / "lidc.json"],
        {"dataset_dir": str(tmp_path), "drawn_members": drawn, "patch_size": [16, 16], "max_shift": 8},
    )
    files = {key: str(tmp_path / folder / "a.png") for key, folder in (("image", "images"), ("label", "masks"))}
    config["train#dataset#data"] = [files]
    assert config.get_parsed_content("train#dataset")[0]["label"].shape == (raters, 16, 16)


def test_evaluation(task, tmp_path, capsys):
    name, data, output = task
    bundle_run(
        "train.json",
        "evaluate.json",
        f"tasks/{name}.json",
        dataset_dir=str(data),
        output_dir=str(tmp_path),
        checkpoint=str(output / "model.pt"),
        ensemble_size=3,
        **{**SMALL, "validate#dataset#data#section": "test"},
    )
    printed = capsys.readouterr().out
    assert "Dice: " in printed
    metrics = {"isic": ["fused", "anchor"], "lidc": ["matched_iou", "ged", "fused", "anchor"]}[name]
    for metric in metrics:
        _, (file, *values) = csv.reader((tmp_path / f"{metric}_raw.csv").open())
        assert Path(file).stem == "e"
        assert all(0 <= float(value) <= 2 for value in values)
    assert all(f"{metric} 0." in printed or f"{metric} 1." in printed for metric in metrics)


@pytest.mark.parametrize("source", [".", "images", "images/e.png"])
def test_inference(task, source, tmp_path):
    name, data, output = task
    bundle_run(
        "inference.json",
        f"tasks/{name}.json",
        dataset_dir=str(data / source),
        output_dir=str(tmp_path),
        checkpoint=str(output / "model.pt"),
        ensemble_size=3,
        **SMALL,
    )
    cases = {".": "d", "images": NAMES, "images/e.png": "e"}[source]
    endings = ("_overlay.png", "_seg.png", "_uncertainty.png", "_report.json", "_report.html")
    index = ["index.html", "index.csv", "journal.jsonl"] if len(cases) > 1 else []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [*index, *(f"{case}{ending}" for case in cases for ending in endings)]
    )
    for case in cases:
        mask, uncertainty = (Image.open(tmp_path / f"{case}_{what}.png") for what in ("seg", "uncertainty"))
        assert mask.size == uncertainty.size == SIZE[name]
        assert set(np.unique(mask)) <= {0, 255}
        assert np.asarray(uncertainty).max() > 0
        report = json.loads((tmp_path / f"{case}_report.json").read_text())
        (structure,) = report["structures"].values()
        assert report["unit"] == "pixels" and structure["volume"] == (np.asarray(mask) == 255).sum()
        assert len(structure["member_volumes"]) == report["ensemble_size"] == 3


def test_masks_lie_as_their_pictures(task, tmp_path):
    """With a network that marks what is brighter than the mean, the mask is the bright box, upright and in place."""
    name, data, _ = task
    channels = {"isic": 3, "lidc": 1}[name]
    weight = torch.zeros(2, channels, 1, 1)
    weight[1] = 1
    torch.save({"weight": weight, "bias": torch.zeros(2)}, tmp_path / "model.pt")
    settings = {key: value for key, value in SMALL.items() if not key.startswith("network_def#")}
    bundle_run(
        "inference.json",
        f"tasks/{name}.json",
        dataset_dir=str(data / "images"),
        output_dir=str(tmp_path),
        checkpoint=str(tmp_path / "model.pt"),
        anchor_only=True,
        **{**settings, "patch_size": [80, 56]},
        network_def={"_target_": "torch.nn.Conv2d", "in_channels": channels, "out_channels": 2, "kernel_size": 1},
    )
    for case in NAMES:
        expected = np.asarray(Image.open(data / "masks" / f"{case}.png")) > 0
        found = np.asarray(Image.open(tmp_path / f"{case}_seg.png")) > 0
        assert found.shape == expected.shape
        assert (found != expected).mean() < 0.03  # the rim, resampled
        # The picture of all holds the image, the mask over it, the members and the uncertainty, side by side.
        height, width = imread(tmp_path / f"{case}_overlay.png").shape[:2]
        assert width / height == pytest.approx(4 * SIZE[name][0] / SIZE[name][1], rel=0.01)


@pytest.fixture
def kinds(tmp_path):
    """TIFF pictures in colour with two kinds of lesion, above the second the first; classes in masks of colour mode."""
    data = tmp_path / "kinds"
    for part in ("images", "masks"):
        (data / part).mkdir(parents=True)
    for seed, name in enumerate(NAMES):
        classes = np.zeros((40, 28), dtype=np.uint8)
        classes[4 + seed : 14, 4:20] = 1
        classes[20:30, 8 : 18 + seed] = 2
        picture = np.array([(60, 60, 60), (220, 60, 60), (60, 220, 60)], dtype=np.uint8)[classes]
        Image.fromarray(picture).save(data / "images" / f"{name}.tif")
        Image.fromarray(classes).convert("RGB").save(data / "masks" / f"{name}.png")
    return data


def test_several_classes_and_patches_that_are_no_squares(kinds, tmp_path):
    settings = {**SMALL, "class_names": ["red", "green"], "patch_size": [16, 24], "dataset_dir": str(kinds)}
    bundle_run(
        "train.json",
        "tasks/isic.json",
        run_id="training",
        output_dir=str(tmp_path / "training"),
        epochs=1,
        val_interval=1,
        ensemble_size=2,
        **settings,
    )
    weights = torch.load(tmp_path / "training" / "model.pt", weights_only=True)
    assert weights["condition_model.head.weight"].shape[0] == 3
    assert len(list((tmp_path / "training" / "overlays").iterdir())) == 1
    # A network that marks what is redder, or greener, than the mean.
    weight = torch.zeros(3, 3, 1, 1)
    weight[1, 0] = weight[2, 1] = 1
    torch.save({"weight": weight, "bias": torch.zeros(3)}, tmp_path / "model.pt")
    bundle_run(
        "inference.json",
        "tasks/isic.json",
        output_dir=str(tmp_path / "inference"),
        checkpoint=str(tmp_path / "model.pt"),
        anchor_only=True,
        uncertainty_maps=["entropy", "disagreement"],
        network_def={"_target_": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 3, "kernel_size": 1},
        **{
            key: value
            for key, value in {**settings, "patch_size": [56, 80], "dataset_dir": str(kinds / "images")}.items()
            if not key.startswith("network_def#")
        },
    )
    for case in NAMES:
        expected = np.asarray(Image.open(kinds / "masks" / f"{case}.png"))[..., 0]
        found = np.asarray(Image.open(tmp_path / "inference" / f"{case}_seg.png"))
        assert found.shape == expected.shape and set(np.unique(found)) == {0, 1, 2}
        assert (found != expected).mean() < 0.06  # the rims, resampled
        uncertainty = np.asarray(Image.open(tmp_path / "inference" / f"{case}_uncertainty.png"))
        assert uncertainty.max() > 2  # still 255 times the value
        assert (tmp_path / "inference" / f"{case}_overlay.png").is_file()
        disagreement = nibabel.load(tmp_path / "inference" / f"{case}_disagreement.nii.gz")  # a map for each structure
        assert disagreement.shape == (28, 40, 1, 2)


@pytest.mark.parametrize(
    ("class_names", "change", "sentence"),
    [
        (["lesion"], lambda mask: mask, ".png' holds 1 and 2: of two classes it may hold 0 and one other value."),
        (["red", "green"], lambda mask: 2 * mask, "a.png' holds 4, which is none of the 3 classes (0 to 2)."),
        (["red", "green"], lambda mask: mask[:-1], "a.png' has the shape (28, 39), its image '"),
    ],
)
def test_bad_masks_are_named_before_any_work(class_names, change, sentence, kinds, tmp_path):
    mask = np.asarray(Image.open(kinds / "masks" / "a.png"))
    Image.fromarray(change(mask)).save(kinds / "masks" / "a.png")
    with pytest.raises(RuntimeError) as raised:
        bundle_run(
            "train.json",
            "tasks/isic.json",
            run_id="training",
            dataset_dir=str(kinds),
            output_dir=str(tmp_path / "training"),
            class_names=class_names,
            **SMALL,
        )
    causes, cause = [], raised.value
    while cause is not None:
        causes.append(str(cause))
        cause = cause.__cause__
    assert sum(sentence in text for text in causes) == 1, causes
    assert not list(tmp_path.glob("training/*.pt"))


@pytest.mark.parametrize("section", ["train", "validate"])
@pytest.mark.parametrize(("name", "make"), [("isic", lesion), ("lidc", nodule)])
def test_a_mask_of_another_size_is_named(name, make, section, tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    make(tmp_path, "a", 0)
    image, mask = (tmp_path / part / "a.png" for part in ("images", "masks"))
    Image.open(mask).crop((0, 0, 20, 20)).save(mask)
    parser = configuration.load(
        [CONFIGS / file for file in ("train.json", f"tasks/{name}.json")], {"bundle_root": str(ROOT)}
    )
    with pytest.raises(RuntimeError) as raised:
        parser.get_parsed_content(f"{section}#preprocessing")({"image": str(image), "label": str(mask)})
    sentence = f"The label {str(mask)!r} has the shape (20, 20), its image {str(image)!r} {SIZE[name]}."
    assert str(raised.value.__cause__) == sentence


@pytest.mark.parametrize("name", ["isic", "lidc"])
def test_without_augmentation_the_crop_and_the_choice_of_a_rater_stay(name, tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    {"isic": lesion, "lidc": nodule}[name](tmp_path, "a", 0)
    files = ["train.json", f"tasks/{name}.json", "ablations/no_augmentation.json"]
    parser = configuration.load(
        [CONFIGS / file for file in files],
        {"bundle_root": str(ROOT), "device": "cpu", "patch_size": [16, 24], "max_shift": 2},
    )
    transform = parser.get_parsed_content("train#preprocessing")
    kept = [type(each).__name__ for each in transform.transforms if isinstance(each, RandomizableTrait)]
    assert kept == {"isic": [], "lidc": ["RandRaterd", "RandSpatialCropd"]}[name]
    case = transform({"image": str(tmp_path / "images" / "a.png"), "label": str(tmp_path / "masks" / "a.png")})
    assert case["image"].shape[1:] == case["label"].shape[1:] == (16, 24) and len(case["label"]) == 1


@pytest.mark.parametrize("name", ["isic", "lidc"])
def test_quarter_turns_are_for_squares(name):
    for patch_size, turns in (([16, 16], 1), ([16, 24], 0)):
        parser = configuration.load(
            [CONFIGS / file for file in ("train.json", f"tasks/{name}.json")],
            {"bundle_root": str(ROOT), "patch_size": patch_size},
        )
        transforms = parser.get_parsed_content("train#preprocessing").transforms
        assert sum(isinstance(each, RandRotate90d) for each in transforms) == turns
