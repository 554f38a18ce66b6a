import copy

import pytest
import torch
from monai.bundle import ConfigParser
from monai.networks.schedulers import NoiseSchedules
from monai.networks.schedulers import Scheduler as StockScheduler

from medsegdiff_bundle.schedulers import (
    DDIMScheduler,
    DDPMScheduler,
    DiffusionScheduler,
    DPMSolverMultistepScheduler,
)

CLASSES = [DDPMScheduler, DDIMScheduler, DPMSolverMultistepScheduler]
PREDICTION_TYPES = ["epsilon", "sample", "v_prediction"]
TABLES = ["betas", "alphas", "alphas_cumprod", "timesteps"]


@pytest.fixture(params=CLASSES)
def scheduler_class(request):
    return request.param


def noisy(shape=(2, 1, 4, 4), dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def sample(scheduler, x, seed=0, model=torch.tanh):
    generator = torch.Generator().manual_seed(seed)
    x_0 = x
    for t in scheduler.timesteps:
        x, x_0 = scheduler.step(model(x), t, x, generator=generator)
    return x, x_0


def snapshot(scheduler):
    return {name: getattr(scheduler, name).clone() for name in TABLES}


def assert_tables(scheduler, expected):
    for name, table in expected.items():
        assert getattr(scheduler, name).dtype == table.dtype
        assert torch.equal(getattr(scheduler, name), table)


# Timesteps


@pytest.mark.parametrize("total", [1, 2, 7, 100, 1000])
def test_trailing_timesteps_at_any_number(total):
    scheduler = DDIMScheduler(num_train_timesteps=total)
    for steps in range(1, total + 1):
        scheduler.set_timesteps(steps)
        timesteps = scheduler.timesteps
        assert timesteps.dtype == torch.int64 and timesteps.shape == (steps,) and scheduler.num_inference_steps == steps
        assert timesteps[0] == total - 1 and timesteps[-1] >= 0
        assert (timesteps.diff() < 0).all()


def test_a_later_start_by_hand(scheduler_class):
    scheduler = scheduler_class(num_train_timesteps=1000)
    scheduler.set_timesteps(4, start=399)
    assert scheduler.timesteps.tolist() == [399, 299, 199, 99]
    for start in (-1, 1000):
        with pytest.raises(ValueError, match=rf"start must be in \[0, 999\], got {start}"):
            scheduler.set_timesteps(1, start=start)
    with pytest.raises(ValueError, match=r"in \[1, 3\], got 4"):
        scheduler.set_timesteps(4, start=2)


def test_trailing_timesteps_by_hand():
    scheduler = DDIMScheduler()
    assert scheduler.timesteps.tolist() == list(range(999, -1, -1))
    scheduler.set_timesteps(5)
    assert scheduler.timesteps.tolist() == [999, 799, 599, 399, 199]
    scheduler.set_timesteps(3)
    assert scheduler.timesteps.tolist() == [999, 666, 332]


# Tables


@pytest.mark.parametrize("schedule", ["linear_beta", "scaled_linear_beta", "sigmoid_beta", "cosine"])
def test_tables_are_the_stock_ones(scheduler_class, schedule):
    scheduler, stock = scheduler_class(schedule=schedule), StockScheduler(schedule=schedule)
    assert isinstance(scheduler, DiffusionScheduler) and isinstance(scheduler, StockScheduler)
    assert set(dict(scheduler.named_buffers())) == set(TABLES)
    assert not scheduler.state_dict()
    assert_tables(scheduler, snapshot(stock))


def test_schedule_arguments_reach_the_schedule():
    assert DDIMScheduler(beta_end=0.01).betas[-1] == pytest.approx(0.01)
    assert DDIMScheduler(schedule="cosine", s=0.1).betas[0] > DDIMScheduler(schedule="cosine").betas[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_use_leaves_the_tables_alone(scheduler_class, dtype):
    scheduler = scheduler_class()
    scheduler.set_timesteps(4)
    before = snapshot(scheduler)
    x, t = noisy(dtype=dtype), torch.tensor([3, 998])
    for result in (
        scheduler.add_noise(x, x, t),
        scheduler.get_velocity(x, x, t),
        scheduler.get_target(x, x, t),
        *sample(scheduler, x),
    ):
        assert result.dtype == dtype and result.shape == x.shape
    assert_tables(scheduler, before)


def test_casting_keeps_precision_and_moving_moves(scheduler_class):
    scheduler = scheduler_class()
    scheduler.set_timesteps(4)
    before = snapshot(scheduler)
    parent = torch.nn.Sequential(scheduler).half().to("cpu", torch.bfloat16)
    assert_tables(parent[0], before)
    moved = copy.deepcopy(scheduler).to("meta")
    assert all(getattr(moved, name).device.type == "meta" for name in TABLES)
    assert_tables(scheduler, before)


def test_deepcopy_is_independent(scheduler_class):
    scheduler = scheduler_class()
    scheduler.set_timesteps(6)
    for t in scheduler.timesteps[:3]:  # with a history
        scheduler.step(noisy(), t, noisy())
    twin = copy.deepcopy(scheduler)
    assert_tables(twin, snapshot(scheduler))
    scheduler.set_timesteps(2)
    assert twin.num_inference_steps == 6
    assert sample(twin, noisy())[0].isfinite().all()


# Noising and predictions


@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 1, 5), (3, 1, 4, 4), (3, 1, 2, 3, 4)])
def test_timesteps_per_sample_or_one_for_all(shape):
    scheduler, x_0, noise = DDIMScheduler(), noisy(shape), torch.randn(shape)
    t = torch.tensor([5, 500, 999])
    together = scheduler.add_noise(x_0, noise, t)
    for i, t_i in enumerate(t.tolist()):
        alpha_bar = scheduler.alphas_cumprod[t_i]
        expected = alpha_bar.sqrt() * x_0[i] + (1 - alpha_bar).sqrt() * noise[i]
        torch.testing.assert_close(together[i], expected)
        for same in (t_i, torch.tensor(t_i), torch.tensor([t_i])):
            torch.testing.assert_close(scheduler.add_noise(x_0, noise, same)[i], expected)


