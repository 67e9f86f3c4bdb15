"""Scaled dot-product attention and the multi-head layer's function."""

from __future__ import annotations

import math
import warnings

import lohe
from lohe import Tensor
from lohe._C import ops

scaled_dot_product_attention = ops.scaled_dot_product_attention


def _canonical_mask(
    mask: Tensor | None,
    mask_name: str,
    other_type: lohe.dtype | None,
    other_name: str,
    target_type: lohe.dtype,
    check_other: bool = True,
) -> Tensor | None:
    """A boolean mask (True hides) as a floating one that is added to the scores."""
    if mask is None:
        return None
    if mask.dtype != lohe.bool and not mask.is_floating_point():
        raise AssertionError(f"only bool and floating types of {mask_name} are supported")
    if check_other and other_type is not None and mask.dtype != other_type:
        warnings.warn(
            f"Support for mismatched {mask_name} and {other_name} is deprecated. Use same type for both instead.",
            stacklevel=3,
        )
    if mask.is_floating_point():
        return mask
    return lohe.zeros_like(mask, dtype=target_type).masked_fill_(mask, float("-inf"))


def _check_shapes(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None,
    attn_mask: Tensor | None,
    num_heads: int,
) -> bool:
    """Checks the number of dimensions; says whether the input has a batch dimension."""
    if query.dim() not in (2, 3):
        raise AssertionError(
            f"query should be unbatched 2D or batched 3D tensor but received {query.dim()}-D query tensor"
        )
    dims = query.dim()
    if key.dim() != dims or value.dim() != dims:
        raise AssertionError(
            f"For {'batched' if dims == 3 else 'unbatched'} ({dims}-D) `query`, expected `key` and `value` to be "
            f"{dims}-D but found {key.dim()}-D and {value.dim()}-D tensors respectively"
        )
    if key_padding_mask is not None and key_padding_mask.dim() != dims - 1:
        raise AssertionError(
            f"For {'batched' if dims == 3 else 'unbatched'} ({dims}-D) `query`, expected `key_padding_mask` to be "
            f"`None` or {dims - 1}-D but found {key_padding_mask.dim()}-D tensor instead"
        )
    if attn_mask is not None:
        if attn_mask.dim() not in (2, 3):
            raise AssertionError(
                f"For {'batched' if dims == 3 else 'unbatched'} ({dims}-D) `query`, expected `attn_mask` to be `None`, "
                f"2-D or 3-D but found {attn_mask.dim()}-D tensor instead"
            )
        if dims == 2 and attn_mask.dim() == 3:
            expected = (num_heads, query.shape[0], key.shape[0])
            if tuple(attn_mask.shape) != expected:
                raise AssertionError(f"Expected `attn_mask` shape to be {expected} but got {attn_mask.shape}")
    return dims == 3


