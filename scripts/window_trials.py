"""How like the mask of a volume in windows is to that of the volume as a whole.

By default with the hippocampus's shipped weights. No case of that set is larger than a window of theirs. So validation
cases are mirrored about their borders, until each axis is three times as long as the patch of the training: a volume
without seams, of some fifty hippocampi. Weights that were trained on smaller patches take the cases as they are.

Prints a Markdown table with the mean over the classes of the Dice of both masks: of the anchor, of the fused members,
and of the members one by one. The last two columns are the Dice of anchor and fused mask with the labels, which are
mirrored likewise: they tell which of both masks is nearer to the truth. Examples:

    python scripts/window_trials.py --dataset_dir FOLDER --cases 2
    medsegdiff train FOLDER --task hippocampus -o small --epochs 30 --batch-size 4 --set "patch_size=[16,24,16]"
    python scripts/window_trials.py --dataset_dir FOLDER --checkpoint small/model.pt --times 0 --cases 26 --shares 1
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from voxel_sizes import dice

import medsegdiff_bundle
from medsegdiff_bundle.evaluation.of_networks import batches, load_task
from medsegdiff_bundle.inferers import EnsembleInferer, tune_allocator
from medsegdiff_bundle.transforms import FuseEnsembled

OVERLAPS = (0.25, 0.5)


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", required=True, help="of the hippocampus")
    parser.add_argument("--checkpoint", help="weights of the hippocampus; what is shipped by default")
    parser.add_argument("--times", type=int, default=3, help="patches that an axis is mirrored to; 0: not at all")
    parser.add_argument("--cases", type=int, default=2, help="of the validation, the first so many")
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--shares", type=float, nargs="+", default=[1, 0.75, 0.5], help="of the patch, for windows")
    return parser.parse_args()


def tiled(image: Tensor, size: Sequence[int]) -> Tensor:
    """An image or its label (C, S), and its mirror images beside it, cut to a size."""
    padding = [(0, 0), *((0, max(0, whole - edge)) for whole, edge in zip(size, image.shape[1:], strict=True))]
    values = np.pad(image.numpy(), padding, mode="symmetric")
    return torch.from_numpy(values[(slice(None), *map(slice, size))].copy())


def masks(inferer: EnsembleInferer, image: Tensor, network: torch.nn.Module) -> list[np.ndarray]:
    """Labels of the anchor, of the fused members and of each member: (1, S), (1, S), (M, S)."""
    members = inferer(image.unsqueeze(0), network)[0]  # the anchor first
    fused = FuseEnsembled("pred", "mean", num_classes=members.shape[1])({"pred": members[1:]})["pred"]
    return [np.asarray(each) for each in (members[:1].argmax(dim=1), fused, members[1:].argmax(dim=1))]


def main() -> None:
    """Print the table."""
    options = arguments()
    tune_allocator()
    given = {} if options.checkpoint is None else {"checkpoint": options.checkpoint}
    segmenter = medsegdiff_bundle.Segmenter("hippocampus", device="cpu", ensemble_size=options.members, **given)
    whole = segmenter.inferer
    whole.return_anchor, whole.output, whole.memory = True, "probabilities", None
    scores: dict[tuple[str, str], list[list[float]]] = {}
    num_classes = len(segmenter.class_names) + 1
    every = {"val_stride": 1}
    config = load_task("hippocampus", options.dataset_dir, "validation", every, checkpoint=options.checkpoint)
    patch = config.get_parsed_content("patch_size")  # of train.json, or what the weights say of theirs
    for case in batches(config, options.cases):
        image, label = case["image"][0], case["label"][0]
        if options.times:
            image, label = (tiled(each, [options.times * edge for edge in patch]) for each in (image, label))
        truth = np.asarray(label)
        whole.roi_size = None
        expected = masks(whole, image, segmenter.network)
        right = [dice(mask, truth, num_classes) for mask in expected[:2]]
        scores.setdefault(("the whole", ""), []).append([1.0, 1.0, 1.0, *right])
        for share in options.shares:
            for overlap in OVERLAPS:
                whole.roi_size, whole.overlap = [max(1, int(share * edge)) for edge in patch], overlap
                found = masks(whole, image, segmenter.network)
                row = [dice(a, b, num_classes) for a, b in zip(found, expected, strict=True)]
                row += [dice(mask, truth, num_classes) for mask in found[:2]]
                window = " x ".join(map(str, whole.roi_size))
                scores.setdefault((window, f"{overlap:g}"), []).append(row)
    print(f"{options.cases} cases, {options.members} members\n")
    print("| window | overlap | anchor | fused mask | a member | anchor, labels | fused mask, labels |")
    print("|---|---|---|---|---|---|---|")
    for (window, overlap_of), rows in scores.items():
        mean = np.mean(rows, axis=0)
        print(f"| {window} | {overlap_of} | {' | '.join(f'{value:.4f}' for value in mean)} |", flush=True)


if __name__ == "__main__":
    main()
