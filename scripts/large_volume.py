"""Peak memory of an ensemble of a large volume on the CPU: labels of all members, window by window, then fused.

    python scripts/large_volume.py                                  # 512 x 512 x 256, 15 classes, 10 members
    python scripts/large_volume.py --memory 3.5                     # windows that fit
    python scripts/large_volume.py --size 128 128 64 --roi_size 48  # the same in seconds
    python scripts/large_volume.py --size 96 96 96                  # one window, so all goes through the network

The first window goes through the network of the hippocampus with so many classes and random weights, so that its memory
is in the peak. The others go through a stand-in that works voxel by voxel: this is about memory, and what is done
beside the network.
Fusion, map of entropy and volumes are those of inference.json.
"""

from __future__ import annotations

import argparse
import math
import resource
import time

import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from torch import Tensor, nn

from medsegdiff_bundle.inferers import EnsembleInferer, tune_allocator
from medsegdiff_bundle.networks import ConditionFeatures, MedSegDiff
from medsegdiff_bundle.schedulers import DDIMScheduler
from medsegdiff_bundle.transforms import (
    EnsembleStatisticsd,
    EnsembleUncertaintyd,
    FuseEnsembled,
    MemberLabelsd,
)


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=3, default=[512, 512, 256], help="voxels of the volume")
    parser.add_argument("--classes", type=int, default=15)
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--members_per_batch", type=int, default=1)
    window = parser.add_mutually_exclusive_group()
    window.add_argument("--roi_size", type=int, default=96, help="edge of the windows")
    window.add_argument("--memory", type=float, help="gigabytes of the inferer, which then chooses the windows")
    parser.add_argument("--fusion", default="mean", help="mean, vote, staple or dice")
    parser.add_argument("--output", choices=["labels", "probabilities"], default="labels")
    return parser.parse_args()


class FirstWindow(nn.Module):
    """A network for the first window, and a stand-in for the others."""

    def __init__(self, network: MedSegDiff, classes: int) -> None:
        super().__init__()
        self.network = network
        self.classes = classes
        self.windows = 0
        self.out_channels = classes

    def encode(self, image: Tensor) -> ConditionFeatures:
        """The network's features once, then a few bumps of the image as logits: (1, 1, S)."""
        self.windows += 1
        if self.windows == 1:
            return self.network.encode(image)
        logits = torch.cat([image * k for k in range(self.classes)], dim=1)
        return ConditionFeatures(logits, None, [], None, None, None)

    def denoise(self, mask: Tensor, timesteps: Tensor, features: ConditionFeatures) -> Tensor:
        """The network's prediction for the first window, then one from the mask and the logits: (N, K, S)."""
        if self.windows == 1:
            return self.network.denoise(mask, timesteps, features)
        return (mask + features.logits).tanh_()


def gigabytes() -> float:
    """Largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    """Print the memory before, the memory that all probabilities would take, and the peak."""
    options = arguments()
    torch.manual_seed(0)
    tune_allocator()
    network = MedSegDiff(
        3,
        1,
        options.classes,
        channels=(16, 32, 64, 128),
        denoiser_channels=(16, 32, 64),
        num_transformer_blocks=0,
        image_concat=False,
        anchor_residual=True,
    ).eval()
    inferer = EnsembleInferer(
        DDIMScheduler(schedule="cosine", prediction_type="sample"),
        1,
        options.members,
        options.members_per_batch,
        roi_size=options.roi_size if options.memory is None else None,
        memory=None if options.memory is None else int(options.memory * 1e9),
        output=options.output,
        progress=True,
    )
    postprocessing = Compose(
        [
            MemberLabelsd("pred", "member_labels", options.classes),
            EnsembleUncertaintyd("pred", "uncertainty", num_classes=options.classes),
            FuseEnsembled("pred", options.fusion, num_classes=options.classes),
            EnsembleStatisticsd("pred", [f"class {label}" for label in range(1, options.classes)]),
        ]
    )
    image = MetaTensor(torch.randn(1, 1, *options.size))
    whole = math.prod(options.size) * options.classes * options.members * 4 / 1e9
    print(f"with the image {gigabytes():.2f} GB; all members' probabilities would take {whole:.1f} GB", flush=True)
    begin, begin_cpu = time.perf_counter(), time.process_time()
    result = inferer(image, FirstWindow(network, options.classes))
    spent, spent_cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
    print(
        f"{tuple(result.shape)} {result.dtype} in {spent:.0f} s, {spent_cpu:.0f} s of the processors, "
        f"peak {gigabytes():.2f} GB",
        flush=True,
    )
    postprocessing({"pred": result[0]})
    print(f"with fusion, map and volumes, peak {gigabytes():.2f} GB   (target: 3.5 GB)")


if __name__ == "__main__":
    main()
