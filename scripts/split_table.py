"""How much Dice the hippocampus loses where its two parts meet, and how much at its outline.

Readers of this data set end the anterior part at a coronal slice: a plane parts both classes of a label. So a mask is
an outline and a plane, and each can be replaced by the label's own. The plane of a mask is the one that puts the fewest
voxels on the wrong side. Prints a Markdown table of mean Dice over cases and classes, and how far the planes of mask
and label lie apart. Example:

    python scripts/split_table.py --dataset_dir FOLDER
"""

from __future__ import annotations

import torch
from monai.data import MetaTensor
from monai.transforms import Orientation
from monai.utils import set_determinism
from torch import Tensor

from medsegdiff_bundle.evaluation.of_networks import (
    batches,
    chosen_weights,
    dice,
    inferers,
    load,
    segmented,
    spread,
    trained,
    weights_options,
)

ANTERIOR, POSTERIOR = 1, 2
COLUMNS = ["as it is", "both parts as one", "parted where the label is", "outline of the label", "distance, slices"]


def plane(labels: Tensor) -> int:
    """First coronal slice of the anterior part, of classes (1, X, Y, Z) in RAS: fewest voxels on the wrong side."""
    anterior, posterior = ((labels == part).sum(dim=(0, 1, 3)) for part in (ANTERIOR, POSTERIOR))
    # Of a plane before slice k: the anterior voxels behind it and the posterior ones in front of it.
    wrong = anterior.cumsum(0) - anterior + posterior.flip(0).cumsum(0).flip(0)
    wrong = torch.cat([wrong, anterior.sum()[None]])
    return int(wrong.argmin())


def parted(labels: Tensor, first: int) -> Tensor:
    """The foreground of classes (1, X, Y, Z), anterior from this slice on and posterior before it."""
    parts = torch.where(torch.arange(labels.shape[2]) >= first, ANTERIOR, POSTERIOR)[:, None]
    return torch.where(labels > 0, parts, 0)


def measured(prediction: Tensor, label: Tensor) -> list[float]:
    """The values of `COLUMNS` for a mask and its label, classes (1, X, Y, Z) in RAS."""
    own, true = plane(prediction), plane(label)
    pairs = [
        (prediction, label),
        ((prediction > 0).long(), (label > 0).long()),
        (parted(prediction, true), label),
        (parted(label, own), label),
    ]
    dices = [dice(x, y, POSTERIOR + 1).nanmean().item() for x, y in pairs]
    return [*dices, abs(own - true)]


def main() -> None:
    """Print the table."""
    options = weights_options(__doc__).parse_args()
    set_determinism(seed=0)
    config = load(options)
    network = trained(config, chosen_weights(options))
    postprocessing = config.get_parsed_content("validate#postprocessing")
    rows = inferers("ours", network, config.get_parsed_content("validate#inferer"))
    upright = Orientation(axcodes="RAS", labels=None)
    values: dict[str, list[list[float]]] = {row: [] for row in rows}
    exact = cases = 0
    for batch in batches(config, options.cases):
        for row, inferer in rows.items():
            case = segmented(config, batch, network, inferer)
            found = postprocessing(case)
            pair = [upright(MetaTensor(found[key]).cpu()).as_tensor().long() for key in ("pred", "label")]
            values[row].append(measured(*pair))
        cases += 1
        exact += torch.equal(parted(pair[1], plane(pair[1])), pair[1])
    print(f"A plane parts the label exactly in {exact} of {cases} cases.\n")
    print(f"| network | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 1)}")
    for row, table in values.items():
        columns = torch.tensor(table).T
        print(f"| {row} | {' | '.join(spread(column, 4) for column in columns[:-1])} | {spread(columns[-1], 2)} |")


if __name__ == "__main__":
    main()
