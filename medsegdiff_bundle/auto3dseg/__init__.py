"""A template of an algorithm for MONAI's Auto3DSeg, beside MONAI's own.

The way of a task: `AutoRunner` lets `DataAnalyzer` count the data and copies `templates/medsegdiff` for each fold ->
`MedsegdiffAlgo` fills the copy by the rules of `medsegdiff configure` -> `scripts/train.py` runs `medsegdiff train` ->
`progress.yaml` has the score -> `scripts/infer.py` gives the probabilities of a `Segmenter`, which MONAI averages over
the folds and algorithms.
"""

from pathlib import Path

TEMPLATES = Path(__file__).parent / "templates"  # for `templates_path_or_url` of AutoRunner
NAME = "medsegdiff"  # of the algorithm, and of its settings in the file of a task
SETTINGS, CASES, MODEL, PROGRESS = f"configs/{NAME}.json", "cases.json", "model", "progress.yaml"  # in a fold's folder
MONAIS_NAMES = {  # of settings of training, in MONAI's templates
    "num_epochs": "epochs",
    "num_epochs_per_validation": "val_interval",
    "num_images_per_batch": "batch_size",
}
