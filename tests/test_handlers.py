import logging
import math
import os
import signal
from types import SimpleNamespace as Namespace

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from matplotlib.image import imread
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import IterationEvents
from monai.transforms import Compose, RandFlip, RandScaleIntensity
from torch import nn

from medsegdiff_bundle.handlers import (
    DiceReport,
    EMAHandler,
    EpochSeed,
    FiniteLoss,
    MissingClasses,
    OverlayHandler,
    TrainingCheckpoint,
    TrainingRecord,
    WeightsLoader,
)
from medsegdiff_bundle.handlers.stopping import StopSignal
from medsegdiff_bundle.handlers.training_checkpoint import check_training_folder, checkpoints
from medsegdiff_bundle.losses import MedSegDiffLoss
from medsegdiff_bundle.transforms import load_image
from medsegdiff_bundle.visualization.marks import MARGIN


class Evaluating(Engine):
    """An evaluator after a validation, with its metrics: {name: (mean, values of cases and classes)}."""

    def __init__(self, metrics, step=lambda engine, batch: None):
        super().__init__(step)
        self.state.key_metric_name = "fused"
        self.state.metrics = {name: mean for name, (mean, _) in metrics.items()}
        self.state.metric_details = {name: torch.tensor(values) for name, (_, values) in metrics.items()}


def fixed_rate(network):
    return torch.optim.lr_scheduler.ConstantLR(torch.optim.SGD(network.parameters(), lr=0.1))


def sgd_run(folder, epochs, resume=False, evaluator=None, start=1.0, at_step=lambda engine: None, **options):
    """A run of 3 iterations per epoch: the weight w of a layer follows dL/dw = w + noise + data, by momentum."""
    network, ema_network = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, start)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda iteration: 1 / (1 + iteration))

    def step(engine, batch):
        optimizer.zero_grad()
        loss = 0.5 * network(torch.ones(1, 1)).square().sum() + (torch.randn(()) + batch.sum()) * network.weight.sum()
        loss.backward()
        optimizer.step()
        lr_scheduler.step()
        at_step(engine)

    trainer = Engine(step)
    transform = Compose([RandScaleIntensity(1.0, prob=1.0)])
    EpochSeed(0, transform).attach(trainer)
    evaluator = evaluator or Evaluating({"fused": (0.5, [[0.5]])})
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: evaluator.run([0]))
    EMAHandler(network, ema_network, decay=0.9).attach(trainer)
    checkpoint = TrainingCheckpoint(
        folder,
        ema_network,
        {"network": network, "optimizer": optimizer},
        lr_scheduler,
        evaluator,
        resume,
        **options,
    )
    checkpoint.attach(trainer)
    data = Dataset([torch.full((1, 1), float(value)) for value in range(6)], transform)
    trainer.run(DataLoader(data, batch_size=2, shuffle=True), max_epochs=epochs)
    return network.weight.item(), ema_network.weight.item(), lr_scheduler.get_last_lr()[0]


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path):
    whole = sgd_run(tmp_path / "whole", 4)
    sgd_run(tmp_path / "parts", 2)
    parts = sgd_run(tmp_path / "parts", 4, resume=True, start=7.0)
    assert parts == pytest.approx(whole, rel=1e-6)


def test_resume_without_a_file_or_without_epochs_left(tmp_path):
    with pytest.raises(ValueError, match="There is nothing to resume from"):
        sgd_run(tmp_path, 1, resume=True)
    sgd_run(tmp_path, 2)
    with pytest.raises(ValueError, match="has 2 epochs already, of 2 asked for"):
        sgd_run(tmp_path, 2, resume=True)


def test_a_training_replaces_no_other(tmp_path):
    sgd_run(tmp_path, 1)
    for _ in range(2):
        with pytest.raises(ValueError, match="overwrite '.*last.ckpt' of another one: --resume True .* --output_dir"):
            sgd_run(tmp_path, 1)
        (tmp_path / "model.pt").touch()
    for file in tmp_path.glob("*.ckpt"):
        file.unlink()
    with pytest.raises(ValueError, match="would overwrite '.*model.pt'"):
        check_training_folder(str(tmp_path))
    assert not check_training_folder(str(tmp_path), "auto")  # begins: it was killed before its first checkpoint
    sgd_run(tmp_path, 1, overwrite=True)
    assert check_training_folder(str(tmp_path), "auto", overwrite=True)


