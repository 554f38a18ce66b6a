import copy

import pytest
import torch
from monai.networks.schedulers import NoiseSchedules

from medsegdiff_bundle.schedulers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

CLASSES = [DDPMScheduler, DDIMScheduler, DPMSolverMultistepScheduler]
PREDICTION_TYPES = ["epsilon", "sample", "v_prediction"]
TABLES = ["betas", "alphas", "alphas_cumprod", "timesteps"]


def _zero_terminal_snr(num_train_timesteps):
    alpha_bar = torch.linspace(1, 0, num_train_timesteps) ** 2  # also starts on clean data, so beta_0 = 0
    alphas = torch.cat([torch.ones(1), alpha_bar[1:] / alpha_bar[:-1]])
    return 1 - alphas, alphas, alpha_bar


def _vanishing(num_train_timesteps):
    return torch.full((num_train_timesteps,), 0.5)  # alpha_bar underflows to 0 long before T = 1000


@pytest.fixture(scope="module", autouse=True)
def own_schedules():
    NoiseSchedules.add("test_zero_snr", "ends with alpha_bar = 0", _zero_terminal_snr)
    NoiseSchedules.add("test_vanishing", "many alpha_bar = 0", _vanishing)
    yield
    for name in ("test_zero_snr", "test_vanishing"):
        del NoiseSchedules.components[name]


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


@pytest.mark.parametrize("clip_sample", [True, False])
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("signal_scale", [1.0, 0.1])
def test_every_schedule_is_finite(scheduler_class, prediction_type, clip_sample, signal_scale):
    for schedule in NoiseSchedules.components:
        scheduler = scheduler_class(
            schedule=schedule, prediction_type=prediction_type, clip_sample=clip_sample, signal_scale=signal_scale
        )
        assert all(getattr(scheduler, name).isfinite().all() for name in TABLES)
        for steps in (1, 2, 7, 50):
            for dtype in (torch.float32, torch.float16):
                scheduler.set_timesteps(steps)
                x, x_0 = sample(scheduler, noisy(dtype=dtype))
                assert x.isfinite().all() and x_0.isfinite().all(), (schedule, steps, dtype)
                torch.testing.assert_close(x, x_0)  # the last step ends on clean data
                assert not clip_sample or x.abs().max() <= 1


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_a_schedule_from_clean_data_to_pure_noise_is_finite_in_every_step(scheduler_class, prediction_type):
    """alpha_bar is 1 at the timestep 0, so 1 - alpha_bar, by which a step divides, is 0."""
    scheduler = scheduler_class(8, schedule="test_zero_snr", prediction_type=prediction_type)
    assert scheduler.alphas_cumprod[0] == 1 and scheduler.timesteps[-1] == 0
    x, x_0 = sample(scheduler, noisy())
    assert x.isfinite().all() and torch.equal(x, x_0)


@pytest.mark.parametrize("prediction_type", ["sample", "v_prediction"])
def test_pure_noise_is_exact(scheduler_class, prediction_type):
    """At alpha_bar = 0 the network's x_0 is taken as it is; v is then -x_0."""
    scheduler = scheduler_class(schedule="test_zero_snr", prediction_type=prediction_type)
    x_0 = noisy().clamp(-1, 1)
    output = x_0 if prediction_type == "sample" else -x_0
    torch.testing.assert_close(scheduler.step(output, 999, torch.randn(2, 1, 4, 4))[1], x_0)


@pytest.mark.parametrize("clip_sample", [True, False])
def test_relatives_agree(clip_sample):
    """DDIM is DDPM at eta 1, and the first-order solver at eta 0, with clipping too."""
    arguments = {"schedule": "cosine", "prediction_type": "v_prediction", "clip_sample": clip_sample}
    ddpm, one = DDPMScheduler(**arguments), DDIMScheduler(eta=1.0, **arguments)
    zero, first = DDIMScheduler(**arguments), DPMSolverMultistepScheduler(solver_order=1, **arguments)
    for a, b in ((ddpm, one), (zero, first)):
        a.set_timesteps(9)
        b.set_timesteps(9)
        torch.testing.assert_close(sample(a, noisy())[0], sample(b, noisy())[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("scheduler", "stochastic"),
    [(DDPMScheduler(), True), (DDIMScheduler(), False), (DDIMScheduler(eta=0.1), True),
     (DPMSolverMultistepScheduler(), False)],
)  # fmt: skip
def test_stochastic_says_whether_noise_matters(scheduler, stochastic):
    scheduler.set_timesteps(5)
    same, other = sample(scheduler, noisy(), seed=0)[0], sample(scheduler, noisy(), seed=1)[0]
    assert scheduler.stochastic is stochastic
    assert torch.equal(same, sample(scheduler, noisy(), seed=0)[0])
    assert torch.equal(same, other) is not stochastic


def test_given_noise_replaces_drawing():
    scheduler, x = DDPMScheduler(), noisy()
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    state = torch.get_rng_state()
    given = scheduler.step(x, 500, x, noise=noise)[0]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(given, scheduler.step(x, 500, x, noise=noise)[0])
    assert torch.equal(given, scheduler.step(x, 500, x, generator=torch.Generator().manual_seed(3))[0])
    # A member does not depend on its batch.
    torch.testing.assert_close(scheduler.step(x[1:], 500, x[1:], noise=noise[1:])[0], given[1:])


def test_timestep_may_be_a_number_or_a_tensor(scheduler_class):
    x, noise = noisy(), noisy()
    expected = scheduler_class().step(x, 500, x, noise=noise)[0]
    for t in (torch.tensor(500), torch.tensor([500], dtype=torch.int32)):
        assert torch.equal(scheduler_class().step(x, t, x, noise=noise)[0], expected)


# The memory of the multistep solver


def solver_step(scheduler, index, x, model=torch.tanh):
    return scheduler.step(model(x), scheduler.timesteps[index], x)[0]


def test_solver_uses_only_the_step_just_before():
    def fresh():
        scheduler = DPMSolverMultistepScheduler(prediction_type="sample")
        scheduler.set_timesteps(6)
        return scheduler

    x, y = noisy(), torch.randn(2, 1, 4, 4)
    first_order = solver_step(fresh(), 2, x)

    scheduler = fresh()
    solver_step(scheduler, 1, y)
    assert not torch.equal(solver_step(scheduler, 2, x), first_order)

    scheduler = fresh()
    solver_step(scheduler, 0, y)  # not just before
    assert torch.equal(solver_step(scheduler, 2, x), first_order)

    scheduler = fresh()
    solver_step(scheduler, 1, y[:1])  # another shape
    assert torch.equal(solver_step(scheduler, 2, x), first_order)

    scheduler = fresh()
    solver_step(scheduler, 1, y)
    scheduler.set_timesteps(6)
    assert torch.equal(solver_step(scheduler, 2, x), first_order)


def test_solver_repeats_itself():
    scheduler = DPMSolverMultistepScheduler()
    scheduler.set_timesteps(6)
    assert torch.equal(sample(scheduler, noisy())[0], sample(scheduler, noisy())[0])
    weight = torch.ones(1, requires_grad=True)
    sample(scheduler, noisy(), model=lambda x: weight * torch.tanh(x))
    copy.deepcopy(scheduler)  # a finished run leaves no graph behind
