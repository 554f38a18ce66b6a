"""Experiment tracking: MONAI's `--tracking mlflow`, and TensorBoard, which is always on."""

from pathlib import Path

import mlflow
import monai.bundle
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).parent.parent


def client_of(folder):
    """A client of the store that MONAI made: one file, before MONAI 1.6 a folder."""
    file = folder / "mlruns.db"
    return mlflow.MlflowClient(tracking_uri=f"sqlite:///{file}" if file.is_file() else (folder / "mlruns").as_uri())


@pytest.fixture(scope="module")
def tracked(small_run, tmp_path_factory):
    """Output folder of a training of two epochs."""
    folder = tmp_path_factory.mktemp("tracked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        monai.bundle.run(
            config_file=str(ROOT / "configs" / "train.json"),
            logging_file=str(ROOT / "configs" / "logging.conf"),
            tracking="mlflow",
            output_dir=str(folder),
            experiment_name="hippocampus",
            run_name="two epochs",
            epochs=2,
            **{**small_run, "patch_size": [16, 16, 16], "val_interval": 2, "ensemble_size": 1},
        )
    return folder


def test_mlflow_has_one_finished_run_with_its_metrics(tracked):
    client = client_of(tracked)
    experiments = {each.name: each.experiment_id for each in client.search_experiments()}
    (run,) = client.search_runs([experiments["hippocampus"]])
    assert (run.info.run_name, run.info.status) == ("two epochs", "FINISHED")
    assert {"train_loss", "fused", "anchor"} <= set(run.data.metrics)
    losses = client.get_metric_history(run.info.run_id, "train_loss")
    assert [each.step for each in losses] == [1, 2, 3, 4]
    assert len(list(tracked.glob("config_*.json"))) == 1  # all settings of the run, which MONAI writes down


def test_an_evaluation_is_a_finished_run_of_its_own(tracked, small_run, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monai.bundle.run(
        config_file=[str(ROOT / "configs" / name) for name in ("train.json", "evaluate.json")],
        logging_file=str(ROOT / "configs" / "logging.conf"),
        tracking="mlflow",
        output_dir=str(tmp_path),
        checkpoint=str(tracked / "model.pt"),
        experiment_name="hippocampus",
        **{**small_run, "ensemble_size": 1},
    )
    client = client_of(tmp_path)
    (run,) = client.search_runs([client.get_experiment_by_name("hippocampus").experiment_id])
    assert run.info.status == "FINISHED"
    assert {"fused", "anchor"} <= set(run.data.metrics)


def test_tensorboard_agrees_with_mlflow(tracked):
    client = client_of(tracked)
    (run,) = client.search_runs([client.get_experiment_by_name("hippocampus").experiment_id])
    curves = EventAccumulator(str(tracked / "tensorboard")).Reload()
    tags = set(curves.Tags()["scalars"])
    assert {"train_loss/total", "val_dice_fused/anterior", "val_dice_anchor/posterior"} <= tags
    losses = client.get_metric_history(run.info.run_id, "train_loss")
    assert [each.value for each in curves.Scalars("train_loss/total")] == pytest.approx([each.value for each in losses])
