"""The pretended GPU has the rules of a real one."""

import pytest
import torch

from tests.support.pretend import GPU, pretended_gpu, waits


@pytest.fixture(autouse=True)
def gpu():
    with pretended_gpu():
        yield


def test_tensors_are_moved_to_the_gpu_and_made_there():
    moved = torch.ones(2, 3).to(GPU)
    made = [
        moved,
        moved + 1,
        moved.new_zeros(2),
        torch.zeros_like(moved),
        torch.arange(3, device=moved.device),
        torch.tensor([1, 2], device="cuda:0"),
        moved[0],
        torch.cat([moved, moved]),
    ]
    assert {tensor.device for tensor in made} == {GPU}
    assert moved.cpu().device == torch.device("cpu")
    assert moved.tolist() == [[1, 1, 1], [1, 1, 1]]


X = torch.arange(6.0).view(2, 3)
INDEX = torch.tensor([[0], [1]])


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x + X,
        lambda x: torch.cat([x, X]),
        lambda x: torch.stack([x.sum(), torch.tensor(1.0)]),
        lambda x: x.gather(1, INDEX),
        lambda x: x.masked_fill(X > 1, 0),
        lambda x: torch.where(X > 1, x, 0.0),
        lambda x: torch.nn.functional.linear(x, X),
        lambda x: torch.nn.functional.embedding(INDEX, x),
        lambda x: X[x[0].long()],
        lambda x: torch.tensor(1.0).add_(x.sum()),
        lambda x: x.index_put((x > 1,), torch.ones(4)),
    ],
)
def test_what_mixes_devices_is_refused(mix):
    x = X.to(GPU)
    with pytest.raises(RuntimeError, match="all tensors to be on the same device"):
        mix(x)


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x * torch.tensor(2.0),
        lambda x: x.masked_fill(x > 1, torch.tensor(0.0)),
        lambda x: x[torch.tensor([1])],
        lambda x: x.index_put((torch.tensor([0]),), torch.tensor(1.0)),
        lambda x: x.clone().copy_(X),
    ],
)
def test_numbers_and_indices_may_be_on_the_cpu(mix):
    assert mix(X.to(GPU)).device == GPU


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_casts_as_on_a_gpu_and_gradients_flow(dtype):
    layer = torch.nn.Linear(3, 4).to(GPU)
    with torch.autocast("cuda", dtype):
        product = layer(X.to(GPU))
        probabilities = product.softmax(-1)
    assert product.dtype == dtype
    assert probabilities.dtype == torch.float32  # CUDA's list, not the CPU's
    probabilities.square().sum().backward()
    assert layer.weight.grad.device == GPU
    assert layer.weight.grad.dtype == torch.float32
    assert layer.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("wait", "what"),
    [
        (lambda x: x.sum().item(), "_local_scalar_dense"),
        (lambda x: bool((x > 1).any()), "_local_scalar_dense"),
        (lambda x: x.tolist(), "tolist"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: x[x > 1], "mask as index"),
        (lambda x: x.masked_select(x > 1), "masked_select"),
        (lambda x: x[torch.tensor([0])], "index on the CPU"),
        (lambda x: x.new_tensor([1, 2]), "copied to the GPU"),
        (lambda x: torch.tensor([1], device=x.device), "copied to the GPU"),
        (lambda x: x.cpu(), "copied to the CPU"),
    ],
)
def test_each_time_that_the_cpu_waits_for_the_gpu_is_counted(wait, what):
    x = X.to(GPU)
    with waits() as found:
        wait(x)
    assert found == {f"elsewhere: {what}": 1}


@pytest.mark.parametrize(
    "work",
    [
        lambda x: X.to(GPU, non_blocking=True),
        lambda x: x.masked_fill(x > 1, 0),
        lambda x: x.masked_scatter(x > 1, x),
        lambda x: x.topk(2),
        lambda x: x.__setitem__(x > 1, 0),  # one number is written without counting the places
        lambda x: torch.full((), 1.5, device=x.device),
    ],
)
def test_what_a_gpu_does_meanwhile_is_not_counted(work):
    x = X.to(GPU)
    with waits() as found:
        work(x)
    assert not found