def _in_projection_packed(
    q: Tensor, k: Tensor, v: Tensor, w: Tensor, b: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Projects with the three stacked weights, in one product where the inputs are the same tensor."""
    width = q.size(-1)
    if k is v and q is k:
        packed = ops.linear(q, w, b).chunk(3, dim=-1)
        return packed[0], packed[1], packed[2]
    if k is v:
        w_q, w_kv = w.split([width, width * 2])
        b_q, b_kv = (None, None) if b is None else b.split([width, width * 2])
        packed = ops.linear(k, w_kv, b_kv).chunk(2, dim=-1)
        return ops.linear(q, w_q, b_q), packed[0], packed[1]
    w_q, w_k, w_v = w.chunk(3)
    b_q, b_k, b_v = (None, None, None) if b is None else b.chunk(3)
    return ops.linear(q, w_q, b_q), ops.linear(k, w_k, b_k), ops.linear(v, w_v, b_v)


def _check_static(tensor: Tensor, name: str, heads: int, head_dim: int) -> Tensor:
    if tensor.size(0) != heads:
        raise AssertionError(f"expecting {name}.size(0) of {heads}, but got {tensor.size(0)}")
    if tensor.size(2) != head_dim:
        raise AssertionError(f"expecting {name}.size(2) of {head_dim}, but got {tensor.size(2)}")
    return tensor


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Multi-head attention (Vaswani et al., 2017) of `query` (L, N, E) on `key` and `value` (S, N, E).

    Without a batch, shapes are (L, E) and (S, E). Masks are boolean (True hides) or added to the scores:
    `key_padding_mask` (N, S), `attn_mask` (L, S) or (N * num_heads, L, S). Returns the output (L, N, E) and, with
    `need_weights`, the attention weights (N, L, S), or (N, num_heads, L, S) unless averaged.
    """
    is_batched = _check_shapes(query, key, value, key_padding_mask, attn_mask, num_heads)
    if not is_batched:
        query, key, value = query.unsqueeze(1), key.unsqueeze(1), value.unsqueeze(1)
        if key_padding_mask is not None:
            key_padding_mask = key_padding_mask.unsqueeze(0)
    target_length, batch, embed_dim = query.shape
    source_length = key.shape[0]

    key_padding_mask = _canonical_mask(
        key_padding_mask,
        "key_padding_mask",
        None if attn_mask is None else attn_mask.dtype,
        "attn_mask",
        query.dtype,
    )
    if is_causal and attn_mask is None:
        raise RuntimeError(
            "Need attn_mask if specifying the is_causal hint. You may use the Transformer module method "
            "`generate_square_subsequent_mask` to create this mask."
        )
    if is_causal and key_padding_mask is None and not need_weights:
        # The hint alone says everything that the mask says.
        attn_mask = None
    else:
        attn_mask = _canonical_mask(attn_mask, "attn_mask", None, "", query.dtype, check_other=False)
        if key_padding_mask is not None:
            is_causal = False

    if embed_dim != embed_dim_to_check:
        raise AssertionError(
            f"was expecting embedding dimension of {embed_dim_to_check}, but got {embed_dim}"
        )
    head_dim = embed_dim // num_heads
    if head_dim * num_heads != embed_dim:
        raise AssertionError(f"embed_dim {embed_dim} not divisible by num_heads {num_heads}")
    if use_separate_proj_weight:
        if key.shape[:2] != value.shape[:2]:
            raise AssertionError(
                f"key's sequence and batch dims {key.shape[:2]} do not match value's {value.shape[:2]}"
            )
    elif key.shape != value.shape:
        raise AssertionError(f"key shape {key.shape} does not match value shape {value.shape}")

    if use_separate_proj_weight:
        if q_proj_weight is None:
            raise AssertionError("use_separate_proj_weight is True but q_proj_weight is None")
        if k_proj_weight is None:
            raise AssertionError("use_separate_proj_weight is True but k_proj_weight is None")
        if v_proj_weight is None:
            raise AssertionError("use_separate_proj_weight is True but v_proj_weight is None")
        b_q, b_k, b_v = (None, None, None) if in_proj_bias is None else in_proj_bias.chunk(3)
        q = ops.linear(query, q_proj_weight, b_q)
        k = ops.linear(key, k_proj_weight, b_k)
        v = ops.linear(value, v_proj_weight, b_v)
    else:
        if in_proj_weight is None:
            raise AssertionError("use_separate_proj_weight is False but in_proj_weight is None")
        q, k, v = _in_projection_packed(query, key, value, in_proj_weight, in_proj_bias)

    if attn_mask is not None:
        if attn_mask.dim() == 2:
            expected: tuple[int, ...] = (target_length, source_length)
        else:
            expected = (batch * num_heads, target_length, source_length)
        if tuple(attn_mask.shape) != expected:
            raise RuntimeError(
                f"The shape of the {attn_mask.dim()}D attn_mask is {attn_mask.shape}, but should be {expected}."
            )
        if attn_mask.dim() == 2:
            attn_mask = attn_mask.unsqueeze(0)

    if (bias_k is None) != (bias_v is None):
        raise AssertionError("bias_k and bias_v must be given together")
    if bias_k is not None and bias_v is not None:
        if static_k is not None or static_v is not None:
            raise AssertionError("bias cannot be added to static key or value.")
        k = lohe.cat([k, bias_k.repeat(1, batch, 1)])
        v = lohe.cat([v, bias_v.repeat(1, batch, 1)])
        attn_mask, key_padding_mask = _room_for_one_more(attn_mask), _room_for_one_more(key_padding_mask)

    heads = batch * num_heads
    # The parts of a packed projection are not contiguous.
    q = q.reshape(target_length, heads, head_dim).transpose(0, 1)
    if static_k is None:
        k = k.reshape(k.shape[0], heads, head_dim).transpose(0, 1)
    else:
        k = _check_static(static_k, "static_k", heads, head_dim)
    if static_v is None:
        v = v.reshape(v.shape[0], heads, head_dim).transpose(0, 1)
    else:
        v = _check_static(static_v, "static_v", heads, head_dim)
    if add_zero_attn:
        zeros = (heads, 1, head_dim)
        k = lohe.cat([k, lohe.zeros(zeros, dtype=k.dtype, device=k.device)], dim=1)
        v = lohe.cat([v, lohe.zeros(zeros, dtype=v.dtype, device=v.device)], dim=1)
        attn_mask, key_padding_mask = _room_for_one_more(attn_mask), _room_for_one_more(key_padding_mask)
    source_length = k.size(1)

    if key_padding_mask is not None:
        if tuple(key_padding_mask.shape) != (batch, source_length):
            raise AssertionError(
                f"expecting key_padding_mask shape of {(batch, source_length)}, but got {key_padding_mask.shape}"
            )
        padding = key_padding_mask.view(batch, 1, 1, source_length).expand(-1, num_heads, -1, -1)
        padding = padding.reshape(heads, 1, source_length)
        attn_mask = padding if attn_mask is None else attn_mask + padding

    dropout_p = dropout_p if training else 0.0
    if need_weights:
        if is_causal and attn_mask is None:
            raise AssertionError("is_causal without attn_mask is not supported together with need_weights")
        scaled = q * math.sqrt(1.0 / head_dim)
        if attn_mask is None:
            scores = lohe.bmm(scaled, k.transpose(-2, -1))
        else:
            scores = lohe.baddbmm(attn_mask, scaled, k.transpose(-2, -1))
        weights = scores.softmax(-1)
        if dropout_p > 0.0:
            weights = ops.dropout(weights, dropout_p, True)
        output = lohe.bmm(weights, v)
        output = output.transpose(0, 1).contiguous().view(target_length * batch, embed_dim)
        output = ops.linear(output, out_proj_weight, out_proj_bias).view(target_length, batch, -1)
        weights = weights.view(batch, num_heads, target_length, source_length)
        if average_attn_weights:
            weights = weights.mean(dim=1)
        if not is_batched:
            return output.squeeze(1), weights.squeeze(0)
        return output, weights

    if attn_mask is not None:
        if attn_mask.size(0) == 1 and attn_mask.dim() == 3:
            attn_mask = attn_mask.unsqueeze(0)
        else:
            attn_mask = attn_mask.view(batch, num_heads, -1, source_length)
    q = q.view(batch, num_heads, target_length, head_dim)
    k = k.view(batch, num_heads, source_length, head_dim)
    v = v.view(batch, num_heads, source_length, head_dim)
    output = ops.scaled_dot_product_attention(q, k, v, attn_mask, dropout_p, is_causal)
    output = output.permute(2, 0, 1, 3).contiguous().view(batch * target_length, embed_dim)
    output = ops.linear(output, out_proj_weight, out_proj_bias).view(target_length, batch, -1)
    return (output if is_batched else output.squeeze(1)), None


def _room_for_one_more(mask: Tensor | None) -> Tensor | None:
    """One more key that the mask does not hide."""
    return None if mask is None else ops.pad(mask, [0, 1], "constant", None)
