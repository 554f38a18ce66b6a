"""The stock app `monaibundle` of a real MONAI Label server serves and trains the packaged bundles, over HTTP."""

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from PIL import Image

import medsegdiff_bundle
from medsegdiff_bundle import configuration

pytestmark = pytest.mark.monai_label

ROOT = Path(medsegdiff_bundle.__file__).parent.parent
SAMPLE_DATA = ROOT / "medsegdiff_bundle" / "sample_data" / "hippocampus"
HIPPOCAMPUS = "hippocampus_mri_medsegdiff_segmentation"
SKIN = "skin_dermoscopy_medsegdiff_segmentation"
STUDIES = [f"hippocampus_{number}" for number in ("001", "003", "017", "033")]
PICTURE_SIZE = (90, 70)  # width and height


@pytest.fixture(scope="module")
def skin_package(tmp_path_factory):
    """The unpacked package for skin lesions, with random weights."""
    folder = tmp_path_factory.mktemp("skin")
    parser = configuration.load([ROOT / "configs" / name for name in ("inference.json", "tasks/isic.json")])
    torch.manual_seed(1)  # whose network marks a part of the picture
    state = parser.get_parsed_content("network_def").state_dict()
    torch.save({name: weight.half() for name, weight in state.items()}, folder / "random.pt")
    options = ["isic", "--checkpoint", str(folder / "random.pt"), "--output", str(folder)]
    subprocess.run([sys.executable, "-m", "medsegdiff_bundle", "package", *options], cwd=ROOT, check=True)
    (package,) = folder.glob("*.zip")
    zipfile.ZipFile(package).extractall(folder)
    return folder / SKIN


@pytest.fixture(scope="module")
def workspace(label_python, guide_workspace, skin_package, tmp_path_factory):
    """A folder with the stock app and both bundles in it, and with a folder of four volumes and a picture."""
    folder = tmp_path_factory.mktemp("stock")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts" / "monai_label" / "shim")}
    options = ["--download", "--name", "monaibundle", "--output", str(folder)]
    subprocess.run([label_python, "-m", "monailabel.main", "apps", *options], check=True, env=environment)
    for source in (guide_workspace / "app" / "model" / HIPPOCAMPUS, skin_package):
        shutil.copytree(source, folder / "monaibundle" / "model" / source.name)
    (folder / "studies").mkdir()
    for study in STUDIES:
        shutil.copy(SAMPLE_DATA / "imagesTr" / f"{study}.nii.gz", folder / "studies")
    pixels = np.random.default_rng(0).integers(0, 255, (7, 9, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).resize(PICTURE_SIZE)
    picture.save(folder / "studies" / "lesion.png")
    picture.save(folder / "lesion.jpg")
    return folder


@pytest.fixture(scope="module")
def server(workspace, label_python, serve):
    script = (
        "export PYTHONPATH=scripts/monai_label/shim\n"
        f"{label_python} -m monailabel.main start_server --app {workspace}/monaibundle --studies {workspace}/studies "
        f"--host 127.0.0.1 --port $PORT --conf models {HIPPOCAMPUS},{SKIN} --conf zoo_source local --conf sam2 false"
    )
    with serve(script, workspace / "server.log") as running:
        yield running


@pytest.fixture
def bundle(workspace):
    """Where the server has the hippocampus bundle."""
    return workspace / "monaibundle" / "model" / HIPPOCAMPUS


def label_of(study):
    return np.asarray(nibabel.load(SAMPLE_DATA / "labelsTr" / f"{study}.nii.gz").dataobj)


def voxels(path):
    return np.asarray(nibabel.load(path).dataobj)


def test_info_lists_the_models_with_their_labels(server, bundle):
    models = server.call("GET", "/info/").json()["models"]
    assert models[HIPPOCAMPUS]["labels"] == {"anterior": 1, "posterior": 2}
    assert models[SKIN]["labels"] == {"lesion": 1}
    assert (models[HIPPOCAMPUS]["dimension"], models[SKIN]["dimension"]) == (3, 2)
    assert {model["type"] for model in models.values()} == {"segmentation"}
    assert models[HIPPOCAMPUS]["version"] == medsegdiff_bundle.__version__
    inference = json.loads((bundle / "configs" / "inference.json").read_text())
    assert inference["displayable_configs"].items() <= models[HIPPOCAMPUS]["config"].items()


def test_mask_is_that_of_inference_json(server, workspace, bundle, bundle_mask, dice):
    study = STUDIES[0]
    path = workspace / "studies" / f"{study}.nii.gz"
    image, mask = nibabel.load(path), server.volume(HIPPOCAMPUS, study)
    assert mask.shape == image.shape
    np.testing.assert_allclose(mask.affine, image.affine, atol=1e-5)
    assert mask.get_data_dtype() == np.uint8
    expected = dice(voxels(bundle_mask(bundle, path)), label_of(study))
    assert expected.min() > 0.8
    np.testing.assert_allclose(dice(np.asarray(mask.dataobj), label_of(study)), expected, atol=1e-3)


def test_json_has_volumes_and_uncertainty_of_each_structure(server):
    study = STUDIES[0]
    answer = server.infer(HIPPOCAMPUS, study, "json", ensemble_size=3).json()
    assert answer["label_names"] == {"anterior": 1, "posterior": 2}
    assert (answer["ensemble_size"], answer["unit"]) == (3, "ml")
    mask = server.volume(HIPPOCAMPUS, study, ensemble_size=3)
    voxel = abs(np.linalg.det(mask.affine[:3, :3])) / 1000
    for name, label in answer["label_names"].items():
        structure = answer["structures"][name]
        assert structure["volume"] == pytest.approx(voxel * (np.asarray(mask.dataobj) == label).sum())
        assert len(structure["member_volumes"]) == 3
        assert 0.5 < structure["pairwise_dice"] < 1
        assert 0 < structure["mean_uncertainty"] < 1


@pytest.mark.parametrize("params", [{"num_inference_steps": 4}, {"ensemble_size": 1}, {"fusion": "staple"}])
def test_request_parameters_take_effect(server, workspace, bundle, bundle_mask, params):
    study = STUDIES[1]
    mask = np.asarray(server.volume(HIPPOCAMPUS, study, **params).dataobj)
    expected = voxels(bundle_mask(bundle, workspace / "studies" / f"{study}.nii.gz", **params))
    usual = np.asarray(server.volume(HIPPOCAMPUS, study).dataobj)
    assert (mask != expected).sum() < (usual != expected).sum() / 4


def test_what_slicer_asks_for(server, workspace, tmp_path):
    """It sends every option, and reads a NRRD file of whole labels."""
    study = STUDIES[0]
    params = server.slicer_params("models", HIPPOCAMPUS) | {"result_extension": ".nrrd", "result_dtype": "uint8"}
    answer = server.infer(HIPPOCAMPUS, study, "image", **params)
    (tmp_path / "mask.nrrd").write_bytes(answer.content)
    mask = sitk.ReadImage(tmp_path / "mask.nrrd")
    image = sitk.ReadImage(workspace / "studies" / f"{study}.nii.gz")
    assert mask.GetSize() == image.GetSize()
    for place in ("GetOrigin", "GetSpacing", "GetDirection"):
        np.testing.assert_allclose(getattr(mask, place)(), getattr(image, place)(), atol=1e-4)
    expected = np.asarray(server.volume(HIPPOCAMPUS, study).dataobj)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask).T, expected)


