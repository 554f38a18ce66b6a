"""A page about one case for its reader, that needs no other file.

Letters in shapes: E members, S spatial axes.
"""

from __future__ import annotations

import base64
import html
import io
from string import Template
from typing import Any

from monai.data import MetaTensor
from torch import Tensor

from medsegdiff_bundle.grid import Grid, image_grid, image_modality
from medsegdiff_bundle.pages import details, sentences
from medsegdiff_bundle.visualization import INFERNO, PALETTE, GreyWindow, as_image, contour_pictures, grey_window


def html_report(
    case: str, image: Tensor, fused: Tensor, members: Tensor, uncertainty: Tensor, statistics: dict[str, Any]
) -> str:
    """One page about a case that needs no other file: contours, uncertainty, volumes, and what they mean.

    Args:
        case: name.
        image: (C, S), as in its file; drawn by its affine if it is a `MetaTensor`.
        fused: labels, (S).
        members: labels, (E, S).
        uncertainty: (S), 0 to 1.
        statistics: from `ensemble_statistics`; what else a report holds is shown, too.

    Returns:
        HTML.
    """
    fused, members, uncertainty = (
        x.as_tensor() if isinstance(x, MetaTensor) else x for x in (fused, members, uncertainty)
    )
    grid = image_grid(image) if isinstance(image, MetaTensor) else None
    window = grey_window(image, fused > 0, image_modality(image) if isinstance(image, MetaTensor) else None)
    slices = contour_pictures(
        image,
        fused,
        members,
        uncertainty,
        affine=None if grid is None else grid.affine,
        letters=grid is not None and grid.orientation is not None,
        window=window,
    )
    widest = max(each.image.shape[2] for each in slices)
    figures = []
    for plane, position, *pictures in slices:
        for what, picture in zip(CAPTIONS, pictures, strict=True):
            caption = what if position is None else f"{what}, {plane}, slice {position}"
            # As all are drawn at one scale, the widest fills its column.
            figures.append(
                f'<figure><img src="data:image/png;base64,{_png(picture)}" alt="{caption}" '
                f'style="width: {100 * picture.shape[2] / widest:.1f}%"><figcaption>{caption}</figcaption></figure>'
            )
    said = sentences(statistics.get("warnings", []))
    decimals = 3 if statistics["unit"] == "ml" else 1
    rows = [_row(label, name, each, decimals) for label, (name, each) in enumerate(statistics["structures"].items())]
    return PAGE.substitute(
        case=html.escape(case),
        size=statistics["ensemble_size"],
        figures="\n".join(figures),
        said=f'<div class="warning"><strong>Warnings</strong>{said}</div>' if said else "",
        details=details(statistics),
        legend=_legend(grid, window),
        heat=", ".join(f"#{colour}" for colour in INFERNO.split()),
        measure="Volumes" if statistics["unit"] == "ml" else "Areas",
        unit=statistics["unit"],
        drawn=_drawn(statistics.get("views", [])) + _trained(statistics.get("networks", 1)),
        **_interval_words(statistics),
        rows="\n".join(rows),
    )


def _drawn(views: list[int]) -> str:
    """What was drawn and what was mirrored, by the number of members of each view."""
    if sum(views) < 2:
        return ""
    if len(views) == 1:
        return " Each is drawn from noise of its own, and all see the image as it is."
    each = f"{min(views)}" if min(views) == max(views) else f"{min(views)} or {max(views)}"
    told = (
        "what differs between members of one view is due to the noise, the rest to mirroring"
        if max(views) > 1
        else "what is due to the noise and what to mirroring cannot be told apart"
    )
    return (
        f" Each is drawn from noise of its own. They take turns with {len(views)} views, the image and its mirror "
        f"images, and each view has {each}: {told}."
    )


def _trained(networks: int) -> str:
    """Of how many trainings the members are."""
    if networks == 1:
        return ""
    return (
        f" They are of {networks} networks, of a training each: what the trainings differ in is among the differences."
    )


def _interval_words(statistics: dict[str, Any]) -> dict[str, str]:
    """What the column of the intervals is called, and what it means."""
    share, said = f"{statistics['coverage']:.0%}", statistics["interval"]
    if said["calibrated"]:
        return {
            "interval": f"{share} interval, calibrated",
            "interval_meaning": f"{share} of the true sizes of cases that trained nothing lay in intervals made like "
            "this one. For images like those it is where the true size lies.",
        }
    return {
        "interval": f"{share} of the members",
        "interval_meaning": "From the 5th to the 95th percentile of the members. It is only their spread "
        f"({html.escape(str(said['why']))}): an error that all members share does not show in it, so the true size may "
        "well lie outside.",
    }


def _legend(grid: Grid | None, window: GreyWindow) -> str:
    """How the pictures are drawn."""
    sentences = []
    if grid is not None and grid.orientation is not None:
        sentences += [
            "Radiological convention: the patient's right (R) is on the left of axial and coronal pictures; sagittal "
            "ones have the front (A) on the left. L left, P back, S head, I feet."
        ]
        if grid.obliquity and grid.obliquity >= 1:
            sentences += [f"The slices are those of the image, up to {grid.obliquity:.0f}° off these directions."]
    elif grid is not None and grid.affine is not None:
        sentences += ["The file does not say how the patient lay: left and right may be swapped."]
    name = f" ({window.name})" if window.name else ""
    return " ".join([*sentences, f"Black is {window.low:.4g}, white is {window.high:.4g}{name} in all of them."])


