"""The template without a training: tasks, settings, commands, scores."""

import json
import os
import sys
from pathlib import Path

import pytest
import yaml

from medsegdiff_bundle import cli
from medsegdiff_bundle.auto3dseg import TEMPLATES, algo, training
from medsegdiff_bundle.auto3dseg.algo import MedsegdiffAlgo, save_algo
from medsegdiff_bundle.auto3dseg.task import read_task, table, unfit
from medsegdiff_bundle.handlers.record import TrainingRecord
from medsegdiff_bundle.planning import plan
from medsegdiff_bundle.planning.measure import Cost

try:
    from monai.auto3dseg import algo_from_json as load_algo
except ImportError:  # before MONAI 1.6
    from monai.auto3dseg import algo_from_pickle as load_algo


def report_of(*labels):
    """A report of DataAnalyzer, of cases whose labels hold some values."""
    intensity = {"mean": 50.0, "stdev": 10.0, "percentile_00_5": 20.0, "percentile_99_5": 80.0}
    return {
        "stats_by_cases": [
            {
                "image_stats": {"shape": [[40, 48, 32]], "spacing": [0.5, 0.5, 2.0], "channels": 1},
                "image_foreground_stats": {"intensity": [intensity]},
                "label_stats": {"labels": list(values), "label": [{"foreground_percentage": 0.25} for _ in values]},
            }
            for values in labels
        ]
    }


@pytest.fixture
def task(tmp_path):
    """Three cases of which two have the same name, and the report beside them."""
    cases = [
        {"image": f"{name}.nii.gz", "label": "l.nii.gz", "fold": n % 2} for n, name in enumerate(("a/x", "b/x", "y"))
    ]
    (tmp_path / "list.json").write_text(json.dumps({"training": cases}))
    content = {"modality": "CT", "datalist": str(tmp_path / "list.json"), "dataroot": str(tmp_path)}
    (tmp_path / "input.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "datastats_by_case.yaml").write_text(yaml.safe_dump(report_of([0, 1, 4], [0, 1], [0, 4])))
    return tmp_path


def saved(made):
    """What MONAI wrote of an algorithm: the object, and what stands beside it."""
    (file,) = Path(made.output_path).glob("algo_object.*")
    return load_algo(str(file))


def changed(task, **entries):
    return {**read_task(task / "input.yaml"), **entries}


def test_the_table_of_a_task(task):
    found = table(changed(task), report_of([0, 4], [1], [0]))
    assert [row["name"] for row in found["cases"]] == ["a_x", "b_x", "y"]
    assert [row["fold"] for row in found["cases"]] == [0, 1, 0]
    assert found["cases"][0]["image"] == str(task / "a" / "x.nii.gz")
    assert found["class_values"] == [0, 1, 4] and found["modality"] == "CT" and "class_names" not in found
    named = changed(task, class_names=[{"name": "core", "index": [4]}, {"name": "edge", "index": [1]}])
    found = table(named, report_of([0, 1], [4]))
    assert (found["class_names"], found["class_values"]) == (["core", "edge"], [0, 4, 1])
    rare = table(changed(task, class_names=["a", "b", "c"]), report_of([0, 1, 3]))
    assert rare["class_values"] == [0, 1, 2, 3], "a class that no case holds"
    with pytest.raises(ValueError, match="class_names are a, but the labels hold 0, 1, 4"):
        table(changed(task, class_names=["a"]), report_of([0, 1, 4]))


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({}, ""),
        ({"sigmoid": True}, "its classes overlap"),
        ({"class_names": [{"name": "whole", "index": [1, 2]}]}, "several values"),
        ({"extra_modalities": {"image2": "pet"}}, "further names"),
    ],
)
def test_tasks_that_do_not_fit_are_left_to_others(task, entries, reason):
    assert reason in unfit(changed(task, **entries)) and bool(unfit(changed(task, **entries))) == bool(reason)
    (task / "input.yaml").write_text(yaml.safe_dump(changed(task, **entries)))
    made = MedsegdiffAlgo(str(TEMPLATES))
    made.set_data_source(str(task / "input.yaml"))
    assert made.pre_check_skip_algo()[0] is bool(reason)


@pytest.fixture
def filled(task, monkeypatch):
    """The folder of fold 1."""
    monkeypatch.setattr(plan, "training_cost", lambda *args, **words: Cost(0.1, 10**8, 1000))
    monkeypatch.setattr(plan, "window_seconds", lambda *args: 0.1)
    (task / "input.yaml").write_text(yaml.safe_dump(changed(task, medsegdiff={"hours": 1, "num_epochs": 7})))
    made = MedsegdiffAlgo(str(TEMPLATES))
    made.name = "medsegdiff"
    made.set_data_source(str(task / "input.yaml"))
    made.set_data_stats(str(task / "datastats.yaml"))
    made.export_to_disk(str(task / "a work"), "medsegdiff_1", fold=1)
    save_algo(made, template_path=str(TEMPLATES))
    return made


