"""Optimizers and schedules follow PyTorch's, states included."""

import copy
import inspect
import warnings

import lohe
import pytest
import torch

OPTIMIZERS = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "maximize": True}),
    ("SGD", {"momentum": 0.5, "dampening": 0.3}),
    ("Adam", {}),
    ("Adam", {"amsgrad": True, "weight_decay": 0.1}),
    ("AdamW", {"maximize": True}),
    ("Adagrad", {"lr_decay": 0.1, "weight_decay": 0.1}),
    ("RMSprop", {"centered": True, "momentum": 0.9}),
    ("RMSprop", {"weight_decay": 0.1}),
    ("Adadelta", {"weight_decay": 0.1}),
    ("Adamax", {"weight_decay": 0.1}),
    ("NAdam", {"weight_decay": 0.1}),
    ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("RAdam", {"weight_decay": 0.1}),
]


def _groups(optimizer):
    return [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS)
def test_twelve_steps_with_a_reload_give_the_same_parameters_and_state(name, options):
    shapes = [(3, 4), (5,)]
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(s, dtype=torch.float64, generator=generator) for s in shapes]
    theirs = [torch.nn.Parameter(p.clone()) for p in start]
    ours = [lohe.nn.Parameter(lohe.tensor(p.tolist(), dtype=lohe.float64)) for p in start]
    their_optimizer = getattr(torch.optim, name)(theirs, lr=0.05, **options)
    our_optimizer = getattr(lohe.optim, name)(ours, lr=0.05, **options)
    for i in range(12):
        for a, b in zip(theirs, ours):
            a.grad = torch.randn(a.shape, dtype=torch.float64, generator=generator)
            b.grad = lohe.tensor(a.grad.tolist(), dtype=lohe.float64)
        their_optimizer.step()
        our_optimizer.step()
        if i == 5:
            state = copy.deepcopy(our_optimizer.state_dict())
            our_optimizer = getattr(lohe.optim, name)(ours, lr=1.0)
            our_optimizer.load_state_dict(state)
            their_optimizer.load_state_dict(copy.deepcopy(their_optimizer.state_dict()))
    for a, b in zip(theirs, ours):
        torch.testing.assert_close(
            torch.tensor(b.tolist(), dtype=torch.float64), a.detach(), rtol=1e-9, atol=1e-10
        )
    assert _groups(our_optimizer) == _groups(their_optimizer)
    their_state, our_state = their_optimizer.state_dict()["state"], our_optimizer.state_dict()["state"]
    assert [list(s) for s in our_state.values()] == [list(s) for s in their_state.values()]
    for theirs_one, ours_one in zip(their_state.values(), our_state.values()):
        for key, value in theirs_one.items():
            assert tuple(ours_one[key].shape) == tuple(value.shape)
            assert str(ours_one[key].dtype).split(".")[1] == str(value.dtype).split(".")[1]
    assert repr(our_optimizer) == repr(their_optimizer)


@pytest.mark.parametrize("name", sorted({name for name, _ in OPTIMIZERS}))
def test_constructors_take_the_same_arguments(name):
    def parameters(module):
        signature = inspect.signature(getattr(module, name).__init__)
        return [(p.name, p.default, p.kind) for p in signature.parameters.values()]

    assert parameters(lohe.optim) == parameters(torch.optim)


