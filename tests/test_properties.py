"""What holds for any shape, channels, classes, members, steps, spacing and orientation, tried on drawn ones."""

import math
import string
from itertools import permutations

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

import medsegdiff_bundle
from medsegdiff_bundle import configuration, model_file, settings
from medsegdiff_bundle.inferers import EnsembleInferer
from medsegdiff_bundle.networks import MedSegDiff
from medsegdiff_bundle.readers.nifti import place
from medsegdiff_bundle.schedulers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from medsegdiff_bundle.transforms.fuse import FUSIONS, FuseEnsembled
from medsegdiff_bundle.transforms.placing import apart, turned

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, example, given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

COMMON = {"deadline": None, "database": None, "derandomize": True}
COMMON |= {"suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]}
few = hypothesis.settings(max_examples=12, **COMMON)
many = hypothesis.settings(max_examples=60, **COMMON)
SCHEDULERS = (DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler)


def network(spatial_dims, channels, classes):
    torch.manual_seed(0)
    net = MedSegDiff(spatial_dims, channels, classes, (4, 6), num_heads=2, num_anchor_levels=1).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return net


@few
@given(
    size=st.lists(st.integers(1, 11), min_size=2, max_size=3),
    channels=st.integers(1, 4),
    classes=st.integers(2, 4),
    members=st.integers(1, 4),
    steps=st.integers(1, 3),
    together=st.integers(1, 4),
    kind=st.sampled_from(SCHEDULERS),
    start=st.none() | st.integers(5, 99),
)
def test_members_of_any_image(size, channels, classes, members, steps, together, kind, start):
    """Probabilities of every class and member on the grid of the image, however many members run at once."""
    net = network(len(size), channels, classes)
    image = torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(0))
    scheduler = kind(100, "cosine", "sample")
    whole, parts = (
        EnsembleInferer(scheduler, steps, members, at_once, start_from_anchor=start)(image, net)
        for at_once in (members, min(together, members))
    )
    assert whole.shape == (1, members, classes, *size)
    assert torch.isfinite(whole).all() and (whole >= 0).all()
    torch.testing.assert_close(whole.sum(dim=2), torch.ones(1, members, *size), atol=1e-4, rtol=0)
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=0)


@many
@given(
    size=st.lists(st.integers(0, 6), min_size=1, max_size=3),
    classes=st.integers(2, 5),
    members=st.integers(1, 5),
    method=st.sampled_from(FUSIONS),
    seed=st.integers(0, 9999),
)
def test_fusion_of_any_members(size, classes, members, method, seed):
    """A class for each voxel, the one that all members say where they agree, in whatever order they come."""
    if 0 in size:
        size = [max(1, length) for length in size]
    random = np.random.default_rng(seed)
    labels = torch.as_tensor(random.integers(0, random.integers(1, classes + 1), (members, 1, *size)))
    fuse = FuseEnsembled("pred", method, num_classes=classes)
    fused = fuse({"pred": labels})["pred"]
    assert fused.shape == (1, *size) and set(fused.unique().tolist()) <= set(range(classes))
    agreed = (labels == labels[:1]).all(dim=0)
    if method in ("vote", "mean") or agreed.all():
        assert torch.equal(fused[agreed].long(), labels[0][agreed])
    if method != "dice":  # of which several masks may be the best
        other = fuse({"pred": labels[torch.as_tensor(random.permutation(members))]})["pred"]
        assert torch.equal(other, fused)


@st.composite
def grids(draw, largest=50):
    """An affine with axes in any order and direction, of voxels of any size (mm), and turned a little."""
    sizes = draw(st.lists(st.floats(0.01, largest), min_size=3, max_size=3))
    order = draw(st.sampled_from([*permutations(range(3))]))
    signs = draw(st.lists(st.sampled_from([-1, 1]), min_size=3, max_size=3))
    angle = math.radians(draw(st.floats(-20, 20)))
    turn = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = (turn @ (np.eye(3)[list(order)] * signs)) @ np.diag(sizes)
    affine[:3, 3] = draw(st.lists(st.floats(-500, 500), min_size=3, max_size=3))
    return affine


@many
@given(grids(), st.sampled_from(["sform", "qform", "both"]), st.sampled_from(["mm", "meter", "micron"]))
def test_the_place_of_any_volume(affine, code, unit):
    """The place that a header tells, in mm whatever its unit."""
    factor = {"mm": 1, "meter": 1000, "micron": 1e-3}[unit]
    header = nibabel.Nifti1Header()
    header.set_data_shape((5, 6, 7))
    stored = np.diag([1 / factor] * 3 + [1]) @ affine
    header["pixdim"][1:4] = np.linalg.norm(stored[:3, :3], axis=0)
    header.set_xyzt_units(unit)
    if code in ("sform", "both"):
        header.set_sform(stored, 1)
    if code in ("qform", "both"):
        header.set_qform(stored, 1)
    size = np.linalg.norm(affine[:3, :3], axis=0).min()
    assert apart(torch.as_tensor(affine), torch.as_tensor(place(header)), (5, 6, 7)) < 0.01 * max(
        1, np.abs(affine[:3, 3]).max() / size / 1000
    )


