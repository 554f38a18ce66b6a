"""Does the uncertainty point at the errors? This model against the softmax entropy of anchor and baselines.

In the space of the image files, on the whole image and near the structures (voxels within a margin of the label). A row
is a mask and a map: its errors are those of the mask, in their order by the map. "Minus the anchor's" is the difference
to what the anchor's softmax entropy catches of the anchor's errors, case by case.
Prints Markdown tables and draws figures. Example:

    python scripts/uncertainty_study.py --dataset_dir FOLDER --baselines dynunet=output/dynunet/model.pt
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import torch
from monai.utils import set_determinism
from torch import Tensor

from medsegdiff_bundle.evaluation.of_networks import (
    batches,
    chosen_weights,
    fused_labels,
    inverted,
    labels_in_file,
    load,
    named_checkpoints,
    segmented,
    spread,
    trained,
    weights_options,
)
from medsegdiff_bundle.files import whole_file
from medsegdiff_bundle.metrics import (
    ReliabilityCurve,
    error_caught,
    expected_calibration_error,
    merge_reliability_curves,
    reliability_curve,
    risk_coverage_curve,
)
from medsegdiff_bundle.statistics import ensemble_statistics
from medsegdiff_bundle.uncertainty import UNCERTAINTIES, mutual_information_of_views, predictive_entropy, share_of_noise
from medsegdiff_bundle.visualization import contour_pictures

matplotlib.use("agg")
import matplotlib.pyplot as plt  # noqa: E402

MAPS = ("entropy", "mutual_information", "variance")
REVIEWED = torch.linspace(0, 0.2, 41)  # shares of the voxels, along the figure


class Answer(NamedTuple):
    """One mask of a case with one map of its uncertainty: probabilities (K, S), uncertainty (S)."""

    mask: str
    map: str
    probabilities: Tensor
    uncertainty: Tensor


class Score(NamedTuple):
    """What one answer is worth in one region of one case; see `measure`."""

    error_rate: float
    aurc: float
    caught: float
    at_most: float
    caught_by_share: Tensor
    curve: ReliabilityCurve


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = weights_options(__doc__)
    parser.add_argument("--baselines", nargs="*", default=[], metavar="[NAME=]CHECKPOINT", help="of configs/baselines")
    parser.add_argument("--fraction", type=float, default=0.05, help="of the voxels that are reviewed")
    parser.add_argument("--margin", type=int, default=3, help="around the label, in voxels, along each axis")
    parser.add_argument("--figures", default=None, help="folder of the figures; none without it")
    return parser.parse_args()


def segmented_cases(options: argparse.Namespace, baseline: str | None, checkpoint: Path) -> Iterator[dict[str, Any]]:
    """Cases with image (C, S), label (R, S) and, as `pred`, anchor and members or a baseline's one, (M, K, S)."""
    config = load(options, baseline or "ours")
    if baseline is not None:  # its members would all be the same; one pass, as for the anchor
        config.update({"mirror_axes": [], "anchor_only": True, "validate#inferer#return_anchor": False})
    network, inferer = trained(config, checkpoint), config.get_parsed_content("validate#inferer")
    names = config.get_parsed_content("class_names")
    views = 2 ** len(inferer.mirror_axes)
    for batch in batches(config, options.cases):
        yield {**segmented(config, batch, network, inferer), "class_names": names, "views": views}


def answers(case: dict[str, Any], baseline: str | None) -> list[Answer]:
    """What is compared on one case."""
    stacked = case["pred"].as_tensor()
    if baseline is not None:
        return [answer(case, baseline, "softmax entropy", stacked[0], predictive_entropy(stacked))]
    anchor, members = stacked[:1], stacked[1:]
    fused, of_anchor = members.mean(0), predictive_entropy(anchor)
    return [
        *(answer(case, "fused", name.replace("_", " "), fused, UNCERTAINTIES[name](members)) for name in MAPS),
        answer(case, "fused", "anchor's softmax entropy", fused, of_anchor),
        answer(case, "anchor", "softmax entropy", anchor[0], of_anchor),
    ]