SCHEDULES = {
    "StepLR": lambda s, o: s.StepLR(o, 3),
    "LambdaLR": lambda s, o: s.LambdaLR(o, lambda e: 0.9**e),
    "MultiplicativeLR": lambda s, o: s.MultiplicativeLR(o, lambda e: 0.9),
    "MultiStepLR": lambda s, o: s.MultiStepLR(o, [2, 2, 7]),
    "ConstantLR": lambda s, o: s.ConstantLR(o),
    "LinearLR": lambda s, o: s.LinearLR(o, total_iters=7),
    "ExponentialLR": lambda s, o: s.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda s, o: s.PolynomialLR(o, 8, 2.0),
    "CosineAnnealingLR": lambda s, o: s.CosineAnnealingLR(o, 4, 0.001),
    "CosineAnnealingWarmRestarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 3, 2),
    "SequentialLR": lambda s, o: s.SequentialLR(
        o, [s.ConstantLR(o, total_iters=2), s.CosineAnnealingLR(o, 8), s.ExponentialLR(o, 0.9)], [3, 7]
    ),
    "ChainedScheduler": lambda s, o: s.ChainedScheduler([s.ConstantLR(o), s.ExponentialLR(o, 0.9)]),
    "OneCycleLR": lambda s, o: s.OneCycleLR(o, 0.3, 24),
    "OneCycleLR three phases": lambda s, o: s.OneCycleLR(
        o, 0.3, 24, three_phase=True, anneal_strategy="linear"
    ),
    "CyclicLR": lambda s, o: s.CyclicLR(o, 0.01, 0.1, 4, 6),
    "CyclicLR triangular2": lambda s, o: s.CyclicLR(o, 0.01, 0.1, 4, mode="triangular2"),
    "CyclicLR exp_range": lambda s, o: s.CyclicLR(o, 0.01, 0.1, 4, mode="exp_range", gamma=0.9),
    "ReduceLROnPlateau": lambda s, o: s.ReduceLROnPlateau(o, patience=1, cooldown=2),
}


@pytest.mark.parametrize("optimizer_name", ["SGD", "Adam"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_twenty_steps_of_a_schedule_give_the_same_groups_and_state(name, optimizer_name):
    options = {"momentum": 0.9} if optimizer_name == "SGD" else {}
    pairs = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for library in (torch, lohe):
            parameter = library.nn.Parameter(library.ones(2))
            optimizer = getattr(library.optim, optimizer_name)([parameter], lr=0.1, **options)
            pairs.append((optimizer, SCHEDULES[name](library.optim.lr_scheduler, optimizer)))
        for i in range(20):
            for optimizer, schedule in pairs:
                optimizer.step()
                schedule.step(*([[5, 4, 4, 4, 4, 3, 3, 3][i % 8]] if name == "ReduceLROnPlateau" else []))
            assert _groups(pairs[0][0]) == _groups(pairs[1][0])
            assert pairs[0][1].state_dict() == pairs[1][1].state_dict()


def _raised(call):
    try:
        call()
    except Exception as error:
        return type(error)
    return None


@pytest.mark.parametrize(
    "call",
    [
        lambda t: t.optim.SGD([], lr=0.1),
        lambda t: t.optim.SGD(t.ones(2), lr=0.1),
        lambda t: t.optim.SGD([1], lr=0.1),
        lambda t: t.optim.SGD([t.ones(2)], lr=-1),
        lambda t: t.optim.SGD([t.ones(2)], lr=0.1, nesterov=True),
        lambda t: t.optim.SGD([{"params": {t.ones(2)}}], lr=0.1),
        lambda t: t.optim.SGD([t.ones(2, requires_grad=True) * 2], lr=0.1),
        lambda t: t.optim.Adam([t.ones(2)], betas=(1.0, 0.9)),
        lambda t: t.optim.Adam([t.ones(2)], fused=True, foreach=True),
        lambda t: t.optim.SGD([t.ones(2)]).add_param_group([]),
        lambda t: t.optim.SGD([t.ones(2)]).load_state_dict({"state": {}, "param_groups": []}),
        lambda t: t.optim.lr_scheduler.StepLR(None, 3),
        lambda t: t.optim.lr_scheduler.StepLR(t.optim.SGD([t.ones(2)]), 3, last_epoch=2),
        lambda t: t.optim.lr_scheduler.ReduceLROnPlateau(t.optim.SGD([t.ones(2)]), factor=1.0),
        lambda t: t.optim.lr_scheduler.OneCycleLR(t.optim.SGD([t.ones(2)]), 0.1),
    ],
)
def test_misuse_raises_the_same_type(call):
    expected = _raised(lambda: call(torch))
    assert expected is not None
    assert _raised(lambda: call(lohe)) is expected
