"""The network as ONNX files, and sampling from them without torch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_sample
import pytest
import torch

from medsegdiff_bundle.export import onnx as export_onnx
from medsegdiff_bundle.inferers import member_noise
from medsegdiff_bundle.inferers.noise import member_levels
from medsegdiff_bundle.networks import MedSegDiff
from medsegdiff_bundle.schedulers import DDIMScheduler
from medsegdiff_bundle.transforms import NormalizeIntensityd
from medsegdiff_bundle.uncertainty import of_regions

ROOT = Path(__file__).parent.parent


def shaken(network):
    """A network whose every part takes effect: some begin at zero."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return network.eval()


CASES = {  # configuration on top of inference.json, and size of the image
    "3d": ({"spatial_dims": 3, "network_def#num_transformer_blocks": 1}, (19, 17, 24)),
    "2d": (
        {
            "spatial_dims": 2,
            "image_channels": 2,
            "displayable_configs#num_inference_steps": 3,
            "start_from_anchor": 600,
            "mirror_axes": [0, 1],
        },
        (13, 30),
    ),
    "dpm-solver": (
        {
            "spatial_dims": 2,
            "displayable_configs#num_inference_steps": 4,
            "scheduler#_target_": "medsegdiff_bundle.schedulers.DPMSolverMultistepScheduler",
        },
        (17, 20),
    ),
    "eta": (
        {"spatial_dims": 2, "displayable_configs#num_inference_steps": 3, "scheduler#eta": 0.5},
        (17, 20),
    ),
    "regions": (
        {
            "spatial_dims": 2,
            "class_names": ["whole", "core", "enhancing"],
            "regions": [[1, 2, 3], [2, 3], [3]],
            "mirror_axes": [0, 1],
        },
        (15, 26),
    ),
    "epsilon": (
        {
            "spatial_dims": 2,
            "prediction_type": "epsilon",
            "network_def#anchor_residual": False,
            "network_def#num_transformer_blocks": 0,
            "network_def#image_concat": False,
            "displayable_configs#num_inference_steps": 4,
        },
        (16, 22),
    ),
}


@pytest.fixture(scope="module", params=CASES)
def exported(request, tmp_path_factory):
    """Folder of the files, configuration, network and size."""
    folder = tmp_path_factory.mktemp(request.param)
    settings, size = CASES[request.param]
    config = export_onnx.read_config([ROOT / "configs" / "inference.json"])
    config.update(
        {
            "network_def#channels": [4, 8, 8],
            "network_def#num_heads": 2,
            "checkpoint": str(folder / "model.pt"),
            **settings,
        }
    )
    network = shaken(config.get_parsed_content("network_def"))
    torch.save(network.state_dict(), folder / "model.pt")
    assert export_onnx.write(config, folder) < 1e-4
    return folder, config, network, size


def steps_of(config):
    return config.get_parsed_content("preprocessing").transforms


def test_members_are_those_of_the_inferer(exported):
    folder, config, network, size = exported
    image = torch.rand(network.in_channels, *size) * 3 + 1
    sampler = onnx_sample.OnnxSampler(folder)
    drawn = [
        member_noise(0, member, step, [0] * len(size), (3, *size))
        for member in range(3)
        for step in range(sampler.draws)
    ]
    noise = torch.stack(drawn).unflatten(0, (3, sampler.draws))
    normalized = sampler.prepare(image.numpy())
    normalize = next(step for step in steps_of(config) if isinstance(step, NormalizeIntensityd))
    torch.testing.assert_close(torch.from_numpy(normalized), normalize({"image": image})["image"])

    inferer = config.get_parsed_content("inferer")
    inferer.ensemble_size = inferer.members_per_batch = 3
    expected = inferer(torch.from_numpy(normalized)[None], network)[0]
    level = None
    if sampler.settings["start_from_anchor"]:
        level = member_levels(0, 3, 2 if sampler.multi_label else 3).numpy()
    found = torch.from_numpy(sampler(normalized, noise.numpy(), level))
    assert found.shape == (3, 3, *size)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert (expected[0] - expected[1]).abs().max() > 1e-2  # members differ, so an order of them would be noticed


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize(("t", "following", "eta"), [(99, 49, 0), (99, 49, 0.7), (0, None, 0)])
def test_one_step(prediction_type, t, following, eta):
    scheduler = DDIMScheduler(100, "cosine", prediction_type, signal_scale=0.5, eta=eta)
    scheduler.timesteps = torch.tensor([t] if following is None else [t, following])
    sampler = onnx_sample.OnnxSampler.__new__(onnx_sample.OnnxSampler)  # without its files
    sampler.settings = {"prediction_type": prediction_type, "clip_sample": True, "eta": eta, "solver_order": 1}
    sampler.alpha_bar = scheduler.alphas_cumprod.double().numpy()
    output, x, noise = torch.randn(3, 2, 3, 5, 5)
    expected, _ = scheduler.step(output, t, x, noise=noise)
    found, _ = sampler._step(output.numpy(), x.numpy(), t, following, noise.numpy() if eta else None, None)
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)