def test_half_precision_rounds_once():
    scheduler, t = DDIMScheduler(), torch.tensor([0, 999])
    x_0, noise = noisy(dtype=torch.float16), torch.randn(2, 1, 4, 4).half()
    expected = scheduler.add_noise(x_0.double(), noise.double(), t).half()
    torch.testing.assert_close(scheduler.add_noise(x_0, noise, t), expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("schedule", ["linear_beta", "cosine"])
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_target_leads_back_to_the_original(prediction_type, schedule):
    scheduler = DDIMScheduler(prediction_type=prediction_type, schedule=schedule)
    x_0, noise, t = noisy((4, 1, 4, 4)).double().clamp(-1, 1), torch.randn(4, 1, 4, 4).double(), [0, 10, 500, 900]
    t = torch.tensor(t)
    x_t = scheduler.add_noise(x_0, noise, t)
    target = scheduler.get_target(x_0, noise, t)
    torch.testing.assert_close(scheduler.predict_original(target, t, x_t), x_0)


def test_predicted_original_is_not_clipped_but_the_step_is():
    scheduler = DDIMScheduler(prediction_type="sample")
    output = torch.full((1, 1, 2, 2), 3.0, requires_grad=True)
    scheduler.predict_original(output, 500, noisy((1, 1, 2, 2))).sum().backward()
    assert (output.grad == 1).all()
    assert scheduler.step(output.detach(), 500, noisy((1, 1, 2, 2)))[1].max() == 1


@pytest.mark.parametrize("signal_scale", [0.9, 0.5, 0.1])
@pytest.mark.parametrize("schedule", ["linear_beta", "cosine"])
def test_signal_scale_is_scaling_and_renormalising(schedule, signal_scale):
    plain, scaled = DDIMScheduler(schedule=schedule), DDIMScheduler(schedule=schedule, signal_scale=signal_scale)
    t = torch.tensor([0, 1, 100, 500, 900, 999])
    x_0, noise = noisy((6, 1, 4, 4)).double(), torch.randn(6, 1, 4, 4).double()
    alpha_bar = plain.alphas_cumprod[t].double().reshape(-1, 1, 1, 1)
    std = (signal_scale**2 * alpha_bar + 1 - alpha_bar).sqrt()
    expected = plain.add_noise(signal_scale * x_0, noise, t) / std
    torch.testing.assert_close(scaled.add_noise(x_0, noise, t), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scaled.alphas.double().cumprod(0), scaled.alphas_cumprod.double(), rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(scaled.betas, 1 - scaled.alphas, rtol=0, atol=1e-7)
    assert (scaled.alphas_cumprod < plain.alphas_cumprod).all()


# Construction and errors


def test_what_is_not_given_is_as_documented(scheduler_class):
    scheduler = scheduler_class()
    assert (scheduler.num_train_timesteps, scheduler.prediction_type) == (1000, "epsilon")
    assert (scheduler.clip_sample, scheduler.signal_scale, scheduler.follows_network) == (True, 1.0, True)
    assert torch.equal(scheduler.betas, StockScheduler(1000, "linear_beta").betas)
    assert getattr(scheduler, "eta", 0.0) == 0.0 and getattr(scheduler, "solver_order", 2) == 2
    assert scheduler.stochastic is (scheduler_class is DDPMScheduler)


@pytest.mark.parametrize(
    "build",
    [
        lambda: DDPMScheduler(num_train_timesteps=1),
        lambda: DDPMScheduler(signal_scale=1.0),
        lambda: DDIMScheduler(eta=0.0),
        lambda: DDIMScheduler(eta=1.0),
        lambda: DPMSolverMultistepScheduler(solver_order=1),
        lambda: DDIMScheduler().set_timesteps(1000),
        lambda: DDIMScheduler().set_timesteps(1, start=0),
        lambda: DDIMScheduler().set_timesteps(1000, start=999),
        lambda: DDIMScheduler().add_noise(noisy(), noisy(), 0),
        lambda: DDIMScheduler().add_noise(noisy(), noisy(), torch.tensor([0, 999])),
    ],
)
def test_the_ends_of_every_range_are_taken(build):
    build()


@pytest.mark.parametrize(
    ("name", "extra"),
    [("DDPMScheduler", {}), ("DDIMScheduler", {"eta": 0.5}), ("DPMSolverMultistepScheduler", {"solver_order": 1})],
)
def test_json(name, extra):
    config = {
        "_target_": f"medsegdiff_bundle.schedulers.{name}",
        "num_train_timesteps": 100,
        "schedule": "cosine",
        "s": 0.01,
        "prediction_type": "v_prediction",
        "clip_sample": False,
        "signal_scale": 0.5,
        **extra,
    }
    scheduler = ConfigParser({"scheduler": config}).get_parsed_content("scheduler")
    assert type(scheduler).__name__ == name
    for key in ("num_train_timesteps", "prediction_type", "clip_sample", "signal_scale", *extra):
        assert getattr(scheduler, key) == config[key]


@pytest.mark.parametrize(
    ("build", "value"),
    [
        (lambda: DDPMScheduler(num_train_timesteps=0), "0"),
        (lambda: DDPMScheduler(prediction_type="score"), "'score'"),
        (lambda: DDPMScheduler(signal_scale=0.0), "0.0"),
        (lambda: DDPMScheduler(signal_scale=1.5), "1.5"),
        (lambda: DDPMScheduler(schedule="quadratic"), "quadratic"),
        (lambda: DDIMScheduler(eta=-0.1), "-0.1"),
        (lambda: DDIMScheduler(eta=1.1), "1.1"),
        (lambda: DPMSolverMultistepScheduler(solver_order=3), "3"),
        (lambda: DDIMScheduler().set_timesteps(0), "0"),
        (lambda: DDIMScheduler().set_timesteps(1001), "1001"),
        (lambda: DDIMScheduler().set_timesteps(2.5), "2.5"),
        (lambda: DDIMScheduler().add_noise(noisy(), noisy(), 1000), "1000"),
        (lambda: DDIMScheduler().add_noise(noisy(), noisy(), -1), "-1"),
        (lambda: DDIMScheduler().add_noise(noisy(), noisy(), torch.tensor([1, 2, 3])), "(3,)"),
        (lambda: DDIMScheduler().add_noise(noisy(), noisy(), torch.tensor(0.5)), "torch.float32"),
        (lambda: DDIMScheduler().step(noisy(), 1000, noisy()), "1000"),
        (lambda: DDIMScheduler().step(noisy((2, 2, 4, 4)), 9, noisy()), "model_output must have the sample's"),
        (lambda: DDIMScheduler().step(noisy(), 9, noisy(), noise=noisy((1, 1, 4, 4))), "noise must have the sample's"),
        (lambda: DDIMScheduler().step(noisy(), 9, noisy(), noise=noisy((1, 1, 4, 4))), "got (1, 1, 4, 4)"),
    ],
)
def test_errors_name_the_value(build, value):
    with pytest.raises(ValueError) as error:
        build()
    assert value in str(error.value)


def test_a_timestep_that_is_not_in_the_list(scheduler_class):
    scheduler = scheduler_class()
    scheduler.set_timesteps(10)
    with pytest.raises(ValueError, match="998"):
        scheduler.step(noisy(), 998, noisy())
    scheduler.step(noisy(), 999, noisy())


def test_a_schedule_of_another_length():
    NoiseSchedules.add("test_short", "always ten values", lambda num_train_timesteps: torch.full((10,), 0.1))
    try:
        with pytest.raises(ValueError, match="test_short.*1000.*10"):
            DDIMScheduler(schedule="test_short")
    finally:
        del NoiseSchedules.components["test_short"]
