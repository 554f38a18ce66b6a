"""Parts of `medsegdiff package`, without building one."""

import json
import re
import subprocess
import zipfile
from pathlib import Path

import jsonschema
import monai.bundle
import pytest
import torch
from monai.bundle import ConfigParser

from medsegdiff_bundle import cli, configuration, settings

TESTS = Path(__file__).parent.parent
ROOT = TESTS.parent
TASKS = ["hippocampus", "isic", "lidc"]


@pytest.mark.parametrize("name", ["train.json", "inference.json"])
@pytest.mark.parametrize("task", TASKS)
def test_each_file_stands_alone(package, task, name):
    """What stays is what a run of the clone completes the files to; what goes is referred to by nothing."""
    both = configuration.read([ROOT / "configs" / name, ROOT / "configs" / "tasks" / f"{task}.json"])
    alone = package.configurations(task)[name]
    expected = {"train.json": {"ckpt_dir", "overwrite"}, "inference.json": {"shipped_weights"}}[name]
    shown = both["displayable_configs"] if name == "train.json" else {}
    literal = {key: value for key, value in shown.items() if key in alone and alone[key] != both[key]}
    of_spacing = {"spacing"} if task == "hippocampus" else set()
    changed = {key for key in alone if alone[key] != both[key]}
    assert changed - (expected if task == "hippocampus" else set()) <= expected | of_spacing | set(literal)
    assert {key: alone[key] for key in literal} == literal
    for key in set(both) - set(alone):
        assert not re.search(rf"@{key}\b", json.dumps(alone))
    assert configuration.complete(alone, ROOT / "nowhere") == alone


@pytest.mark.parametrize("task", TASKS)
def test_an_evaluation_needs_these_files_alone(package, task):
    configs = package.configurations(task)
    both = {**configs["train.json"], **configs["evaluate.json"]}
    referred = {each.split("#")[0] for each in settings.references(both)}
    assert referred <= both.keys()
    assert both["checkpoint"] == "@shipped_weights"
    assert both["shipped_weights"] == "$@bundle_root + '/models/model.pt'"


@pytest.mark.parametrize(("names", "spacing"), [(["anterior", "posterior"], [1.0, 1.0, 1.0]), (["liver"], None)])
def test_voxel_sizes_of_a_package_are_those_of_its_structures(package, names, spacing):
    for name in ("train.json", "inference.json"):
        parser = ConfigParser({**package.configurations("hippocampus")[name], "class_names": names})
        assert parser.get_parsed_content("spacing") == spacing


@pytest.mark.parametrize("task", TASKS)
def test_metadata(package, task):
    configs = package.configurations(task)
    metadata = configs["metadata.json"]
    jsonschema.validate(metadata, json.loads((TESTS / "meta_schema_20240725.json").read_text()))
    formats = metadata["network_data_format"]
    assert list(formats["outputs"]["pred"]["channel_def"].values()) == [
        "background",
        *configs["inference.json"]["class_names"],
    ]
    assert formats["inputs"]["image"]["num_channels"] == configs["inference.json"]["image_channels"]
    assert len(formats["inputs"]["image"]["spatial_shape"]) == configs["inference.json"]["spatial_dims"]
    assert metadata["version"] in metadata["changelog"]


def test_errors_are_one_sentence(package, tmp_path, capsys):
    with pytest.raises(ValueError, match="task must be one of hippocampus, isic, lidc, got 'liver'"):
        package.package("liver", tmp_path)
    with pytest.raises(ValueError, match="no weights '.*none.pt' of the task 'isic'"):
        package.package("isic", tmp_path, tmp_path / "none.pt")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="'.*other.pt' does not hold weights of the task 'lidc'"):
        package.package("lidc", tmp_path, tmp_path / "other.pt")
    assert cli.main(["package", "liver", "--output", str(tmp_path)]) == 2
    assert "task must be one of hippocampus, isic, lidc, got 'liver'." in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["other.pt"]