def answer(case: dict[str, Any], mask: str, name: str, probabilities: Tensor, uncertainty: Tensor) -> Answer:
    """Probabilities (K, S) and uncertainty (S), in the space of the image file."""
    both = inverted(case, torch.cat([probabilities, uncertainty[None]]))
    probabilities = both[:-1].clamp(0, 1)
    probabilities[0] += 1 - probabilities.sum(dim=0)  # what was cut away before the network is background
    return Answer(mask, name, probabilities, both[-1])


def near(label: Tensor, margin: int) -> Tensor:
    """Voxels (S) no more than `margin` steps along each axis from what any rater marks, in (R, S)."""
    marked = (label > 0).any(0).float()[None, None]
    pool = torch.nn.functional.max_pool3d if marked.ndim == 5 else torch.nn.functional.max_pool2d
    return pool(marked, 2 * margin + 1, stride=1, padding=margin)[0, 0] > 0


def measure(given: Answer, label: Tensor, region: Tensor, fraction: float) -> Score:
    """Score of one answer in one region (S) against labels (R, S)."""
    probabilities, raters = given.probabilities[:, region], label[:, region]
    error = (raters != probabilities.argmax(0)).float().mean(0)
    uncertainty = given.uncertainty[region]
    _, risk = risk_coverage_curve(uncertainty, error)
    missed = risk * torch.arange(1, len(risk) + 1)  # error of the most certain voxels
    rest = ((1 - REVIEWED) * len(risk)).round().long().clamp(min=1) - 1
    return Score(
        error.mean().item(),
        risk.mean().item(),
        error_caught(uncertainty, error, fraction).item(),
        (error.sort(descending=True).values[: round(fraction * len(error))].sum() / error.sum()).item(),
        1 - missed[rest] / missed[-1],
        reliability_curve(probabilities, raters),
    )


def volumes(case: dict[str, Any]) -> dict[str, tuple[float, dict[str, Any]]]:
    """True volume of each structure, in ml or pixels, and what the members say of it."""
    members = case["pred"].as_tensor()[1:]
    labels = labels_in_file(case, members).to(torch.uint8)
    fused = fused_labels(case, members.mean(0))[0]
    affine = case["label"].meta["affine"]
    voxel_volume = abs(float(torch.linalg.det(affine[:3, :3].double()))) if fused.ndim == 3 else None
    said = ensemble_statistics(labels, fused, torch.zeros(fused.shape), case["class_names"], voxel_volume)
    scale = 1.0 if voxel_volume is None else voxel_volume / 1000
    raters = case["label"].as_tensor()
    true = {
        name: scale * (raters == label).sum().item() / len(raters) for label, name in enumerate(said["structures"], 1)
    }
    return {name: (true[name], structure) for name, structure in said["structures"].items()}