def test_preparation_is_that_of_the_configuration():
    """A crop after the normalisation, too; of an axis that is shorter than the crop nothing is cut."""
    config = export_onnx.read_config([ROOT / "configs" / "inference.json", ROOT / "configs" / "tasks" / "lidc.json"])
    image = torch.rand(1, 101, 50)
    *_, normalization, crop = config.get_parsed_content("preprocessing").transforms
    expected = crop(normalization({"image": image}))["image"]
    sampler = onnx_sample.OnnxSampler.__new__(onnx_sample.OnnxSampler)  # without its files
    steps = export_onnx.preprocessing_summary(config)
    sampler.settings = {"preprocessing": steps, "in_channels": 1, "spatial_dims": 2}
    found = sampler.prepare(image.numpy())
    assert found.shape == (1, 64, 50)
    torch.testing.assert_close(torch.from_numpy(found), expected.as_tensor())
    for roi_size, shape in ((8, (1, 8, 8)), ([8, -1], (1, 8, 50))):
        steps[-1]["roi_size"] = crop.cropper.roi_size = roi_size
        assert sampler.prepare(image.numpy()).shape == crop({"image": image})["image"].shape == shape
    with pytest.raises(ValueError, match="must have 1 channel"):
        sampler.prepare(image.numpy()[0])
    steps.append({"transform": "Flipd"})
    with pytest.raises(ValueError, match="After the normalisation .* got Flipd"):
        sampler.prepare(image.numpy())


def test_without_torch(exported, tmp_path):
    folder, _, network, size = exported
    np.save(tmp_path / "image.npy", np.random.default_rng(0).random((network.in_channels, *size)))
    blocked = "import runpy, sys; sys.modules.update(torch=None, monai=None, medsegdiff_bundle=None)"
    run = "runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    process = subprocess.run(
        [sys.executable, "-c", f"{blocked}; {run}", str(ROOT / "scripts" / "onnx_sample.py"), "--model", str(folder)]
        + ["--image", "image.npy", "--output", "result.npz", "--ensemble_size", "2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    result = np.load(tmp_path / "result.npz")
    assert result["members"].shape == (2, 3, *size)
    assert result["uncertainty"].shape == size
    counts = [int(line.split(": ")[1].split()[0]) for line in process.stdout.splitlines()]
    if onnx_sample.OnnxSampler(folder).multi_label:
        labels, members = torch.from_numpy(result["labels"]), torch.from_numpy(result["members"])
        assert labels.shape == (3, *size) and counts == labels.sum((1, 2)).tolist()
        expected = of_regions("entropy", members)
        torch.testing.assert_close(torch.from_numpy(result["uncertainty"]).float(), expected, rtol=0, atol=1e-4)
    else:
        assert result["labels"].shape == size
        assert counts == np.bincount(result["labels"].ravel(), minlength=3).tolist()
    assert 0 < result["uncertainty"].max() <= 1


def test_wrong_shapes_are_named(exported):
    folder, _, network, size = exported
    sampler = onnx_sample.OnnxSampler(folder)
    image = np.zeros((network.in_channels, *size), dtype=np.float32)
    with pytest.raises(ValueError, match=f"must have {network.in_channels} channel"):
        sampler(image[0], np.zeros((1, sampler.draws, 3, *size), dtype=np.float32))
    with pytest.raises(ValueError, match="noise must be"):
        sampler(image, np.zeros((1, sampler.draws, 4, *size), dtype=np.float32))


def test_what_cannot_be_exported_is_named(tmp_path):
    config = export_onnx.read_config([ROOT / "configs" / "inference.json"])
    config["checkpoint"] = str(tmp_path / "none.pt")
    with pytest.raises(ValueError, match="no weights '.*none.pt'"):
        export_onnx.write(config, tmp_path / "onnx")
    config["scheduler#_target_"] = "medsegdiff_bundle.schedulers.DDPMScheduler"
    with pytest.raises(ValueError, match="DPMSolverMultistepScheduler, got DDPMScheduler"):
        export_onnx.sampler_settings(config, None)
    network = MedSegDiff(2, 1, 2, channels=[4, 8], num_anchor_levels=1, num_heads=2, token_size=2)
    with pytest.raises(ValueError, match="token_size 1"):
        export_onnx.export(network, 2, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("exported", ["epsilon"], indirect=True)
def test_a_difference_is_found(exported):
    """The check of the export fails when the files belong to other weights."""
    folder, config, _, _ = exported
    other = config.get_parsed_content("network_def").eval()
    for parameter in other.parameters():
        parameter.data += 1
    with pytest.raises(RuntimeError, match="differ from the network"):
        export_onnx.check(other, config.get_parsed_content("spatial_dims"), folder)


def test_settings_say_how_to_prepare_an_image(tmp_path):
    files = [ROOT / "configs" / "inference.json", ROOT / "configs" / "tasks" / "isic.json"]
    config = export_onnx.read_config(files)
    summary = export_onnx.preprocessing_summary(config)
    assert {"transform": "Resized", "spatial_size": [192, 192], "mode": "bilinear", "anti_aliasing": True} in summary
    assert json.loads(json.dumps(summary)) == summary


@pytest.mark.parametrize(("classes", "resampled"), [(["anterior", "posterior"], True), (["liver"], False)])
def test_settings_name_no_step_that_is_left_out(classes, resampled, tmp_path):
    mine = {"class_names": classes, "spacing": [1.0, 1.0, 1.0] if resampled else None}
    (tmp_path / "mine.json").write_text(json.dumps(mine))
    config = export_onnx.read_config([ROOT / "configs" / "inference.json", tmp_path / "mine.json"])
    summary = export_onnx.preprocessing_summary(config)
    assert ({"transform": "Spacingd", "pixdim": [1.0, 1.0, 1.0], "mode": "bilinear"} in summary) == resampled
    assert any(step["transform"] == "Spacingd" for step in summary) == resampled
