"""Write what weights know beside them, or count how many of some cases they do not know.

The first form segments training cases, as many as `--cases` says, drawn at random, and writes `<weights>.known.json`,
with which `inference.json` flags cases that are unlike them. The others segment images of the validation, or of a
folder, and count which are flagged and which are refused before. Flagged ones of the validation are false alarms; wrong
images, as `wrong_inputs.py` makes them, are missed if they are neither. A kind is what a name begins with.

    python scripts/known_cases.py --task isic --dataset_dir FOLDER --cases 140
    python scripts/known_cases.py --task isic --dataset_dir FOLDER --section validation
    python scripts/known_cases.py --task isic --images wrong/isic
"""

from __future__ import annotations

import argparse
import logging
import random
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

import medsegdiff_bundle
from medsegdiff_bundle import configuration
from medsegdiff_bundle.case_numbers import Description
from medsegdiff_bundle.datalist import segmentation_datalist
from medsegdiff_bundle.known import write_known
from medsegdiff_bundle.segmenter import Segmenter
from medsegdiff_bundle.settings import bundle_root
from medsegdiff_bundle.transforms import CheckKnownd


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="hippocampus")
    parser.add_argument("--checkpoint", help="weights; what is shipped by default")
    parser.add_argument("--dataset_dir", help="folder of the cases")
    parser.add_argument("--section", default="training", help="training, which is written, or validation")
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


def described(segmenter: Segmenter, check: CheckKnownd, images: list[str]) -> list[Description]:
    """Numbers of each case."""
    found: list[Description] = []

    def note(engine: Engine) -> None:
        cases: Any = engine.state.output
        found.extend(check.describe(case, "pred") for case in cases)

    segmenter.evaluator.add_event_handler(Events.ITERATION_COMPLETED, note)
    for image in images:
        segmenter(image)
    return found


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
    """Write, or print the counts."""
    options = arguments()
    logging.disable(logging.ERROR)
    given = {} if options.checkpoint is None else {"checkpoint": options.checkpoint}
    segmenter = Segmenter(options.task, **given)
    if options.images is not None or options.section != "training":
        count(segmenter, files(options))
        return
    configs = bundle_root() / "configs"
    train = configuration.load([configs / "train.json", configs / "tasks" / f"{options.task}.json"])
    patch_size = train.get_parsed_content("patch_size")
    check = next(each for each in segmenter.postprocessing.transforms if isinstance(each, CheckKnownd))
    known, cases = check.known, described(segmenter, check, files(options))
    limit = write_known(known.file, cases, known.checkpoint, known.settings, patch_size, medsegdiff_bundle.__version__)
    print(f"Wrote {known.file}: {len(cases)} cases, the limit of the distance is {limit:.2f}")


if __name__ == "__main__":
    main()
