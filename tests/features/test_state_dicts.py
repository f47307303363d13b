"""Tensors by name into a network: everything that does not fit has its message."""

# ruff: noqa: E501 - the cases are a table: a line each reads better than three

import re
from collections.abc import Callable

import pytest
import torch
from torch import nn

from curation.errors import BadWeights, FoleyproofError
from features.encoders.state_dicts import is_finite, load_strictly


class Small(nn.Module):
    """Two layers and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.second = nn.Linear(4, 2)
        self.register_buffer("steps", torch.zeros(2, dtype=torch.int64))
        self.register_buffer("filter", torch.arange(5.0, device="cpu"))


State = dict[str, torch.Tensor]


def _state() -> State:
    torch.manual_seed(0)
    state = {name: tensor.clone() for name, tensor in Small().state_dict().items()}
    state["filter"] += 1
    return state


def _meta() -> Small:
    with torch.device("meta"):
        return Small()


def _without(*names: str) -> Callable[[State], State]:
    return lambda state: {name: tensor for name, tensor in state.items() if name not in names}


def _with(**others: object) -> Callable[[State], State]:
    return lambda state: {**state, **others}  # type: ignore[dict-item]


def _spoilt(name: str, value: float) -> Callable[[State], State]:
    def spoil(state: State) -> State:
        state[name].view(-1)[-1] = value
        return state

    return spoil


BAD = {
    "a missing tensor": (_without("second.weight"), "1 tensor missing: second.weight. It holds 5 tensors, expected the 6"),
    "an unknown tensor": (_with(third=torch.zeros(1)), "1 tensor unknown: third. It holds 7 tensors"),
    "a misshaped tensor": (_with(**{"first.bias": torch.zeros(2, 2)}), r"1 tensor misshaped: first.bias \(2x2 for 4\)"),
    "a scalar for a vector": (_with(**{"first.bias": torch.zeros(())}), r"first.bias \(scalar for 4\)"),
    "NaN": (_spoilt("first.weight", float("nan")), "1 tensor not finite: first.weight"),
    "infinity": (_spoilt("second.bias", -float("inf")), "1 tensor not finite: second.bias"),
    "whole numbers for a weight": (_with(**{"first.bias": torch.zeros(4, dtype=torch.int32)}), r"1 tensor of another type: first.bias \(int32\)"),
    "double precision": (_with(**{"first.bias": torch.zeros(4, dtype=torch.float64)}), r"of another type: first.bias \(float64\)"),
    "floats for whole numbers": (_with(steps=torch.zeros(2)), r"of another type: steps \(float32\)"),
    "a sparse tensor": (_with(**{"first.bias": torch.zeros(4).to_sparse()}), "of another type: first.bias"),
    "no tensor": (_with(**{"first.bias": "text"}), r"1 tensor no tensor: first.bias \(str\)"),
    "nothing at all": (lambda state: {}, "5 tensors missing: steps, first.weight, first.bias, and 2 more"),
    "two kinds of fault": (lambda state: _with(x=torch.zeros(1))(_without("steps")(state)), "1 tensor missing: steps; 1 tensor unknown: x"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused_with_its_names(case: str) -> None:
    change, message = BAD[case]
    with pytest.raises(BadWeights, match=message) as caught:
        load_strictly(_meta(), change(_state()), what="small.pth", constant=("filter",))
    assert str(caught.value).startswith("small.pth: ")
    assert "`features weights` lists them" in str(caught.value)
    assert isinstance(caught.value, FoleyproofError)
    assert caught.value.exit_code == 1


def test_a_whole_state_dict_is_taken_over_without_a_copy() -> None:
    state = _state()
    module = load_strictly(_meta(), state, what="small.pth")
    assert module.first.weight.data_ptr() == state["first.weight"].data_ptr()
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert torch.equal(module.filter, state["filter"])
    x = torch.ones(2, 3)
    expected = x @ state["first.weight"].T + state["first.bias"]
    torch.testing.assert_close(module.first(x), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32_without_loss(dtype: torch.dtype) -> None:
    state = {name: t.to(dtype) if t.is_floating_point() else t for name, t in _state().items()}
    module = load_strictly(_meta(), state, what="small.pth")
    assert module.first.weight.dtype == torch.float32
    assert torch.equal(module.first.weight, state["first.weight"].float())


def test_a_constant_may_be_absent_and_the_network_keeps_its_own() -> None:
    module = load_strictly(_meta(), _without("filter")(_state()), what="small.pth", constant=("filter",))
    assert torch.equal(module.filter, torch.arange(5.0))


def test_a_constant_that_the_network_lacks_is_passed_over() -> None:
    state = _with(**{"deep.inside.window": torch.zeros(9)})(_state())
    load_strictly(_meta(), state, what="small.pth", constant=("window",))
    with pytest.raises(BadWeights, match=re.escape("1 tensor unknown: deep.inside.window")):
        load_strictly(_meta(), state, what="small.pth", constant=("inside",))


def test_a_constant_left_on_the_meta_device_is_our_own_fault() -> None:
    class Wrong(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("filter", torch.zeros(3))

    with torch.device("meta"):
        module = Wrong()
    with pytest.raises(AssertionError, match="were made on the meta device"):
        load_strictly(module, {}, what="small.pth", constant=("filter",))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 499, 999])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_one_value_that_is_not_finite_is_found_wherever_it_is(
    value: float, place: int, dtype: torch.dtype
) -> None:
    tensor = torch.full((1000,), 3.0, dtype=dtype)
    assert is_finite(tensor)
    tensor[place] = value
    assert not is_finite(tensor)
    assert not is_finite(tensor.view(10, 100).T)


def test_what_has_no_values_is_finite() -> None:
    assert is_finite(torch.zeros(0))
    assert is_finite(torch.zeros(3, device="meta"))
    assert is_finite(torch.full((4,), torch.finfo(torch.float32).max))
