import copy

import pytest
import torch

from medsegdiff_bundle.networks import SpectralCrossAttention, SpectrumSpaceTransformer
from medsegdiff_bundle.networks.hartley_transform import token_grid

every_grid = pytest.mark.parametrize("grid", [[3, 5], [4, 6], [5, 4], [1, 1], [3, 2, 5], [2, 3, 4]])


def spectral(grid):
    return token_grid(grid, torch.device("cpu"))


def attention(dims, **kwargs):
    torch.manual_seed(0)
    module = SpectralCrossAttention(
        dims, **{"embed_dim": 6, "num_heads": 2, "time_dim": 8, "num_filter_blocks": 2} | kwargs
    )
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return module


def tokens(grid, batch=2):
    torch.manual_seed(1)
    query, context = torch.randn(2, batch, torch.Size(grid).numel(), 6)
    return query, context, torch.randn(batch, 8)


def dft(grid, inverse=False):
    """Matrix of the orthonormal discrete Fourier transform over a flattened grid, from its definition."""
    places = torch.cartesian_prod(*[torch.arange(n) for n in grid]).reshape(-1, len(grid)).double()
    turns = (places / torch.tensor(grid)) @ places.T
    phase = (1 if inverse else -1) * 2 * torch.pi * turns
    return torch.polar(torch.ones_like(phase), phase) / len(places) ** 0.5


@every_grid
def test_all_pass_filter_is_no_filter(grid, monkeypatch):
    filtered, plain = attention(len(grid)), attention(len(grid), num_filter_blocks=0)
    plain.load_state_dict({k: v for k, v in filtered.state_dict().items() if "band_pass_filter" not in k})
    count = torch.Size(grid).numel()
    monkeypatch.setattr(filtered.band_pass_filter, "forward", lambda time, grid: torch.ones(1, 2, count, count))
    query, context, time = tokens(grid)
    out = [m(query, *m.project(context, spectral(grid)), time, spectral(grid)) for m in (filtered, plain)]
    torch.testing.assert_close(out[0], out[1], rtol=1e-4, atol=1e-5)


@every_grid
def test_without_a_filter_it_is_plain_attention(grid):
    module = attention(len(grid), num_filter_blocks=0)
    query, context, time = tokens(grid)
    key, value = module.project(context, spectral(grid))
    q = module.split_heads(query)
    attended = torch.einsum("nhqc,nhkc->nhqk", q, key) / (key.shape[2] * 3) ** 0.5 @ value
    attended = attended.transpose(1, 2).flatten(2)
    torch.testing.assert_close(module.attend(q, key, value, time, spectral(grid)), attended)
    torch.testing.assert_close(key.transpose(1, 2).flatten(2), module.to_key(module.norm_context(context)))
    torch.testing.assert_close(value.transpose(1, 2).flatten(2), module.to_value(module.norm_context(context)))


@every_grid
def test_attention_against_a_dense_fourier_transform(grid):
    """M = (F(context) W_k) (F(query) W_q)^T, M' = NBP(M, t), F^-1(M') over both spectra, all dense and in float64."""
    module = attention(len(grid))
    query, context, time = tokens(grid)
    out = []
    module.norm_out.register_forward_hook(lambda module, inputs, output: out.append(inputs[0]))
    module(query, *module.project(context, spectral(grid)), time, spectral(grid))
    (attended,) = out
    assert attended.dtype == torch.float32

    def heads(x):
        return x.unflatten(2, (2, 3)).transpose(1, 2)

    def spectrum(x, weight):  # (F(x) W), W after F as in the equation
        transformed = torch.einsum("ft,ntc->nfc", dft(grid), x.detach().to(torch.complex128))
        return heads(transformed @ weight.detach().T.to(torch.complex128))

    queries = spectrum(module.norm_query(query), module.to_query.weight)
    keys = spectrum(module.norm_context(context), module.to_key.weight)
    filtered = (queries @ keys.transpose(-1, -2)) * module.band_pass_filter(time, spectral(grid))
    affinity = dft(grid, True) @ filtered @ dft(grid, True).T
    assert affinity.imag.abs().max() < 1e-9  # the mask is even, so a real affinity stays real
    value = heads(module.to_value(module.norm_context(context))).double()
    expected = ((value.shape[2] * 3) ** -0.5 * affinity.real @ value).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attended.double(), expected, rtol=1e-4, atol=1e-4)
    query, key = heads(module.to_query(module.norm_query(query))), heads(module.to_key(module.norm_context(context)))
    assert (affinity.real - query @ key.transpose(-1, -2)).abs().max() > 0.01