def test_the_rules_are_those_of_configure(filled):
    entries = json.loads((Path(filled.output_path) / "configs" / "medsegdiff.json").read_text())
    assert entries["epochs"] == 7 and entries["fold"] == 1 and entries["spacing"] == [0.5, 0.5, 2.0]
    assert entries["network_def#strides"][0] == [2, 2, 1]
    assert entries["class_values"] == [0, 1, 4] and entries["window"][0] < entries["window"][1]
    assert entries["class_names"] == ["value 1", "value 4"]
    page = (Path(filled.output_path) / "configs" / "medsegdiff.md").read_text()
    assert "1 h on" in page and "| `epochs` | `7` | As given. |" in page


def test_a_search_takes_what_was_filled(filled, task, caplog):
    """NNI's trials copy the template and change settings, of which some are those of other algorithms."""
    found, _ = saved(filled)
    found.template_path = str(TEMPLATES)
    words = {"fill_with_datastats": False, "bundle_root": "x", "learning_rate": 0.5, "num_warmup_epochs": 1}
    with caplog.at_level("WARNING"):  # which quiet commands before may have raised
        found.export_to_disk(str(task / "trials"), "trial", **words)
    entries = json.loads((task / "trials" / "trial" / "configs" / "medsegdiff.json").read_text())
    assert (entries["learning_rate"], entries["epochs"], entries["fold"]) == (0.5, 7, 1)
    assert entries["dataset_dir"] == str(task / "trials" / "trial" / "cases.json")
    assert Path(entries["dataset_dir"]).is_file()
    assert "num_warmup_epochs: no setting of this algorithm" in caplog.text


@pytest.fixture
def commands(monkeypatch):
    found = []
    monkeypatch.setattr(algo, "run_cmd", lambda command, env, **words: found.append((command, env)))
    return found


def test_the_command_of_a_training(filled, commands):
    """Of this Python, in a folder with a space; torchrun for several GPUs; a prefix comes before all."""
    script = str(Path(filled.output_path) / "scripts" / "train.py")
    filled.train({"num_epochs": 2, "patch_size": [16, 16, 16]}, {"CUDA_VISIBLE_DEVICES": "", "n_devices": 0})
    filled.train({}, {"CUDA_VISIBLE_DEVICES": "1,3", "n_devices": 2})
    filled.train({}, {"CMD_PREFIX": "/bin/python -u ", "CUDA_VISIBLE_DEVICES": "1,3"})
    (first, environment), (second, of_two), (third, _) = commands
    assert first == [sys.executable, script, "run", "--num_epochs=2", "--patch_size=[16, 16, 16]"]
    assert environment["CUDA_VISIBLE_DEVICES"] == "" and of_two["CUDA_VISIBLE_DEVICES"] == "1,3"
    assert second[1:5] == ["-m", "torch.distributed.run", "--nnodes=1", "--nproc_per_node=2"]
    assert third[:3] == ["/bin/python", "-u", script]


def test_a_training_that_is_done_is_trained_anew(filled, commands):
    """AutoRunner asks for that with train=True alone; a cut of it must not look like an end."""
    where = Path(filled.output_path) / "model"
    where.mkdir()
    (where / "progress.yaml").write_text("[{best_avg_dice_score: 0.5}]")
    save_algo(filled, template_path=str(TEMPLATES), best_metric=0.5)
    assert filled.get_score() == 0.5
    filled.train({}, {"CUDA_VISIBLE_DEVICES": ""})
    assert commands[0][0][-1] == "--overwrite=True" and not (where / "progress.yaml").exists()
    assert "best_metric" not in saved(filled)[1]


def test_a_training_goes_on(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(cli, "main", lambda words: said.append(words) or 0)
    (tmp_path / "model").mkdir()
    training.train(tmp_path, num_epochs=2, config_file="x.yaml")
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "2")
    training.train(tmp_path, overwrite=True)
    start = ["train", str(tmp_path / "configs" / "medsegdiff.json"), "-o", str(tmp_path / "model")]
    assert said == [
        [*start, "--set=resume=auto", "--set=epochs=2"],
        [*start, "--config", "multi_gpu_train", "--set=overwrite=True"],
    ]
    monkeypatch.setattr(cli, "main", lambda words: 2)
    with pytest.raises(SystemExit):
        training.train(tmp_path)


def test_scores(tmp_path):
    """The best is last; what no validation case defines counts as 0."""
    record = TrainingRecord(str(tmp_path))
    for epoch, dice in enumerate((0.3, 0.2, float("nan"), 0.4), 1):
        record.add(epoch, {"val_fused": dice})
    training.write_progress(tmp_path)
    found = yaml.safe_load((tmp_path / "progress.yaml").read_text())
    assert found == [
        {"best_avg_dice_score": 0.3, "best_avg_dice_score_epoch": 1},
        {"best_avg_dice_score": 0.4, "best_avg_dice_score_epoch": 4},
    ]
    (tmp_path / "history.csv").unlink()
    training.write_progress(tmp_path)
    assert yaml.safe_load((tmp_path / "progress.yaml").read_text())[-1]["best_avg_dice_score"] == 0


def test_where_the_template_is(capsys):
    assert cli.main(["info", "--templates"]) == 0
    assert Path(capsys.readouterr().out.strip()) == TEMPLATES
    assert (TEMPLATES / "medsegdiff" / "scripts" / "algo.py").is_file()