def test_what_replaces_a_training_goes_on_with_itself_alone(tmp_path):
    """A kill in the first epoch, after which the checkpoints of the old training must not be taken for its own."""

    def kill(engine):
        raise KeyboardInterrupt

    sgd_run(tmp_path, 5, keep=3)
    with pytest.raises(KeyboardInterrupt):
        sgd_run(tmp_path, 6, overwrite=True, at_step=kill)
    with pytest.raises(ValueError, match="There is nothing to resume from"):
        sgd_run(tmp_path, 6, resume=True)
    sgd_run(tmp_path, 1, overwrite=True, keep=3)
    assert [file.name for file in checkpoints(tmp_path)] == ["last.ckpt"]


def test_without_a_model_no_other_weights_stay_described(tmp_path):
    (tmp_path / "model.model.json").write_text("{}")
    network = nn.Linear(1, 1)
    checkpoint = TrainingCheckpoint(str(tmp_path), network, {}, fixed_rate(network), Evaluating({}), overwrite=True)
    (tmp_path / "model.pt").touch()
    checkpoint.describe()
    assert not (tmp_path / "model.model.json").exists()


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("event", [Events.STARTED, Events.ITERATION_COMPLETED])
def test_a_training_that_fails_says_so_in_its_log(recorded, event, tmp_path):
    def fail():
        raise ValueError("no memory")

    before, handlers = signal.getsignal(signal.SIGTERM), [*logging.getLogger().handlers]
    network, trainer = nn.Linear(1, 1), Engine(lambda engine, batch: None)
    TrainingCheckpoint(str(tmp_path), network, {}, fixed_rate(network), Evaluating({})).attach(trainer)
    if recorded:
        TrainingRecord(str(tmp_path)).attach(trainer)
    trainer.add_event_handler(event, fail)
    with pytest.raises(ValueError, match="no memory"):
        trainer.run([0])
    assert signal.getsignal(signal.SIGTERM) is before and logging.getLogger().handlers == handlers
    assert not recorded or "The training ended: no memory" in (tmp_path / "training.log").read_text()


def test_an_error_before_the_training_has_begun_is_raised():
    def fail():
        raise ValueError("no such class")

    trainer = Engine(lambda engine, batch: None)
    trainer.add_event_handler(Events.STARTED, fail)
    StopSignal().attach(trainer)
    with pytest.raises(ValueError, match="no such class"):
        trainer.run([0])


def test_auto_starts_goes_on_and_is_done(tmp_path):
    whole = sgd_run(tmp_path / "whole", 3)
    sgd_run(tmp_path / "auto", 2, resume="auto")
    assert sgd_run(tmp_path / "auto", 3, resume="auto", start=7.0) == pytest.approx(whole, rel=1e-6)
    steps = []
    assert sgd_run(tmp_path / "auto", 3, resume="auto", at_step=steps.append) == pytest.approx(whole, rel=1e-6)
    assert not steps


