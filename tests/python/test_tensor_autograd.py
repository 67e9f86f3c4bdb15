"""Gradients from Python: hooks, custom functions, modes."""

import gc
import weakref

import lohe
import pytest


class Square(lohe.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        y = x * x
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx, grad):
        x, _ = ctx.saved_tensors
        return 2 * x * grad


class SplitContext(lohe.autograd.Function):
    @staticmethod
    def forward(x, factor):
        return x * factor

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.factor = inputs[1]

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.factor, None


def leaf(*values):
    return lohe.tensor(values, requires_grad=True)


def test_custom_function():
    x = leaf(1.0, 2.0)
    y = Square.apply(x)
    assert y.grad_fn.name() == "SquareBackward" and y.grad_fn.saved_tensors[0] is x
    y.sum(0).backward()
    assert x.grad.tolist() == [2.0, 4.0]
    with pytest.raises(RuntimeError, match="second time"):
        y.sum(0).backward()


def test_custom_function_differentiates_twice():
    x = leaf(3.0)
    (first,) = lohe.autograd.grad(Square.apply(x).sum(0), x, create_graph=True)
    (second,) = lohe.autograd.grad(first.sum(0), x)
    assert second.tolist() == [2.0]


def test_setup_context_form():
    x = leaf(1.0)
    SplitContext.apply(x, 5.0).sum(0).backward()
    assert x.grad.tolist() == [5.0]


def test_saved_tensor_written_in_place_is_found():
    x = leaf(1.0)
    w = x * 1
    y = Square.apply(w)
    w.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum(0).backward()


def test_wrong_number_of_gradients():
    class Wrong(lohe.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, grad):
            return grad, grad

    with pytest.raises(RuntimeError, match="incorrect number of gradients"):
        Wrong.apply(leaf(1.0)).sum(0).backward()


def test_exception_in_backward_reaches_the_caller():
    class Raises(lohe.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, grad):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        Raises.apply(leaf(1.0)).sum(0).backward()


