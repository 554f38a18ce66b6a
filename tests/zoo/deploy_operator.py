"""MONAI Deploy's MonaiBundleInferenceOperator on a bundle's folder: python deploy_operator.py BUNDLE IMAGE OUT.

The operator runs inside the App SDK's own runtime, so this repeats its calls one by one: the folder goes on the path,
LoadImage and SaveImage transforms are dropped, the inferer is called by keywords, the first of the outputs is taken,
and the result is squeezed and cast. IMAGE is a file for MONAI's LoadImage, which stands for the operators before this
one; the folder OUT gets model.ts.npy and model.pt.npy, for either file of weights.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import LoadImage, MapTransform
from monai.utils import ensure_tuple

bundle, image, out = (Path(argument) for argument in sys.argv[1:])
sys.path.insert(0, str(bundle))
parser = ConfigParser()
parser.read_meta(f=json.loads((bundle / "configs" / "metadata.json").read_text()))
parser.read_config([bundle / "configs" / "inference.json"])
parser.parse()
device = parser.get_parsed_content("device")
inferer = parser.get_parsed_content("inferer")
formats = parser["_meta_"]["network_data_format"]
(name,), (output_name,) = formats["inputs"], formats["outputs"]


def composed(key):
    compose = parser.get_parsed_content(key)
    kept = [t for t in compose.transforms if not any(bad in type(t).__name__ for bad in ("LoadImage", "SaveImage"))]
    compose.transforms = tuple(kept)
    assert isinstance(kept[0], MapTransform)  # otherwise the operator would call it on the values
    return compose


preprocessing, postprocessing = composed("preprocessing"), composed("postprocessing")
scripted = torch.jit.load(bundle / "models" / "model.ts", map_location=device).eval()
eager = parser.get_parsed_content("network").eval()
eager.load_state_dict(torch.load(bundle / "models" / "model.pt", map_location=device), strict=True)
picture = LoadImage(image_only=True)(image)
for model, network in (("model.ts", scripted), ("model.pt", eager)):
    with torch.no_grad():
        inputs = {name: MetaTensor.ensure_torch_and_prune_meta(picture.numpy(), dict(picture.meta))}
        inputs = preprocessing(inputs)
        kept = inputs[name]
        data = inputs.pop(name)[None].to(device)
        others = {key: value[None].to(device) for key, value in inputs.items() if isinstance(value, torch.Tensor)}
        outputs = inferer(inputs=data, network=network, **others)
        inputs[name] = kept
        result = postprocessing({output_name: ensure_tuple(outputs)[0], **inputs})[output_name]
    squeezed = np.squeeze(result.cpu().numpy(), 0)
    np.save(out / f"{model}.npy", (squeezed if squeezed.ndim == 2 else np.swapaxes(squeezed, 0, 2)).astype(np.uint8))
