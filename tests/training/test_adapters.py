"""Adapters: nothing at first, little to train, merged into the weights without a difference."""

from dataclasses import replace

import pytest
import torch
from golden_weights import close
from made_networks import made_network, shaped, weights_and_inputs
from torch._dynamo.testing import CompileCounter

from curation.errors import BadWeights
from training.model.adapters import adapter_state, add_adapters, load_adapters, merged, plain_state
from training.model.variants import VARIANTS, Switches
from training.network import Network


def adapted(seed: int = 0, rank: int = 4):  # type: ignore[no-untyped-def]
    network, _, inputs = shaped("tiny_16k")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    add_adapters(network, rank=rank, alpha=8.0, seed=seed)
    return network, before, inputs


def test_new_adapters_change_nothing_and_are_all_that_is_trained() -> None:
    network, before, inputs = adapted()
    plain, _, _ = shaped("tiny_16k")
    with torch.no_grad():
        assert torch.equal(network(*inputs), plain(*inputs))
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert trained
    assert all(name.endswith((".down", ".up")) for name in trained)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == sum(
        value.numel() for value in adapter_state(network.state_dict()).values()
    )
    state = plain_state(network.state_dict())
    assert set(state) == set(before)
    assert all(torch.equal(state[name], before[name]) for name in before)


def test_merged_weights_give_what_the_adapters_gave() -> None:
    network, before, inputs = adapted()
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        network(*inputs).square().mean().backward()
        optimizer.step()
    alone = Network(network.variant)
    alone.load_state_dict(merged(network.state_dict(), alpha=8.0))
    with torch.no_grad():
        learned = network(*inputs)
        assert close(alone(*inputs), learned, 1e-5)
        untouched, _, _ = shaped("tiny_16k")
        assert not close(untouched(*inputs), learned, 1e-3), "something was learned"
    state = plain_state(network.state_dict())
    assert all(torch.equal(state[name], before[name]) for name in before), "what is beneath stays"


@pytest.mark.filterwarnings("ignore")  # of the compiler's own
def test_blocks_with_adapters_are_compiled_once_for_all() -> None:
    variant = replace(VARIANTS["tiny_16k"], num_joint=1, num_fused=9)  # of unlike graphs eight are made
    network = made_network(variant, Switches())
    add_adapters(network, rank=2, alpha=1.0, seed=0)
    graphs = CompileCounter()
    for block in network.fused_blocks:
        block.compile(fullgraph=True, backend=graphs)
    _, (latent, clip, sync, text, t) = weights_and_inputs(variant, Switches(), 32, 2)
    network(latent, clip, sync, text, t).sum().backward()
    assert graphs.frame_count == 1


def test_adapters_go_to_another_network_of_the_same_weights() -> None:
    network, _, inputs = adapted(seed=1)
    with torch.no_grad():
        for value in adapter_state(network.state_dict()).values():
            value.normal_(std=0.1)
    other, _, _ = adapted(seed=2)
    load_adapters(other, adapter_state(network.state_dict()), what="a test")
    with torch.no_grad():
        assert torch.equal(other(*inputs), network(*inputs))
    wide, _, _ = adapted(rank=8)
    with pytest.raises(BadWeights, match=r"misshaped.* give adapters of rank 8, or --set lora_rank"):
        load_adapters(wide, adapter_state(network.state_dict()), what="a test")
    with pytest.raises(BadWeights, match="missing"):
        load_adapters(other, {}, what="a test")