def test_module_follows_its_equation():
    """MLP(scale_shift_t(F^-1(M') (context w_v))), without a filter."""
    module = attention(2, num_filter_blocks=0)
    query, context, time = tokens([3, 4])
    context_normed = torch.nn.functional.layer_norm(context, (6,), module.norm_context.weight, module.norm_context.bias)
    query_normed = torch.nn.functional.layer_norm(query, (6,), module.norm_query.weight, module.norm_query.bias)
    q, k, v = (
        query_normed @ module.to_query.weight.T,
        context_normed @ module.to_key.weight.T,
        module.to_value(context_normed),
    )
    heads = [q[..., c] @ k[..., c].transpose(1, 2) @ v[..., c] for c in (slice(0, 3), slice(3, 6))]
    attended = torch.nn.functional.layer_norm(torch.cat(heads, dim=-1) / (12 * 3) ** 0.5, (6,))
    scale, shift = module.scale_shift(torch.nn.functional.silu(time)).chunk(2, dim=1)
    expected = module.mlp(attended * (1 + scale[:, None]) + shift[:, None])
    actual = module(query, *module.project(context, spectral([3, 4])), time, spectral([3, 4]))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_filter_blocks", [0, 1])
def test_batch_of_one_serves_many(num_filter_blocks):
    module = attention(2, num_filter_blocks=num_filter_blocks)
    query, context, time = tokens([3, 4], batch=3)
    one = module(query, *module.project(context[:1], spectral([3, 4])), time[:1], spectral([3, 4]))
    repeated = module.project(context[:1].repeat(3, 1, 1), spectral([3, 4]))
    many = module(query, *repeated, time[:1].repeat(3, 1), spectral([3, 4]))
    torch.testing.assert_close(one, many)


def transformer(dims=2, **kwargs):
    torch.manual_seed(0)
    arguments = {"condition_channels": 5, "denoiser_channels": 4, "embed_dim": 6, "num_heads": 2, "time_dim": 8}
    return SpectrumSpaceTransformer(dims, **arguments | kwargs)


@pytest.mark.parametrize("size", [(2, 2), (5, 3), (2, 3, 4)])
@pytest.mark.parametrize("token_size", [1, 2, 3])
@pytest.mark.parametrize("num_blocks", [1, 3])
def test_transformer_keeps_the_shape(size, token_size, num_blocks):
    module = transformer(len(size), token_size=token_size, num_blocks=num_blocks)
    condition, embedding = torch.randn(2, 5, *size), torch.randn(2, 4, *size)
    c0, key, value = module.prepare(condition)
    grid = [-(-n // token_size) for n in size]
    assert c0.shape == (2, torch.Size(grid).numel(), 6)
    for spectrum in (key, value):
        assert spectrum.shape == (2, 2, torch.Size(grid).numel(), 3) and spectrum.dtype == torch.float32
    assert module(embedding, c0, key, value, torch.randn(2, 8)).shape == embedding.shape


def test_blocks_follow_the_paper():
    """Module 1: query e, key and value c. Module 2: query module 1's result, key and value e. Then the next block."""
    module = transformer(num_blocks=2)
    condition, embedding, time = torch.randn(1, 5, 3, 4), torch.randn(1, 4, 3, 4), torch.randn(1, 8)
    grid = spectral([3, 4])
    e = module.embed_denoiser(embedding).flatten(2).transpose(1, 2)
    c = module.embed_condition(condition).flatten(2).transpose(1, 2)
    for first, second in zip(module.condition_from_denoiser, module.denoiser_from_condition, strict=True):
        c = c + first(e, *first.project(c, grid), time, grid)
        c = c + second(c, *second.project(e, grid), time, grid)
    expected = embedding + module.unembed(c.transpose(1, 2).reshape(1, 6, 3, 4))
    torch.testing.assert_close(module(embedding, *module.prepare(condition), time), expected)


def test_attention_reaches_every_token():
    """Every output voxel sees every condition voxel: that is what the transformer adds to the convolutions."""
    module = transformer(num_blocks=1)
    condition = torch.randn(1, 5, 3, 4, requires_grad=True)
    update = module(torch.randn(1, 4, 3, 4), *module.prepare(condition), torch.randn(1, 8))
    (gradient,) = torch.autograd.grad(update[0, :, 0, 0].square().sum(), condition)
    assert (gradient.abs().amax(dim=1) > 0).all()


def test_scripted_module_has_the_same_gradients():
    """In every call: the first runs unoptimised, the later ones through TorchScript's own differentiation."""
    module = attention(2)
    scripted = torch.jit.script(copy.deepcopy(module))
    query, context, time = tokens([3, 4])
    for _ in range(3):
        gradients = []
        for each in (module, scripted):
            each.zero_grad()
            key, value = (spectrum.detach().requires_grad_() for spectrum in module.project(context, spectral([3, 4])))
            each(query, key, value, time, spectral([3, 4])).square().sum().backward()
            gradients.append([key.grad, value.grad, *(weight.grad for weight in each.parameters())])
        for expected, found in zip(*gradients, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"num_heads": 4}, "num_heads must divide the positive token length 6, got 4"),
        ({"num_heads": 0}, "num_heads must divide the positive token length 6, got 0"),
        ({"token_size": 0}, "token_size must be at least 1, got 0"),
    ],
)
def test_bad_arguments(kwargs, sentence):
    with pytest.raises(ValueError, match=sentence):
        transformer(**kwargs)
