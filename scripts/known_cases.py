"""Count how many images the weights do not know, by the file that `medsegdiff calibrate` writes beside them.

Images of the validation, or of a folder, are segmented, and counted which are flagged and which are refused before.
Flagged ones of the validation are false alarms; wrong images, as `wrong_inputs.py` makes them, are missed if they are
neither. A kind is what a name begins with.

    python scripts/known_cases.py --task isic --dataset_dir FOLDER
    python scripts/known_cases.py --task isic --images wrong/isic
"""

from __future__ import annotations

import argparse
import logging
import random
import re
from collections import defaultdict
from pathlib import Path

from medsegdiff_bundle.datalist import segmentation_datalist
from medsegdiff_bundle.segmenter import Segmenter


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="hippocampus")
    parser.add_argument("--checkpoint", help="weights; what is shipped by default")
    parser.add_argument("--dataset_dir", help="folder of the cases")
    parser.add_argument("--section", default="validation", help="validation, training or test")
    parser.add_argument("--images", type=Path, help="folder of other images, instead")
    parser.add_argument("--cases", type=int, help="so many, at random")
    return parser.parse_args()


def files(options: argparse.Namespace) -> list[str]:
    """The images, in an order by chance."""
    if options.images is not None:
        found = sorted(str(file) for file in options.images.iterdir() if not file.name.startswith("."))
    else:
        found = [str(case["image"]) for case in segmentation_datalist(options.dataset_dir, options.section)]
    random.Random(0).shuffle(found)
    return found[: options.cases]


def count(segmenter: Segmenter, images: list[str]) -> None:
    """Print how many images of each kind are refused or flagged."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for image in images:
        kind = re.split(r"[_\d]", Path(image).name)[0]
        counts[kind][0] += 1
        try:
            known = segmenter(image).report["known"]
            counts[kind][2] += known["distance"] > known["limit"]
        except ValueError:
            counts[kind][1] += 1
    counts["all"] = [sum(column) for column in zip(*counts.values(), strict=True)]
    print("| images | number | refused | flagged | neither |\n|---|---|---|---|---|")
    for kind, (number, refused, flagged) in counts.items():
        neither = number - refused - flagged
        print(f"| {kind} | {number} | {refused} | {flagged} | {neither} ({100 * neither / number:.1f} %) |")


def main() -> None:
    """Print the counts."""
    options = arguments()
    logging.disable(logging.ERROR)
    given = {} if options.checkpoint is None else {"checkpoint": options.checkpoint}
    count(Segmenter(options.task, **given), files(options))


if __name__ == "__main__":
    main()
