"""One zip per task, as MONAI's model zoo wants it: a bundle that needs nothing of this repository.

`medsegdiff package hippocampus -o dist` writes dist/hippocampus_mri_medsegdiff_segmentation_v<version>.zip. Its one
folder, of that name without the version, holds the task's complete configurations, metadata, weights, TorchScript,
documents, licences, and this package's code; `pip install <folder>` makes the code importable elsewhere. The same input
gives the same bytes.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from medsegdiff_bundle import configuration
from medsegdiff_bundle.evaluation.of_networks import ROOT, shipped_weights
from medsegdiff_bundle.files import whole_file, whole_files
from medsegdiff_bundle.model_file import describe_model, write_model

NAMES = {
    "hippocampus": "hippocampus_mri_medsegdiff_segmentation",
    "isic": "skin_dermoscopy_medsegdiff_segmentation",
    "lidc": "lung_ct_medsegdiff_segmentation",
}
SIZE_LIMIT = 25_000_000  # bytes; the zoo's repository takes no larger file


def configurations(task: str) -> dict[str, dict[str, Any]]:
    """File name -> content, for the folder `configs` of a task's package, whose files stand alone.

    An overlay of a task serves several files: of its entries each file gets those that something in it refers to.
    """
    configs = ROOT / "configs"
    read = {path.name: json.loads(path.read_text()) for path in configs.glob("*.json")}
    overlay = configs / "tasks" / f"{task}.json"
    for name in ("train.json", "inference.json"):
        own = {"task", *read[name]} - {configuration.BASE, "_desc_"}
        whole = configuration.read([configs / name, overlay])
        read[name] = {key: value for key, value in whole.items() if key in own | configuration.behind(own, whole)}
    train, inference, evaluate = (read[f"{name}.json"] for name in ("train", "inference", "evaluate"))
    inference["shipped_weights"] = "$@bundle_root + '/models/model.pt'"
    # Weights of a training replace those of the package, so that whoever trains also uses them.
    train |= {"ckpt_dir": "$@bundle_root + '/models'", "overwrite": True}
    for config in (train, inference):
        if config.get("spacing") is not None:  # structures of the user's own need not have it
            config["spacing"] = f"${config['spacing']} if @class_names == {config['class_names']} else None"
    # MONAI Label offers these of inference.json, and fails on them in a training.
    shown = {f"@displayable_configs#{key}": value for key, value in train.pop("displayable_configs", {}).items()}
    train |= {key: shown[value] for key, value in train.items() if isinstance(value, str) and value in shown}
    both = {**train, **evaluate}
    configuration.take(both, inference)
    evaluate |= {key: value for key, value in both.items() if key not in train}
    if task != "hippocampus":
        read["metadata.json"] |= json.loads((ROOT / "docs" / "tasks" / task / "metadata.json").read_text())
    return read


def check_weights(weights: Path, inference: dict[str, Any], task: str) -> None:
    """Refuse weights that are missing or of another network."""
    if not weights.is_file():
        raise ValueError(f"There are no weights {str(weights)!r} of the task {task!r}.")
    parser = ConfigParser(copy.deepcopy(inference))
    parser["bundle_root"] = str(ROOT)
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        parser.get_parsed_content("network_def").load_state_dict(state)
    except Exception as error:  # whatever is wrong with the file, it is not usable
        reason = " ".join(str(error).split()[:20])
        raise ValueError(f"{str(weights)!r} does not hold weights of the task {task!r}: {reason}") from error


def stage(task: str, weights: Path, folder: Path) -> None:
    """Write all files of the package but the TorchScript into a new folder."""
    configs = configurations(task)
    check_weights(weights, configs["inference.json"], task)
    ignored = ["__pycache__"] if task == "hippocampus" else ["__pycache__", "sample_data"]
    shutil.copytree(ROOT / "medsegdiff_bundle", folder / "medsegdiff_bundle", ignore=shutil.ignore_patterns(*ignored))
    for name in ("configs", "docs", "models"):
        (folder / name).mkdir()
    for name, content in configs.items():
        (folder / "configs" / name).write_text(json.dumps(content, indent=4) + "\n")
    shutil.copy(ROOT / "configs" / "logging.conf", folder / "configs")
    shutil.copy(ROOT / "LICENSE", folder)
    shutil.copy(weights, folder / "models" / "model.pt")
    parser = ConfigParser(copy.deepcopy(configs["inference.json"]))
    write_model(folder / "models" / "model.pt", describe_model(parser))
    for kind in ("intervals", "known"):
        beside = weights.with_suffix(f".{kind}.json")
        if beside.is_file():
            shutil.copy(beside, folder / "models" / f"model.{kind}.json")
    documents = ROOT / "docs" if task == "hippocampus" else ROOT / "docs" / "tasks" / task
    for name in ("README.md", "data_license.txt"):
        shutil.copy(documents / name, folder / "docs")
    card = (documents / "README.md").read_text()
    # What the model card refers to: its own files first, pages of the project, and figures.
    for path in [*documents.iterdir(), *(ROOT / "docs").iterdir()]:
        if path.is_file() and path.name in card and not (folder / "docs" / path.name).exists():
            shutil.copy(path, folder / "docs")
    pages = [page.read_text() for page in (folder / "docs").glob("*.md")]
    for path in {path for docs in (documents, ROOT / "docs") for path in (docs / "figures").glob("*.png")}:
        if any(f"figures/{path.name}" in page for page in pages):
            (folder / "docs" / "figures").mkdir(exist_ok=True)
            shutil.copy(path, folder / "docs" / "figures")
    project = (ROOT / "pyproject.toml").read_text().replace('readme = "README.md"', 'readme = "docs/README.md"')
    (folder / "pyproject.toml").write_text(project)


def export_torchscript(folder: Path) -> None:
    """Write models/model.ts by MONAI's `ckpt_export`, with the same bytes on every machine.

    TorchScript writes some sets in the order of Python's hashes, hence the seed, and for its error messages the paths
    of all source files, which are left out.
    """
    command = [sys.executable, "-m", "monai.bundle", "ckpt_export", "network_def"]
    for key, value in {
        "filepath": "models/model.ts",
        "ckpt_file": "models/model.pt",
        "meta_file": "configs/metadata.json",
        "config_file": "configs/inference.json",
    }.items():
        command += [f"--{key}", value]
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if process.returncode != 0:
        raise RuntimeError(f"ckpt_export failed:\n{process.stderr}")
    exported, stripped = folder / "models" / "model.ts", folder / "models" / "stripped.ts"
    with zipfile.ZipFile(exported) as source, zipfile.ZipFile(stripped, "w") as target:
        for entry in source.infolist():
            if not entry.filename.endswith((".debug_pkl", ".data/serialization_id")):
                _write(target, entry.filename, source.read(entry))
    stripped.replace(exported)


def move_large_files(folder: Path, url: str | None, beside: Path, limit: int = SIZE_LIMIT) -> None:
    """Move what is too large for the zoo's repository out of the package, and list it in large_files.yml.

    Args:
        folder: of the package.
        url: where the user will offer these files; without it TorchScript is left out, which others can make.
        beside: folder that gets the files.
        limit: bytes.
    """
    entries = []
    for path in sorted((folder / "models").iterdir()):
        if path.stat().st_size > limit:
            name = path.relative_to(folder).as_posix()
            large = f"{name} has {path.stat().st_size} bytes, more than the {limit} that the zoo takes in a repository"
            if url is None and path.suffix == ".ts":
                print(f"{large}, and is left out without an --url of yours.", file=sys.stderr)
                path.unlink()
                continue
            if url is None:
                raise ValueError(f"{large}: say with --url where you will offer it.")
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            entries.append(
                {"path": name, "url": f"{url.rstrip('/')}/{path.name}", "hash_val": digest, "hash_type": "sha256"}
            )
    if entries:  # JSON is YAML
        (folder / "large_files.yml").write_text(json.dumps({"large_files": entries}, indent=4) + "\n")
        with whole_files(beside) as unfinished:
            for entry in entries:
                shutil.move(folder / entry["path"], unfinished / Path(entry["path"]).name)


def _write(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Store one file with a fixed date and mode; uncompressed, since compressors differ."""
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    entry.create_system = 3  # Unix, which knows modes
    entry.external_attr = 0o100644 << 16
    archive.writestr(entry, content)