def test_batch_inference_keeps_a_mask_of_every_study(server, workspace, dice):
    settings = {"device": "cpu", "multi_gpu": False, "images": STUDIES}
    server.call("POST", f"/batch/infer/{HIPPOCAMPUS}", params={"run_sync": "true"}, json=settings)
    for study in STUDIES:
        mask = voxels(workspace / "studies" / "labels" / "original" / f"{study}.nii.gz")
        assert dice(mask, label_of(study)).min() > 0.7


@pytest.mark.parametrize("upload", [False, True])
def test_picture_gets_a_png_mask_of_its_size(server, workspace, bundle_mask, upload):
    """A JPEG too: a mask in its own format would be lossy."""
    path = workspace / ("lesion.jpg" if upload else "studies/lesion.png")
    if upload:
        with path.open("rb") as file:
            answer = server.call("POST", f"/infer/{SKIN}", params={"output": "image"}, files={"file": file})
    else:
        answer = server.infer(SKIN, "lesion", "image")
    mask = Image.open(io.BytesIO(answer.content))
    assert (mask.format, mask.mode, mask.size) == ("PNG", "L", PICTURE_SIZE)
    expected = np.asarray(Image.open(bundle_mask(workspace / "monaibundle" / "model" / SKIN, path))) // 255
    assert 0.05 < expected.mean() < 0.95
    assert (np.asarray(mask) != expected).mean() < 0.01


def test_training_on_submitted_labels_gives_the_weights_that_are_used(server, workspace, bundle, bundle_mask, dice):
    """As from 3D Slicer: labels are sent, the training runs in the background, and the next mask is asked for."""
    train = bundle / "configs" / "train.json"
    # What a request cannot say is said in the bundle. With these, three steps change a mask visibly and take no time.
    settings = {"patch_size": [24, 24, 24], "batch_size": 1, "learning_rate": 0.002}
    train.write_text(json.dumps(json.loads(train.read_text()) | settings))
    study, weights = STUDIES[0], bundle / "models" / "model.pt"
    before, old = np.asarray(server.volume(HIPPOCAMPUS, study).dataobj), weights.read_bytes()
    for name in STUDIES:
        with (SAMPLE_DATA / "labelsTr" / f"{name}.nii.gz").open("rb") as label:
            server.call("PUT", "/datastore/label", params={"image": name, "tag": "final"}, files={"label": label})
    request = server.slicer_params("trainers", HIPPOCAMPUS) | {"max_epochs": 1, "val_split": 0.25}
    server.call("POST", f"/train/{HIPPOCAMPUS}", json=request)
    server.wait_for("train")
    log = server.log.read_text()
    assert all(f"labels/final/{name}.nii.gz" in log for name in STUDIES)

    assert weights.read_bytes() != old
    after = np.asarray(server.volume(HIPPOCAMPUS, study).dataobj)
    expected = voxels(bundle_mask(bundle, workspace / "studies" / f"{study}.nii.gz"))
    assert (after != expected).sum() < (before != expected).sum() / 4
    assert dice(after, label_of(study)).min() > 0.7  # the training began with the weights of the package
    # Every .pt file would be offered as a model, and 3D Slicer would send the one with the shortest name.
    assert server.slicer_params("trainers", HIPPOCAMPUS)["model_filename"] == "model.pt"
