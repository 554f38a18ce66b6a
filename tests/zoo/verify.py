"""What the model zoo's verification does in its full mode, and `load`.

python verify.py BUNDLE SCHEMA DATA INSTALLED: folder of the bundle, file of the metadata schema, folder of a dataset,
and the folder into which pip installed the bundle.
"""

import json
import shutil
import sys
from pathlib import Path

import monai.bundle
import torch
from monai.bundle import ConfigParser, create_workflow

bundle, schema, data, installed = (Path(argument) for argument in sys.argv[1:])
configs, models = bundle / "configs", bundle / "models"

# `load` finds the code that pip installed, without a path to the bundle.
sys.path.insert(0, str(installed))
loaded = monai.bundle.load(bundle.name, bundle_dir=str(bundle.parent), device="cpu", workflow_type="train")
assert Path(sys.modules["medsegdiff_bundle"].__file__).is_relative_to(installed)
weights = torch.load(models / "model.pt", weights_only=True)
assert all(torch.equal(weights[key], value) for key, value in loaded.state_dict().items())
scripted, metadata, extra = monai.bundle.load(
    bundle.name, bundle_dir=str(bundle.parent), device="cpu", load_ts_module=True, config_files=("inference.json",)
)
assert json.loads(extra["inference.json"]) == json.loads((configs / "inference.json").read_text())

# From here on, as the zoo does: the code is the bundle's own.
sys.path.remove(str(installed))
for module in [name for name in sys.modules if name.startswith("medsegdiff_bundle")]:
    del sys.modules[module]
sys.path.insert(0, str(bundle))

assert (bundle / "LICENSE").is_file()
assert metadata == json.loads((configs / "metadata.json").read_text())
assert metadata["version"] in metadata["changelog"]
shutil.copy(schema, bundle / "schema.json")  # or it would be fetched
monai.bundle.verify_metadata(meta_file=str(configs / "metadata.json"), filepath=str(bundle / "schema.json"))
bundle_root = {"bundle_root": str(bundle)}
for config in ("inference.json", "train.json"):
    monai.bundle.verify_net_in_out(
        net_id="network_def",
        config_file=str(configs / config),
        meta_file=str(configs / "metadata.json"),
        device="cpu",
        **bundle_root,
    )
exports = {
    "net_id": "network_def",
    "ckpt_file": str(models / "model.pt"),
    "meta_file": str(configs / "metadata.json"),
    "config_file": str(configs / "inference.json"),
    **bundle_root,
}
monai.bundle.ckpt_export(filepath=str(bundle / "verify.ts"), **exports)
monai.bundle.onnx_export(filepath=str(bundle / "verify.onnx"), input_shape=None, **exports)

# The three exports and the weights are one network.
parser = ConfigParser(json.loads((configs / "inference.json").read_text()) | bundle_root)
network = parser.get_parsed_content("network_def").eval()
network.load_state_dict(weights)
size = metadata["network_data_format"]["inputs"]["image"]
channels, classes = size["num_channels"], metadata["network_data_format"]["outputs"]["pred"]["num_channels"]
# In double precision, as TorchScript joins operators otherwise, so it rounds otherwise.
network.double()
image = torch.rand(1, channels, *[20, 33, 18][: len(size["spatial_shape"])]).double()
mask = torch.randn(1, classes, *image.shape[2:]).double()
with torch.no_grad():
    expected = network.denoise(mask, torch.tensor(7), network.encode(image))
    for module in (scripted.double(), torch.jit.load(bundle / "verify.ts").double()):
        torch.testing.assert_close(module(image), network(image))
        torch.testing.assert_close(module.denoise(mask, torch.tensor(7), module.encode(image)), expected)

for kind, config in (("infer", "inference.json"), ("train", "train.json")):
    workflow = create_workflow(
        config_file=str(configs / config),
        meta_file=str(configs / "metadata.json"),
        logging_file=str(configs / "logging.conf"),
        workflow_type=kind,
        dataset_dir=str(data),
        output_dir="output",
        device="cpu",
        **bundle_root,
    )
    assert workflow.check_properties() == []
assert Path(sys.modules["medsegdiff_bundle"].__file__).is_relative_to(bundle)
print("verified")