def test_function_and_context_are_freed():
    contexts = []

    class Kept(lohe.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            y = x * 2
            ctx.save_for_backward(x, y)
            contexts.append(weakref.ref(ctx))
            return y

        @staticmethod
        def backward(ctx, grad):
            return grad * 2

    y = Kept.apply(leaf(1.0))
    del y
    gc.collect()
    assert contexts[0]() is None


def test_tensor_hooks_see_and_replace_gradients():
    x = leaf(1.0)
    y = x * 3
    seen = []
    handle = x.register_hook(lambda g: seen.append(g.tolist()))
    y.register_hook(lambda g: g * 10)
    y.sum(0).backward()
    assert seen == [[30.0]] and x.grad.tolist() == [30.0]
    handle.remove()
    (x * 3).sum(0).backward()
    assert seen == [[30.0]]


def test_post_accumulate_hook_and_retain_grad():
    x = leaf(1.0)
    x.register_post_accumulate_grad_hook(lambda t: setattr(t, "grad", None))
    y = x * 2
    y.retain_grad()
    y.sum(0).backward()
    assert x.grad is None and y.grad.tolist() == [1.0] and y.retains_grad


def test_modes():
    x = leaf(1.0)
    with lohe.no_grad():
        assert not (x * 2).requires_grad
        with lohe.enable_grad():
            assert (x * 2).requires_grad
    with lohe.set_grad_enabled(False):
        assert not lohe.is_grad_enabled()
    assert lohe.is_grad_enabled()

    @lohe.no_grad()
    def decorated():
        return lohe.is_grad_enabled()

    @lohe.no_grad
    def bare():
        return lohe.is_grad_enabled()

    @lohe.no_grad()
    def generated():
        yield lohe.is_grad_enabled()

    assert decorated() is bare() is next(generated()) is False
    with lohe.inference_mode():
        assert lohe.is_inference_mode_enabled() and (x * 2).is_inference()


def test_grad_function():
    x, unused = leaf(2.0), leaf(1.0)
    y = (x * x).sum(0)
    assert lohe.autograd.grad(y, [x, unused], retain_graph=True, allow_unused=True)[1] is None
    assert lohe.autograd.grad(y, [x, unused], retain_graph=True, materialize_grads=True)[1].tolist() == [0.0]
    with pytest.raises(RuntimeError, match="not have been used"):
        lohe.autograd.grad(y, [x, unused])
    assert x.grad is None


def test_gradcheck_finds_a_wrong_gradient():
    class Wrong(lohe.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, grad):
            return grad * 3

    x = lohe.tensor([1.0, 2.0], dtype=lohe.float64, requires_grad=True)
    assert lohe.autograd.gradcheck(Square.apply, (x,))
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        lohe.autograd.gradcheck(Wrong.apply, (x,))


def _rows_of_several_tensors():
    """Public differentiable rows with a kernel whose parameters are two or three tensors and what may be left out."""
    rows = {}
    for row in lohe._C.op_table():
        inside = row["schema"][row["schema"].index("(") + 1 : row["schema"].rindex(") ->")].split("*")[0]
        parameters = [p.strip() for p in inside.split(",") if p.strip()]
        tensors = [p for p in parameters if p.startswith("Tensor ")]
        fits = row["kind"] in ("pointwise", "composed") and row["has_function"] and row["differentiable"] and row["module"] == ""
        if fits and len(tensors) in (2, 3) and all(p.startswith("Tensor ") or "=" in p for p in parameters):
            rows[row["base"]] = len(tensors)
    return sorted(rows.items())


@pytest.mark.parametrize("name, count", _rows_of_several_tensors())
def test_a_gradient_does_not_depend_on_whether_others_are_wanted(name, count):
    function = getattr(lohe, name)
    values = [lohe.tensor([0.3, 0.7, 0.2 + 0.1 * i]) for i in range(count)]

    def gradients(wanted):
        leaves = [v.clone().requires_grad_(i in wanted) for i, v in enumerate(values)]
        result = function(*leaves)
        result = result[0] if isinstance(result, tuple) else result
        if not result.requires_grad:
            return None
        (result * lohe.arange(1.0, 1.0 + result.numel()).reshape(result.shape)).sum().backward()
        return [None if leaf.grad is None else leaf.grad.tolist() for leaf in leaves]

    try:
        together = gradients(range(count))
    except (RuntimeError, NotImplementedError, TypeError, IndexError) as error:
        pytest.skip(f"not for three floats each: {error}")
    if together is None:
        pytest.skip("has no gradient here")
    for i in range(count):
        alone = gradients([i])
        assert alone is None or alone[i] == together[i]


def test_a_gradient_flows_into_a_number_that_is_written():
    for write in (lambda t, w: t.fill_(w), lambda t, w: t.masked_fill_(t > -1e9, w), lambda t, w: t.copy_(w)):
        x, w = lohe.ones(3, requires_grad=True), lohe.tensor(2.0, requires_grad=True)
        y = x * 1
        write(y, w)
        (y * 3).sum().backward()
        assert w.grad is not None and w.grad.item() == 9.0
        assert x.grad is not None and x.grad.tolist() == [0.0, 0.0, 0.0]


def test_detach_in_place_makes_a_leaf_and_refuses_views() -> None:
    x = lohe.ones(3, requires_grad=True)
    y = x * 2
    assert y.detach_() is y
    assert y.is_leaf and y.grad_fn is None and not y.requires_grad
    x.detach_()
    assert not x.requires_grad
    base = lohe.ones(3, requires_grad=True) * 2
    view = base[1:]
    with pytest.raises(RuntimeError, match="detach\\(\\) instead"):
        view.detach_()
    assert view.requires_grad and base.grad_fn is not None


def test_zero_grad_detaches_a_gradient_that_has_a_history() -> None:
    layer = lohe.nn.Linear(2, 1)
    (layer(lohe.ones(1, 2)) ** 2).sum().backward(create_graph=True)
    assert layer.weight.grad.grad_fn is not None
    layer.zero_grad(set_to_none=False)
    assert layer.weight.grad.grad_fn is None and layer.weight.grad.abs().sum() == 0


def test_gradgradcheck_finds_a_wrong_second_gradient():
    class Cube(lohe.autograd.Function):
        detached = True  # half of the dependence on x is left out

        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x * x

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return grad * 3 * x * (x.detach() if Cube.detached else x)

    x = lohe.tensor([1.0, 2.0], dtype=lohe.float64, requires_grad=True)
    assert lohe.autograd.gradcheck(Cube.apply, (x,))
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        lohe.autograd.gradgradcheck(Cube.apply, (x,))
    Cube.detached = False
    assert lohe.autograd.gradgradcheck(Cube.apply, (x,))


def test_one_output_of_several_after_an_operand_is_gone():
    """What a gradient reads is worked out anew for fewer cotangents, when operands that it does not keep are freed."""
    x, bias = lohe.randn(3, 4, dtype=lohe.float64), leaf(1.0, 2.0, 3.0, 4.0)
    weight = lohe.ones(4, dtype=lohe.float64)
    y, mean, rstd = lohe.native_layer_norm(x, (4,), weight, bias.double() * 2, 1e-5)
    del mean, rstd
    y.sum().backward()
    assert bias.grad.tolist() == [6.0] * 4


def test_linear_gradients_of_every_form():
    """The one call of a plain pass and the rows of a recorded one agree, for any subset and any strides."""
    lohe.manual_seed(0)
    cotangent = lohe.randn(2, 3, 5, dtype=lohe.float64)
    weights = [lohe.randn(5, 4, dtype=lohe.float64), lohe.randn(4, 5, dtype=lohe.float64).t()]
    inputs = [lohe.randn(2, 3, 4, dtype=lohe.float64), lohe.randn(3, 2, 4, dtype=lohe.float64).transpose(0, 1)]
    for x0 in inputs:
        for w0 in weights:
            for wanted in range(1, 8):
                args = [x0.detach(), w0.detach(), lohe.randn(5, dtype=lohe.float64)]
                asked = [a.requires_grad_() for i, a in enumerate(args) if wanted >> i & 1]
                y = lohe.nn.functional.linear(*args)
                plain = lohe.autograd.grad(y, asked, cotangent, retain_graph=True)
                recorded = lohe.autograd.grad(y, asked, cotangent, create_graph=True)
                for a, g, h in zip(asked, plain, recorded):
                    assert g.shape == a.shape and lohe.equal(g, h)
    vector = lohe.randn(4, dtype=lohe.float64, requires_grad=True)
    x = lohe.randn(3, 4, dtype=lohe.float64, requires_grad=True)
    y = lohe.nn.functional.linear(x, vector)
    for create in (False, True):
        gx, gv = lohe.autograd.grad(y.sum(), [x, vector], create_graph=create, retain_graph=True)
        assert lohe.equal(gx, vector.expand(3, 4)) and lohe.allclose(gv, x.sum(0))
    assert lohe.autograd.gradcheck(lohe.nn.functional.linear, (x, weights[0].detach().requires_grad_()))
    assert lohe.autograd.gradgradcheck(lohe.nn.functional.linear, (x, weights[0].detach().requires_grad_()))


def test_gradient_of_a_strided_view_of_elements_that_are_seen_twice(oracle):
    gradients = []
    for module in (lohe, oracle):
        x = module.tensor([1.0, 2.0, 3.0], requires_grad=True)
        y = x.expand(2, 3).as_strided((2, 2), (1, 1))
        (y * y).sum().backward()
        gradients.append(x.grad.tolist())
    assert gradients[0] == gradients[1]


def test_second_derivative_of_a_complex_absolute_value(oracle):
    gradients = []
    for module in (lohe, oracle):
        z = module.tensor([1 + 2j, -3 + 0.5j, 0.25 - 1j], dtype=module.complex128, requires_grad=True)
        (first,) = module.autograd.grad((z * z).abs().sum(), z, create_graph=True)
        (first.real.sin() + first.abs()).sum().backward()
        gradients.append(z.grad.tolist())
    assert gradients[0] == pytest.approx(gradients[1])


def test_gradients_that_pass_through_are_tensors_of_their_own():
    """A sum hands one gradient to both sides: leaves may not come to share it, nor with what the caller gave."""
    x, y = lohe.randn(3, requires_grad=True), lohe.randn(3, requires_grad=True)
    g = lohe.randn(3)
    (x + y).backward(g)
    assert len({x.grad.data_ptr(), y.grad.data_ptr(), g.data_ptr()}) == 3
    x.grad.zero_()
    assert lohe.equal(y.grad, g)


def test_a_gradient_that_reaches_a_leaf_twice_leaves_the_callers_alone():
    x = lohe.randn(3, requires_grad=True)
    g = lohe.ones(3)
    (x + x.clone()).backward(g)
    assert x.grad.tolist() == [2, 2, 2]
    assert g.tolist() == [1, 1, 1]


@pytest.mark.parametrize("alpha", [1, 2, -0.5])
def test_gradients_of_sums_and_differences_in_every_dtype(alpha):
    for dtype in (lohe.float32, lohe.bfloat16, lohe.complex64):
        for op in (lohe.add, lohe.sub):
            x = lohe.randn(4, 3).to(dtype).requires_grad_()
            y = lohe.randn(3).to(dtype).requires_grad_()
            op(x, y, alpha=alpha).abs().sum().backward()
            sign = alpha if op is lohe.add else -alpha
            assert lohe.allclose(y.grad, (x.grad * sign).sum(0), rtol=2e-2, atol=2e-2)


def test_hooks_may_change_a_gradient_that_passes_through():
    x, y = lohe.randn(3, requires_grad=True), lohe.randn(3, requires_grad=True)
    a, b = x * 1, y * 1
    a.register_hook(lambda g: g.mul_(2))
    (a + b).sum().backward()
    assert x.grad.tolist() == [2, 2, 2]