def _png(picture: Tensor) -> str:
    """Picture (3, H, W) in [0, 1] as a PNG in base64."""
    buffer = io.BytesIO()
    as_image(picture).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _row(index: int, name: str, values: dict[str, Any], decimals: int) -> str:
    red, green, blue = (PALETTE[index % len(PALETTE)] * 255).round().int().tolist()

    def size(value: float) -> str:
        return f"{value:.0f}" if value >= 1000 else f"{value:.{decimals}f}"

    def share(value: float | None) -> str:
        return "–" if value is None else f"{value:.3f}"

    def intensity(value: float | list[float] | None) -> str:
        values = value if isinstance(value, list) else [] if value is None else [value]
        return ", ".join(f"{each:.4g}" for each in values) or "–"

    deviation, interval = values["volume_std"], values["volume_interval"]
    cells = [
        size(values["volume"]),
        size(values["volume_mean"]),
        "–" if deviation is None else size(deviation),
        "–" if interval is None else " to ".join(map(size, interval)),
        share(values["pairwise_dice"]),
        share(values["mean_uncertainty"]),
        intensity(values.get("mean_intensity")),
        str(values.get("components", "–")),
    ]
    swatch = f'<span class="swatch" style="background: rgb({red}, {green}, {blue})"></span>'
    return f"<tr><th>{swatch}{html.escape(name)}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


CAPTIONS = ("image", "fused mask", "members", "uncertainty")
PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$case</title>
<style>
body { font: 16px/1.45 system-ui, sans-serif; max-width: 68rem; margin: 1.5rem auto; padding: 0 1rem; color: #1a1a1a; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin-top: 1.8rem; }
.warning { border: 2px solid #b00020; padding: .6rem .9rem; }
.figures { display: grid; grid-template-columns: repeat(4, 1fr); gap: .6rem; }
@media (max-width: 40rem) { .figures { grid-template-columns: repeat(2, 1fr); } }
figure { margin: 0; background: #000; display: flex; flex-direction: column; justify-content: center; }
img { display: block; margin: auto; }
figcaption { font-size: .85rem; text-align: center; color: #444; background: #fff; padding: .2rem; }
.scale { height: .8rem; max-width: 16rem;
  background: linear-gradient(to right, $heat); }
.table { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid #ccc; text-align: right; font-variant-numeric: tabular-nums; }
th { font-weight: 600; }
.warning ul { margin: .3rem 0; padding-left: 1.1rem; }
.warning { margin: .8rem 0; }
.details td { text-align: left; }
.details ul { margin: 0; padding-left: 1.1rem; }
th:first-child { text-align: left; white-space: nowrap; }
.swatch { display: inline-block; width: .8em; height: .8em; margin-right: .5em; }
dt { font-weight: 600; margin-top: .5rem; }
dd { margin: 0; }
</style>
</head>
<body>
<h1>$case</h1>
<p class="warning"><strong>Not a medical device.</strong> For research. Not for diagnosis, treatment or any decision
about a person.</p>
$said
<p>The model drew the structures $size time(s). Each drawing is a <em>member</em>; together they give the fused
mask.$drawn</p>

<h2>$measure</h2>
<div class="table">
<table>
<thead><tr><th>structure</th><th>fused mask, $unit</th><th>mean of members</th><th>standard deviation</th>
<th>$interval</th><th>Dice of two members</th><th>mean uncertainty</th>
<th>mean intensity</th><th>parts</th></tr></thead>
<tbody>
$rows
</tbody>
</table>
</div>

<h2>Pictures</h2>
<div class="figures">
$figures
</div>
<p>$legend</p>
<p>Uncertainty, from 0 (dark) to 1 (bright):</p>
<div class="scale"></div>

<h2>Made from</h2>
<div class="table">
<table class="details">
$details
</table>
</div>

<h2>What this says</h2>
<dl>
<dt>fused mask</dt><dd>What is saved as the segmentation. Its line runs along the inner side of the structure.</dd>
<dt>members</dt><dd>The lines of all drawings. A strong line is one that most members share; where faint lines run
apart, they disagree.</dd>
<dt>uncertainty</dt><dd>0 where the members are sure of one answer, 1 where every answer is as likely as another. It
marks where a look is worth most; it is not the probability of an error. The number in the table is the mean over all
voxels that the fused mask or any member gives to the structure.</dd>
<dt>mean, standard deviation</dt><dd>How much the size varies from drawing to drawing.</dd>
<dt>$interval</dt><dd>$interval_meaning</dd>
<dt>Dice of two members</dt><dd>How far two drawings cover each other, mean over all pairs: 1 the same, 0 nothing in
common.</dd>
<dt>mean intensity</dt><dd>Of the values of the image file within the fused mask; of a picture of each channel.</dd>
<dt>parts</dt><dd>Connected parts of the fused mask, of voxels that share a face.</dd>
<dt>–</dt><dd>Undefined: one member alone, or a structure that nobody marked.</dd>
</dl>
</body>
</html>
""")