def exported(content):
    """A run of `ckpt_export` that writes an archive of some files."""

    def run(command, cwd, **options):
        with zipfile.ZipFile(cwd / "models" / "model.ts", "w") as archive:
            for name in content:
                archive.writestr(name, name)
        return subprocess.CompletedProcess(command, 0, "", "")

    return run


def test_torchscript_is_the_same_on_every_machine(package, tmp_path, monkeypatch):
    """What tells of the machine is left out, and every file has the same date."""
    (tmp_path / "models").mkdir()
    kept = ["model/data.pkl", "model/code/network.py"]
    left_out = ["model/code/network.py.debug_pkl", "model/.data/serialization_id"]
    monkeypatch.setattr(package.subprocess, "run", exported([*kept, *left_out]))
    package.export_torchscript(tmp_path)
    (file,) = (tmp_path / "models").iterdir()
    archive = zipfile.ZipFile(file)
    assert archive.namelist() == kept and [archive.read(name).decode() for name in kept] == kept
    assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    failed = subprocess.CompletedProcess([], 1, "", "There is no network.")
    monkeypatch.setattr(package.subprocess, "run", lambda *words, **options: failed)
    with pytest.raises(RuntimeError, match="ckpt_export failed:\nThere is no network."):
        package.export_torchscript(tmp_path)


def test_the_zip_holds_one_folder_and_is_the_same_twice(package, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(package.subprocess, "run", exported(["model/data.pkl"]))
    for output in ("one", "two"):
        assert cli.main(["package", "isic", "-o", str(tmp_path / output)]) == 0
    first, second = (Path(line) for line in capsys.readouterr().out.splitlines())
    version = package.configurations("isic")["metadata.json"]["version"]
    assert first == tmp_path / "one" / f"skin_dermoscopy_medsegdiff_segmentation_v{version}.zip"
    assert first.read_bytes() == second.read_bytes()
    names = zipfile.ZipFile(first).namelist()
    assert {name.split("/")[0] for name in names} == {"skin_dermoscopy_medsegdiff_segmentation"}
    inside = {name.partition("/")[2] for name in names}
    models = {"model.pt", "model.ts", "model.model.json", "model.intervals.json", "model.known.json"}
    assert {f"models/{name}" for name in models} == {name for name in inside if name.startswith("models/")}
    assert {"configs/train.json", "docs/README.md", "LICENSE", "medsegdiff_bundle/__init__.py"} <= inside
    assert not any("sample_data" in name or "__pycache__" in name for name in inside)


def test_large_files(package, tmp_path, capsys):
    """Listed with their hash, put beside the package, and fetched again by MONAI."""
    models, elsewhere = tmp_path / "bundle" / "models", tmp_path / "elsewhere"
    models.mkdir(parents=True)
    (models / "model.pt").write_bytes(b"0" * 101)
    (models / "model.ts").write_bytes(b"1" * 100)
    with pytest.raises(ValueError, match="models/model.pt has 101 bytes, more than the 100 .*--url"):
        package.move_large_files(tmp_path / "bundle", None, elsewhere, limit=100)
    package.move_large_files(tmp_path / "bundle", elsewhere.as_uri(), elsewhere, limit=100)
    assert [path.name for path in models.iterdir()] == ["model.ts"]
    monai.bundle.download_large_files(str(tmp_path / "bundle"))
    assert (models / "model.pt").read_bytes() == b"0" * 101

    (models / "model.pt").write_bytes(b"0" * 99)
    package.move_large_files(tmp_path / "bundle", None, elsewhere, limit=99)
    assert [path.name for path in models.iterdir()] == ["model.pt"]
    assert "models/model.ts has 100 bytes, more than the 99 " in capsys.readouterr().err

    (elsewhere / "model.pt").write_bytes(b"2" * 101)
    (models / "model.pt").unlink()
    with pytest.raises((ValueError, RuntimeError), match="sha256 .*check of downloaded file failed"):
        monai.bundle.download_large_files(str(tmp_path / "bundle"))