@many
@given(
    affine=grids(),
    shape=st.lists(st.integers(1, 6), min_size=3, max_size=3),
    order=st.sampled_from([*permutations(range(3))]),
    flips=st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_a_label_stored_in_any_order(affine, shape, order, flips):
    """The label of an image, its axes in another order and direction, comes back as it was."""
    values = torch.arange(math.prod(shape), dtype=torch.float32).reshape(1, *shape)
    image = MetaTensor(values, affine=torch.as_tensor(affine))
    turn = np.array([[to, -1 if flip else 1] for to, flip in zip(order, flips, strict=True)])
    array = nibabel.orientations.apply_orientation(values[0].numpy(), turn)
    own = affine @ nibabel.orientations.inv_ornt_aff(turn, shape)
    label = MetaTensor(torch.as_tensor(array.copy())[None], affine=torch.as_tensor(own))
    back = turned(label, image)
    assert back is not None
    if len(set(shape)) == 3 or min(shape) > 1:
        assert torch.equal(back.as_tensor(), values)


@many
@given(
    total=st.integers(1, 1000),
    data=st.data(),
    kind=st.sampled_from(SCHEDULERS),
)
def test_timesteps_of_any_number(total, data, kind):
    """As many as were asked for, falling, from the first that was asked for."""
    scheduler = kind(total, "cosine", "sample")
    start = data.draw(st.none() | st.integers(0, total - 1))
    levels = total if start is None else start + 1
    steps = data.draw(st.integers(1, levels))
    scheduler.set_timesteps(steps, start=start)
    found = scheduler.timesteps.tolist()
    assert len(found) == steps and found[0] == levels - 1 and found[-1] >= 0
    assert all(first > second for first, second in zip(found, found[1:], strict=False))


WORDS = st.text(string.printable, max_size=8) | st.sampled_from(["nan", "-inf", "None", "true", "$x", "@a", "[1]"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=4,
)


@hypothesis.settings(max_examples=1500, **COMMON)
@given(name=st.sampled_from([*settings.KINDS, "other", "network_def#channels"]), value=VALUES)
@example(name="epochs", value=10**400)
def test_any_value_of_any_setting(name, value):
    """It is taken, and taken again for the same; or refused in one line that begins with the name of the setting."""
    try:
        found = settings.typed(name, value, programs=False)
    except ValueError as error:
        assert str(error).startswith(name) and "\n" not in str(error)
    else:
        again = settings.typed(name, found, programs=False)
        assert again == found or again != again


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    """Of weights of a tiny network."""
    root = settings.bundle_root()
    weights = tmp_path_factory.mktemp("weights") / "tiny.pt"
    small = {"network_def#channels": [4, 8], "network_def#num_heads": 2, "network_def#token_size": 8}
    small |= {"bundle_root": str(root), "checkpoint": str(weights)}
    parser = configuration.load([root / "configs" / "inference.json"], small)
    torch.manual_seed(1)
    torch.save(parser.get_parsed_content("network_def").state_dict(), weights)
    model_file.write_model(weights, model_file.describe_model(parser))
    return medsegdiff_bundle.Segmenter(checkpoint=weights, ensemble_size=2, device="cpu")


@few
@given(shape=st.lists(st.integers(2, 17), min_size=3, max_size=3), affine=grids(largest=4), seed=st.integers(0, 99))
def test_a_mask_of_any_volume(segmenter, shape, affine, seed):
    """Mask, uncertainty and volumes on the grid of the image, which is resampled to voxels of 1 mm in between."""
    array = np.random.default_rng(seed).random(shape, dtype=np.float32)[:: 1 - 2 * (seed % 2)]  # some stored backwards
    result = segmenter(array, affine=affine)
    assert result.mask.shape == result.uncertainty.shape == tuple(shape)
    assert result.mask.max() <= len(result.class_names)
    assert 0 <= result.uncertainty.min() and result.uncertainty.max() <= 1
    np.testing.assert_allclose(result.affine, affine, rtol=1e-5, atol=1e-4)
    voxel = abs(np.linalg.det(affine[:3, :3])) / 1000
    for number, name in enumerate(result.class_names, start=1):
        found = result.report["structures"][name]["volume"]
        assert found == pytest.approx((result.mask == number).sum() * voxel, rel=1e-3, abs=1e-6)