def package(task: str, output: Path, weights: Path | None = None, url: str | None = None) -> Path:
    """Build the zip of one task.

    Args:
        task: one of `NAMES`.
        output: folder of the zip, made if need be.
        weights: flat state dict; None takes those that are shipped for the task.
        url: see `move_large_files`; the files come into a folder of the package's name beside the zip.

    Returns:
        The zip's path.

    Raises:
        ValueError: the task is unknown, its weights are missing or do not fit, or a file is too large.
    """
    if not (ROOT / "docs" / "README.md").is_file():
        raise ValueError(f"Packages are built in a checkout of the project: {str(ROOT)!r} has no docs/README.md.")
    if task not in NAMES:
        raise ValueError(f"task must be one of {', '.join(NAMES)}, got {task!r}.")
    if weights is None:
        weights = shipped_weights(task)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / NAMES[task]
        folder.mkdir()
        stage(task, weights, folder)
        export_torchscript(folder)
        move_large_files(folder, url, output / folder.name)
        version = json.loads((folder / "configs" / "metadata.json").read_text())["version"]
        finished = output / f"{folder.name}_v{version}.zip"
        with whole_file(finished) as unfinished, zipfile.ZipFile(unfinished, "w") as archive:
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                _write(archive, path.relative_to(temporary).as_posix(), path.read_bytes())
    return finished