def print_scores(scores: dict[tuple[str, str], list[Score]], title: str, fraction: float) -> None:
    """One table: a row per answer."""
    print(f"\n{title}\n")
    columns = ["mask", "map", "wrong voxels", "ECE", "1000 AURC", f"errors caught in {fraction:.0%}"]
    columns += ["minus the anchor's", "at most"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    of_anchor = torch.tensor([score.caught for score in scores["anchor", "softmax entropy"]])
    for (mask, name), each in scores.items():
        ece = expected_calibration_error(merge_reliability_curves([score.curve for score in each]))
        caught = torch.tensor([score.caught for score in each])
        rate = sum(score.error_rate for score in each) / len(each)
        at_most = torch.tensor([score.at_most for score in each]).nanmean()  # as `caught`: of cases with an error
        print(
            f"| {mask} | {name} | {rate:.2%} | {ece:.4f} | {spread([1000 * s.aurc for s in each], 2)} "
            f"| {spread(caught, 3)} | {spread(caught - of_anchor, 3, '+')} | {at_most:.3f} |"
        )


def print_volumes(found: list[dict[str, tuple[float, dict[str, Any]]]], unit: str) -> None:
    """Table of the members' interval against the true volume: a row per structure."""
    print(f"\nVolumes in {unit}: the members against the label\n")
    columns = ["structure", "true", "error of the fused mask", "deviation of the members", "correlation of the two"]
    print(f"| {' | '.join(columns)} | true volume within the members' interval |\n{'|---' * 6}|")
    for name in found[0]:
        true = torch.tensor([case[name][0] for case in found], dtype=torch.float64)
        said = [case[name][1] for case in found]
        error = (true - torch.tensor([each["volume"] for each in said], dtype=torch.float64)).abs()
        deviation = torch.tensor([each["volume_std"] for each in said], dtype=torch.float64)
        limits = torch.tensor([each["volume_interval"] for each in said], dtype=torch.float64)
        inside = ((limits[:, 0] <= true) & (true <= limits[:, 1])).sum()
        correlation = torch.corrcoef(torch.stack([error, deviation]))[0, 1]
        print(
            f"| {name} | {true.mean():.3f} | {error.mean():.3f} | {deviation.mean():.3f} | {correlation:.2f} "
            f"| {inside} of {len(found)} |"
        )


def print_share_of_noise(informations: list[tuple[float, float]], members: int, views: int) -> None:
    """Which part of the mutual information, of all cases together, members of one mirror image have already.

    Args:
        informations: sums over the voxels of a case, of all members and of those of one view; none if a view has less
            than two members.
        members: E.
        views: the image and its mirror images.
    """
    seen = f"{members} members take turns with {views} view{'s' if views > 1 else ''}, the image and its mirror images"
    if not informations:
        print(f"\n{seen}: of less than two for each nobody can tell noise from mirroring")
        return
    each = members // views
    whole, noise = (sum(values) for values in zip(*informations, strict=True))
    share = share_of_noise(whole, noise, each, views)
    if math.isnan(share):
        print(f"\n{seen}, {each} each: no two members differ")
        return
    print(
        f"\n{seen}, {each} each: {share:.1%} of the mutual information comes from the noise, not from mirroring "
        f"({noise / whole:.1%} of it is between the {each} members of a view)"
    )


def draw_reliability(scores: dict[tuple[str, str], list[Score]], path: Path) -> None:
    """Reliability diagram, and how many voxels each bin holds."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(5, 6), sharex=True, height_ratios=(3, 1), layout="constrained")
    above.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="calibrated")
    drawn = set()
    for (mask, _), each in scores.items():
        if mask in drawn:
            continue
        drawn.add(mask)
        curve = merge_reliability_curves([score.curve for score in each])
        (line,) = above.plot(curve.confidence, curve.accuracy, marker="o", markersize=4, label=mask)
        below.plot(curve.confidence, curve.num_voxels, marker="o", markersize=4, color=line.get_color())
    above.set(ylabel="share that is right", xlim=(0.3, 1.01), ylim=(0, 1.02))
    above.set_title("Reliability near the structures")
    below.set(xlabel="probability of the predicted class", ylabel="voxels", yscale="log")
    above.legend()
    with whole_file(path) as file:
        figure.savefig(file, dpi=110)
    plt.close(figure)


def draw_review(scores: dict[tuple[str, str], list[Score]], fraction: float, path: Path) -> None:
    """Share of the errors in the most uncertain voxels, by how many are reviewed."""
    figure, axes = plt.subplots(figsize=(6, 4.5), layout="constrained")
    for (mask, name), each in scores.items():
        caught = torch.stack([score.caught_by_share for score in each]).nanmean(0)
        axes.plot(100 * REVIEWED, 100 * caught, label=f"{mask}: {name}")
    axes.axvline(100 * fraction, color="0.6", linestyle="--")
    axes.plot(100 * REVIEWED, 100 * REVIEWED, color="0.6", linestyle=":", label="a map that knows nothing")
    axes.set(xlabel="most uncertain voxels reviewed, %", ylabel="errors among them, %", xlim=(0, 20), ylim=(0, 100))
    axes.set_title("Errors caught near the structures")
    axes.legend(fontsize="small")
    with whole_file(path) as file:
        figure.savefig(file, dpi=110)
    plt.close(figure)


def draw_example(case: dict[str, Any], path: Path) -> None:
    """One slice of one case: image, contours, two maps, and the errors."""
    members = case["pred"].as_tensor()[1:]
    labels = labels_in_file(case, members)
    fused = fused_labels(case, members.mean(0))[0]
    entropy, information = inverted(case, torch.stack([UNCERTAINTIES[name](members) for name in MAPS[:2]]))
    wrong = (case["label"].as_tensor() != fused).float().mean(0)
    original = inverted(case, case["image"].as_tensor())
    highest = information.flatten().kthvalue(round(0.998 * information.numel())).values  # a few voxels stand out
    affine = case["image"].meta["original_affine"] if fused.ndim == 3 else None
    of_entropy, of_information, of_errors = (
        contour_pictures(original, fused, labels, heat, affine=affine)[0]
        for heat in (entropy, information / highest, wrong)
    )
    panels = {
        "image": of_entropy.image,
        "fused mask": of_entropy.fused,
        "members": of_entropy.members,
        "entropy": of_entropy.uncertainty,
        f"mutual information (to {highest:.2f})": of_information.uncertainty,
        "errors": of_errors.uncertainty,
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(2 * len(panels), 2.9), layout="constrained")
    for axis, (title, panel) in zip(axes, panels.items(), strict=True):
        axis.imshow(panel.permute(1, 2, 0), interpolation="none")
        axis.set_title(title, fontsize="small")
        axis.set_axis_off()
    with whole_file(path) as file:
        figure.savefig(file, dpi=110)
    plt.close(figure)


def main() -> None:
    """Print the tables and draw the figures."""
    options = arguments()
    set_determinism(seed=0)
    networks: list[tuple[str | None, Path]] = [(None, chosen_weights(options))]
    networks += named_checkpoints(options.baselines)
    regions = {"image": "The whole image", "near": f"Within {options.margin} voxels of the label"}
    scores: dict[str, dict[tuple[str, str], list[Score]]] = {region: {} for region in regions}
    found, cases = [], []
    informations: list[tuple[float, float]] = []
    drawn = views = 0
    for baseline, checkpoint in networks:
        for case in segmented_cases(options, baseline, checkpoint):
            label = case["label"].as_tensor()
            places = {"image": torch.ones(label.shape[1:], dtype=torch.bool), "near": near(label, options.margin)}
            for given in answers(case, baseline):
                for region, place in places.items():
                    if place.any():  # nothing is near an empty label
                        score = measure(given, label, place, options.fraction)
                        scores[region].setdefault((given.mask, given.map), []).append(score)
            if baseline is None:
                found.append(volumes(case))
                members, views = case["pred"].as_tensor()[1:], case["views"]
                drawn = len(members)
                if drawn >= 2 * views:
                    whole, noise = mutual_information_of_views(members, views)
                    informations.append((whole.double().sum().item(), noise.double().sum().item()))
                unit = "ml" if label.ndim == 4 else "pixels"
                if places["near"].any():
                    cases.append(case)
    print(f"{len(found)} cases; the mean over the cases ± its standard error, ECE of the voxels of all cases")
    if len(cases) < len(found):
        print(f"Near the label: {len(cases)} cases, the label of the others is empty")
    for region, title in regions.items():
        if not scores[region]:
            continue
        print_scores(scores[region], title, options.fraction)
    print_volumes(found, unit)
    print_share_of_noise(informations, drawn, views)
    if options.figures is not None and cases:
        folder = Path(options.figures)
        draw_reliability(scores["near"], folder / "uncertainty_reliability.png")
        draw_review(scores["near"], options.fraction, folder / "uncertainty_review.png")
        rates = torch.tensor([score.error_rate for score in scores["near"]["fused", "entropy"]])
        middle = int(rates.argsort()[len(rates) // 2])  # neither a good nor a bad one
        draw_example(cases[middle], folder / "uncertainty_example.png")


if __name__ == "__main__":
    main()
