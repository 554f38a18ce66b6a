"""Our app on a real MONAI Label server hands out the studies that the members of the ensemble disagree on most."""

import shutil
from pathlib import Path

import nibabel
import pytest
import torch
from monai.bundle import ConfigParser

import medsegdiff_bundle
from medsegdiff_bundle.uncertainty import mutual_information

pytestmark = pytest.mark.monai_label

ROOT = Path(medsegdiff_bundle.__file__).parent.parent
SAMPLE_DATA = ROOT / "medsegdiff_bundle" / "sample_data" / "hippocampus"
HIPPOCAMPUS = "hippocampus_mri_medsegdiff_segmentation"
STUDIES = [f"hippocampus_{number}" for number in ("001", "036", "052")]


@pytest.fixture(scope="module")
def workspace(packages, tmp_path_factory):
    """A folder with our app, the bundle in it, and a folder of three volumes."""
    folder = tmp_path_factory.mktemp("disagreement")
    shutil.copytree(ROOT / "scripts" / "monai_label" / "app", folder / "app")
    shutil.copytree(packages / HIPPOCAMPUS, folder / "app" / "model" / HIPPOCAMPUS)
    (folder / "studies").mkdir()
    for study in STUDIES:
        shutil.copy(SAMPLE_DATA / "imagesTr" / f"{study}.nii.gz", folder / "studies")
    return folder


@pytest.fixture(scope="module")
def server(workspace, label_python, serve, free_port):
    port = free_port()
    script = (
        "export PYTHONPATH=scripts/monai_label/shim\n"
        f"{label_python} -m monailabel.main start_server --app {workspace}/app --studies {workspace}/studies "
        f"--host 127.0.0.1 --port {port} --conf models {HIPPOCAMPUS} --conf zoo_source local --conf sam2 false"
    )
    with serve(script, workspace / "server.log", port) as running:
        yield running


@pytest.fixture(scope="module")
def expected(workspace):
    """The same scores, computed without the server: mean mutual information where any member sees a structure."""
    bundle = workspace / "app" / "model" / HIPPOCAMPUS
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser.update({"bundle_root": str(bundle), "device": "cpu"})
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    scores = {}
    for study in STUDIES:
        image = parser.get_parsed_content("preprocessing")({"image": str(workspace / "studies" / f"{study}.nii.gz")})
        members = parser.get_parsed_content("inferer")(image["image"][None], network)[0].as_tensor()
        scores[study] = mutual_information(members)[(members.argmax(1) > 0).any(0)].mean().item()
    return scores