@pytest.mark.parametrize("damage", ["torn", "flipped", "gone", "other"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_used(damage, tmp_path, caplog):
    whole = sgd_run(tmp_path / "whole", 4)
    sgd_run(tmp_path / "parts", 3)
    last = tmp_path / "parts" / "last.ckpt"
    content = bytearray(last.read_bytes())
    place = content.index(np.float32(torch.load(last, weights_only=True)["network"]["weight"]).tobytes())
    content[place] ^= 1
    if damage == "gone":
        last.unlink()
    elif damage == "other":
        torch.save({"weight": torch.zeros(1)}, last)
    else:
        last.write_bytes(content if damage == "flipped" else content[: len(content) // 2])
    assert sgd_run(tmp_path / "parts", 4, resume=True, start=7.0) == pytest.approx(whole, rel=1e-6)
    assert damage == "gone" or f"{str(last)!r}" in caplog.text
    assert torch.load(last, weights_only=True)["epoch"] == 4
    for file in (last, tmp_path / "parts" / "last.1.ckpt"):
        file.write_text("no zip")
    with pytest.raises(ValueError, match="last.ckpt' cannot be read"):
        sgd_run(tmp_path / "parts", 5, resume=True)


def test_a_checkpoint_of_another_network(tmp_path):
    sgd_run(tmp_path, 1)
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    torch.save({**state, "network": {"weight": torch.zeros(2, 1)}}, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match="last.ckpt' is of a training of another network or task: .* the network does"):
        sgd_run(tmp_path, 2, resume=True)


@pytest.mark.parametrize("keep", [1, 3])
def test_so_many_checkpoints_are_kept(keep, tmp_path):
    sgd_run(tmp_path, 5, keep=keep)
    kept = [torch.load(file, weights_only=True)["epoch"] for file in checkpoints(tmp_path)]
    assert kept == [5, 4, 3][:keep]


@pytest.mark.parametrize("step", [1, 4, 5, 6, 7])
def test_told_to_stop_and_resumed_it_ends_where_an_uninterrupted_run_does(step, tmp_path):
    """In the midst of an epoch, and in the validation after its last step; SIGTERM is as it was afterwards."""

    def tell(engine):
        if engine.state.iteration == step:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    whole = sgd_run(tmp_path / "whole", 4)
    with pytest.raises(SystemExit) as caught:
        sgd_run(tmp_path / "parts", 4, at_step=tell)
    assert caught.value.code == 143 and signal.getsignal(signal.SIGTERM) is before
    assert torch.load(tmp_path / "parts" / "last.ckpt", weights_only=True)["iteration"] == step
    validated = []
    evaluator = Evaluating({"fused": (0.5, [[0.5]])}, lambda engine, batch: validated.append(batch))
    assert sgd_run(tmp_path / "parts", 4, resume=True, start=7.0, evaluator=evaluator) == pytest.approx(whole, rel=1e-6)
    assert len(validated) == 4 - (step - 1) // 3


def test_told_to_stop_in_a_validation(tmp_path):
    def tell(engine, batch):
        os.kill(os.getpid(), signal.SIGTERM)

    whole = sgd_run(tmp_path / "whole", 3)
    with pytest.raises(SystemExit):
        sgd_run(tmp_path / "parts", 3, evaluator=Evaluating({"fused": (0.5, [[0.5]])}, tell))
    assert torch.load(tmp_path / "parts" / "last.ckpt", weights_only=True)["begun"]["batches"] == 3
    assert sgd_run(tmp_path / "parts", 3, resume=True, start=7.0) == pytest.approx(whole, rel=1e-6)


def test_average_starts_at_the_loaded_weights_and_warms_up():
    network, ema_network = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    trainer = Engine(lambda engine, batch: nn.init.constant_(network.weight, float(batch)))
    # A checkpoint loader, which runs first.
    trainer.add_event_handler(Events.STARTED, lambda engine: nn.init.constant_(network.weight, 10.0))
    EMAHandler(network, ema_network, decay=0.2).attach(trainer)
    averages = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: averages.append(ema_network.weight.item()))
    trainer.run([1.0, 2.0])
    first = 2 / 11 * 10.0 + 9 / 11 * 1.0  # decay (1 + 1) / (10 + 1)
    assert averages == pytest.approx([first, 0.2 * first + 0.8 * 2.0])  # (1 + 2) / (10 + 2) is above 0.2
    assert not ema_network.weight.requires_grad


def test_average_copies_counters():
    network, ema_network = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    trainer = Engine(lambda engine, batch: network(torch.randn(4, 1)))
    EMAHandler(network, ema_network).attach(trainer)
    trainer.run([0] * 3)
    assert int(ema_network.num_batches_tracked) == 3


def test_bad_decay():
    with pytest.raises(ValueError, match="decay must be at least 0 and below 1, got 1"):
        EMAHandler(nn.Identity(), nn.Identity(), decay=1)


def test_model_file_is_flat_and_only_the_best(tmp_path):
    evaluator = Engine(lambda engine, batch: None)
    network = nn.Linear(1, 1, bias=False)
    trainer = Engine(lambda engine, batch: None)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    lr_scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    checkpoint = TrainingCheckpoint(str(tmp_path), network, {}, lr_scheduler, evaluator)
    checkpoint.attach(trainer)
    evaluator.state.key_metric_name = "fused"
    for metric, weight in ((0.5, 1.0), (0.7, 2.0), (0.6, 3.0)):
        evaluator.state.metrics["fused"] = metric
        nn.init.constant_(network.weight, weight)
        evaluator.fire_event(Events.COMPLETED)
    assert torch.load(tmp_path / "model.pt", weights_only=True) == {"weight": torch.tensor([[2.0]])}
    assert {path.name for path in tmp_path.iterdir()} == {"model.pt"}


def test_a_class_that_no_validation_case_holds(tmp_path, caplog, capsys):
    """MONAI makes 0 of it. It is undefined: said before the training, the latest weights stay, and no 0 is printed."""
    evaluator = Evaluating({"fused": (0.0, [[math.nan, math.nan]] * 2), "anchor": (0.0, [[math.nan, math.nan]] * 2)})
    network = nn.Linear(1, 1, bias=False)
    trainer = Engine(lambda engine, batch: None)
    cases = [{"label": torch.zeros(1, 4, 4, 4)}, {"label": torch.zeros(1, 5, 4, 4)}]
    MissingClasses(cases, ["liver", "tumour"]).attach(trainer)
    TrainingCheckpoint(str(tmp_path), network, {}, fixed_rate(network), evaluator).attach(trainer)

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate(engine):
        nn.init.constant_(network.weight, float(engine.state.epoch))
        evaluator.fire_event(Events.COMPLETED)

    trainer.run([0], max_epochs=3)
    assert "No validation case holds liver, tumour: " in caplog.text
    assert torch.load(tmp_path / "model.pt", weights_only=True) == {"weight": torch.tensor([[3.0]])}
    assert capsys.readouterr().out == (
        "Dice: undefined, as no validation case holds a class; model.pt has the last weights\n"
    )
    DiceReport(["liver", "tumour"])(evaluator)
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "fused undefined (liver undefined, tumour undefined)",
        "Dice: undefined",
    ]


def test_one_class_of_two_that_no_validation_case_holds(caplog, capsys):
    evaluator = Evaluating({"fused": (0.5, [[0.5, math.nan]]), "anchor": (0.0, [[0.0, math.nan]])})
    trainer = Engine(lambda engine, batch: None)
    MissingClasses([{"label": torch.tensor([[[0, 1]]])}], ["liver", "tumour"]).attach(trainer)
    trainer.run([0], max_epochs=1)
    assert "No validation case holds tumour: the Dice of it is undefined" in caplog.text
    DiceReport(["liver", "tumour"])(evaluator)
    assert capsys.readouterr().out.splitlines() == [
        "anchor 0.0000 (liver 0.0000, tumour undefined)",  # a liver that was missed is 0
        "fused 0.5000 (liver 0.5000, tumour undefined)",
        "Dice: 0.5000",
    ]


def test_overlays_are_drawn_from_the_file(small_dataset, tmp_path):
    path = sorted((small_dataset / "imagesTr").glob("*.nii.gz"))[0]
    image = MetaTensor(torch.zeros(1, 4, 4, 4), meta={"filename_or_obj": str(path)})
    shape = load_image(path).shape
    mask = torch.zeros(shape)
    mask[:, 10:20, 10:20, 10:20] = 2
    evaluator = Engine(lambda engine, batch: [{"image": image, "pred": mask, "uncertainty": torch.rand(shape)}])
    OverlayHandler(str(tmp_path), "{epoch}_{case}.png", max_cases=1).attach(evaluator)
    evaluator.run([0, 1])
    (picture,) = tmp_path.iterdir()
    assert picture.name == f"1_{path.name.split('.')[0]}.png"
    height, width = imread(picture).shape[:2]
    scale = -(-256 // max(shape))
    # Axial, coronal and sagittal; image, mask and uncertainty; each with the margins of its letters.
    assert height == scale * (shape[2] + 2 * shape[3]) + 3 * 3 * MARGIN
    assert width == 3 * (scale * max(shape[1:3]) + 2 * MARGIN)


def test_no_two_epochs_or_processes_draw_the_same(monkeypatch):
    transform = Compose([RandFlip(prob=0.5)])
    trainer = Engine(lambda engine, batch: None)
    EpochSeed(0, transform).attach(trainer)
    drawn = []
    draw = lambda engine: drawn.append((torch.rand(()).item(), transform.transforms[0].R.random()))  # noqa: E731
    trainer.add_event_handler(Events.ITERATION_STARTED, draw)
    trainer.run([0], max_epochs=2)
    monkeypatch.setattr("ignite.distributed.get_rank", lambda: 1)
    trainer.run([0], max_epochs=4)
    monkeypatch.setattr("ignite.distributed.get_rank", lambda: 0)
    trainer.state.max_epochs = None
    trainer.run([0], max_epochs=2)
    assert drawn[:2] == drawn[4:] and len(set(drawn)) == 4
    assert len({torch_number for torch_number, _ in drawn}) == len({number for _, number in drawn}) == 4


def linear_weights(path, **weights):
    torch.save(weights, path)
    return str(path)


def test_weights_that_fit_are_loaded(tmp_path, caplog):
    path = linear_weights(tmp_path / "model.pt", weight=torch.full((1, 1), 3.0))
    network = nn.Linear(1, 1, bias=False)
    trainer = Engine(lambda engine, batch: None)
    WeightsLoader(path, network).attach(trainer)
    trainer.run([0])
    # Ignite's own words depend on what other tests have set.
    assert network.weight.item() == 3 and not [each for each in caplog.records if each.name.startswith("medsegdiff")]
    network = nn.Linear(1, 1)  # has a bias too
    WeightsLoader(path, network, strict=False)(trainer)
    assert network.weight.item() == 3 and "gives 50 % of the network's weights" in caplog.text


@pytest.mark.parametrize(
    ("weights", "strict", "sentence"),
    [
        ({"weight": torch.zeros(1, 2)}, True, r"weight is \(1, 2\) in the file, \(1, 1\) in the network"),
        ({}, True, "no weight in common"),
        ({"weight": torch.zeros(1, 2)}, False, "no weight in common"),
        ({"weight": torch.zeros(1, 1), "bias": torch.zeros(1)}, True, r"bias is \(1,\) in the file, nothing in the"),
        ({"weight": torch.zeros(1, 1), "epoch": 3}, True, "something else than weights"),
    ],
)
def test_weights_that_do_not_fit(tmp_path, weights, strict, sentence):
    path = linear_weights(tmp_path / "model.pt", **weights)
    with pytest.raises(ValueError, match=sentence):
        loader = WeightsLoader(path, nn.Linear(1, 1, bias=False), strict)
        assert strict  # otherwise before the run, which writes
        loader(None)


def test_weights_that_are_no_file_or_unreadable(tmp_path):
    with pytest.raises(ValueError, match="The weights '.*model.pt' do not exist"):
        WeightsLoader(str(tmp_path / "model.pt"), nn.Identity())
    for content in (b"no weights", b"hello\n", b"", b"\x80\x02K", b"<html></html>", b"\xff\xfe"):
        (tmp_path / "model.pt").write_bytes(content)
        with pytest.raises(ValueError, match="The weights '.*model.pt' cannot be read: it is no file of torch.save"):
            WeightsLoader(str(tmp_path / "model.pt"), nn.Identity())(None)


def test_a_loss_that_is_no_number_ends_the_training():
    loss = MedSegDiffLoss()

    def step(engine, value):
        loss.parts = {"diffusion": torch.tensor(1.0), "anchor": torch.tensor(value)}
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        steps.append(value)

    steps = []
    trainer = Engine(step)
    trainer.register_events(*IterationEvents)
    FiniteLoss(loss).attach(trainer)
    with pytest.raises(ValueError, match="The loss of the anchor is nan in iteration 2: try a lower learning_rate"):
        trainer.run([0.5, float("nan"), 0.5])
    assert steps == [0.5]  # and no step of the optimizer after it
    with pytest.raises(ValueError, match="iteration 1, of 'a.nii', 'b.nii': try"):
        FiniteLoss(loss)(Namespace(state=Namespace(iteration=1, batch={"file_of_image": ["a.nii", "b.nii"]})))
