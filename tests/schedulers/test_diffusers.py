"""Agreement with `diffusers` on the same list of timesteps, with a nonlinear model.

On lists that `diffusers` can express correctly: its DDIM steps to t - T // n, which is the next entry only if n divides
T; its DDPM and DPM-Solver take lists.
"""

import importlib

import pytest
import torch

from medsegdiff_bundle.schedulers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

PREDICTION_TYPES = ["epsilon", "sample", "v_prediction"]
DIVIDING = [1, 5, 10, 50, 200]
OTHERS = [3, 7, 12, 33]


def model(x, t):
    return torch.tanh(1.5 * x + 0.3 * torch.cos(torch.tensor(t / 100.0))) - 0.2 * x.roll(1, -1)


def sample(scheduler, **arguments):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 1, 4, 4, generator=generator)
    for t in scheduler.timesteps.tolist():
        x = scheduler.step(model(x, t), t, x, generator=generator, **arguments)[0]
    return x


def assert_same(ours, theirs, **arguments):
    assert ours.timesteps.tolist() == theirs.timesteps.tolist()
    expected = sample(theirs, return_dict=False, **arguments)
    torch.testing.assert_close(sample(ours), expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def diffusers():
    """Imported by the worker that needs it, as that takes seconds."""
    return importlib.import_module("diffusers")


@pytest.fixture(params=PREDICTION_TYPES)
def prediction_type(request):
    return request.param


def pair(ours, theirs_class, **arguments):
    """Build the `diffusers` scheduler with our betas and prediction type."""
    return theirs_class(trained_betas=ours.betas.tolist(), prediction_type=ours.prediction_type, **arguments)


@pytest.mark.parametrize("clip_sample", [False, True])
@pytest.mark.parametrize("steps", DIVIDING + OTHERS)
def test_ddpm(diffusers, prediction_type, steps, clip_sample):
    ours = DDPMScheduler(prediction_type=prediction_type, clip_sample=clip_sample)
    ours.set_timesteps(steps)
    theirs = pair(ours, diffusers.DDPMScheduler, clip_sample=clip_sample)
    theirs.set_timesteps(timesteps=ours.timesteps.tolist())
    assert_same(ours, theirs)


@pytest.mark.parametrize("clip_sample", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", DIVIDING)
def test_ddim(diffusers, prediction_type, steps, eta, clip_sample):
    """With clipping, ours is their `use_clipped_model_output`: the noise belongs to the clipped x_0."""
    ours = DDIMScheduler(prediction_type=prediction_type, clip_sample=clip_sample, eta=eta)
    ours.set_timesteps(steps)
    theirs = pair(ours, diffusers.DDIMScheduler, clip_sample=clip_sample, timestep_spacing="trailing")
    theirs.set_timesteps(steps)
    assert_same(ours, theirs, eta=eta, use_clipped_model_output=clip_sample)


@pytest.mark.parametrize("solver_order", [1, 2])
@pytest.mark.parametrize("steps", DIVIDING + OTHERS)
def test_dpm_solver(diffusers, prediction_type, steps, solver_order):
    ours = DPMSolverMultistepScheduler(prediction_type=prediction_type, clip_sample=False, solver_order=solver_order)
    ours.set_timesteps(steps)
    theirs = pair(
        ours, diffusers.DPMSolverMultistepScheduler, solver_order=solver_order, final_sigmas_type="zero",
        algorithm_type="dpmsolver++", solver_type="midpoint",
    )  # fmt: skip
    theirs.set_timesteps(timesteps=ours.timesteps.tolist())
    assert_same(ours, theirs)


@pytest.mark.parametrize("schedule", ["scaled_linear_beta", "sigmoid_beta"])
def test_other_tables(diffusers, schedule, prediction_type):
    ours = DPMSolverMultistepScheduler(schedule=schedule, prediction_type=prediction_type, clip_sample=False)
    ours.set_timesteps(12)
    theirs = pair(ours, diffusers.DPMSolverMultistepScheduler, final_sigmas_type="zero")
    theirs.set_timesteps(timesteps=ours.timesteps.tolist())
    assert_same(ours, theirs)


def test_noise_and_velocity(diffusers, prediction_type):
    ours = DDIMScheduler(prediction_type=prediction_type)
    theirs = pair(ours, diffusers.DDIMScheduler)
    x_0, noise, t = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4), torch.tensor([0, 400, 999])
    torch.testing.assert_close(ours.add_noise(x_0, noise, t), theirs.add_noise(x_0, noise, t))
    torch.testing.assert_close(ours.get_velocity(x_0, noise, t), theirs.get_velocity(x_0, noise, t))
