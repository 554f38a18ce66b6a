"""The calls of the model zoo's verification, offline."""

import json
import shutil
from pathlib import Path

import monai.bundle
import torch

from medsegdiff_bundle import configuration

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"


def test_metadata_by_monais_own_check(tmp_path):
    schema = tmp_path / "schema.json"
    shutil.copy(ROOT / "tests" / "meta_schema_20240725.json", schema)  # or it would be fetched
    monai.bundle.verify_metadata(meta_file=str(CONFIGS / "metadata.json"), filepath=str(schema))


WHOLE = [str(CONFIGS / "inference.json"), str(CONFIGS / "tasks" / "hippocampus.json")]  # what MONAI's tools read alone


def test_network_has_the_stated_input_and_output(small_run):
    monai.bundle.verify_net_in_out(
        net_id="network_def",
        config_file=WHOLE,
        meta_file=str(CONFIGS / "metadata.json"),
        **{key: value for key, value in small_run.items() if key != "dataset_dir"},
    )


def test_torchscript_with_embedded_metadata(small_run, tmp_path):
    parser = configuration.load([CONFIGS / "inference.json"])
    parser.update(small_run)
    network = parser.get_parsed_content("network_def").eval()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    monai.bundle.ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(tmp_path / "model.pt"),
        meta_file=str(CONFIGS / "metadata.json"),
        config_file=WHOLE,
        **small_run,
    )
    files = {"metadata.json": "", "inference.json": ""}
    scripted = torch.jit.load(tmp_path / "model.ts", _extra_files=files)
    image, mask = torch.rand(1, 1, 20, 17, 16), torch.randn(1, 3, 20, 17, 16)
    with torch.no_grad():
        torch.testing.assert_close(scripted(image), network(image))
        features = scripted.encode(image)
        expected = network.denoise(mask, torch.tensor(7), network.encode(image))
        torch.testing.assert_close(scripted.denoise(mask, torch.tensor(7), features), expected)
    assert json.loads(files["metadata.json"])["name"] == json.loads((CONFIGS / "metadata.json").read_text())["name"]
    assert "inferer" in json.loads(files["inference.json"])
