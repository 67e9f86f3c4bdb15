#include <cmath>
#include <numbers>

#include "ir/node.h"
#include "ir/primitives.h"
#include "lohe/error.h"

/// Derivatives of the primitives: one line each, for operand `which`. Masks select; nothing multiplies by
/// zero.
namespace lohe::ir {
namespace {

Node zero_like(Node g) { return g.literal(0); }
/// g where the condition holds, else 0.
Node masked(Node condition, Node g) { return select(condition, g, zero_like(g)); }
Node sgn(Node x) {
  return is_complex(x.dtype()) ? select(abs(x) == 0.0, x.literal(0), x / cast(abs(x), x.dtype())) : sign(x);
}

}  // namespace

Node derivative(Prim prim, int which, Node g, Node y, Node a, Node b, Node c) {
  switch (prim) {
    case Prim::kAdd:
      return g;
    case Prim::kSub:
      return which == 0 ? g : -g;
    case Prim::kMul:
      return g * conj(which == 0 ? b : a);
    case Prim::kDiv:
      return which == 0 ? g / conj(b) : -g * conj((a / b) / b);
    case Prim::kNeg:
      return -g;
    case Prim::kAbs:
      return is_complex(a.dtype()) ? cast(g, a.dtype()) * sgn(a) : g * sign(a);
    case Prim::kSign:
      return zero_like(cast(g, a.dtype()));
    case Prim::kReciprocal:
      return -g * conj(y * y);
    case Prim::kSquare:
      return g * conj(2 * a);
    case Prim::kFloorDiv:
    case Prim::kTruncDiv:
      return zero_like(g);
    case Prim::kRemainder:
      return which == 0 ? g : -g * floor_divide(a, b);
    case Prim::kFmod:
      return which == 0 ? g : -g * trunc(a / b);
    // A tie gives half to each, as PyTorch does.
    case Prim::kMinimum:
    case Prim::kMaximum: {
      const Node other_wins = (prim == Prim::kMaximum) == (which == 0) ? a < b : b < a;
      return select(other_wins, zero_like(g), select(a == b, g / 2, g));
    }
    case Prim::kFmin: {
      const Node first = (a <= b) | is_nan(b);
      return which == 0 ? masked(first, g) : select(first, zero_like(g), g);
    }
    case Prim::kFmax: {
      const Node first = (a >= b) | is_nan(b);
      return which == 0 ? masked(first, g) : select(first, zero_like(g), g);
    }
    case Prim::kPow:
      if (which == 0) return select(b == 0.0, zero_like(g), g * conj(b * pow(a, b - 1)));
      {
        const Node at_zero = is_complex(a.dtype()) ? (a == 0.0) & (real(b) >= 0.0) : (a == 0.0) & (b >= 0.0);
        return select(at_zero, zero_like(g), g * conj(y * log(a)));
      }
    case Prim::kSqrt:
      return g / conj(2 * y);
    case Prim::kRsqrt:
      return -0.5 * g * conj(y * y * y);
    case Prim::kExp:
      return g * conj(y);
    case Prim::kExp2:
      return g * conj(y) * std::numbers::ln2;
    case Prim::kExpm1:
      return g * conj(y + 1);
    case Prim::kLog:
      return g / conj(a);
    case Prim::kLog2:
      return g / conj(a * std::numbers::ln2);
    case Prim::kLog10:
      return g / conj(a * std::numbers::ln10);
    case Prim::kLog1p:
      return g / conj(a + 1);
    case Prim::kSin:
      return g * conj(cos(a));
    case Prim::kCos:
      return g * -conj(sin(a));
    case Prim::kTan:
      return g * conj(1 + y * y);
    case Prim::kAsin:
      return g * conj(rsqrt(1 - a * a));
    case Prim::kAcos:
      return g * -conj(rsqrt(1 - a * a));
    case Prim::kAtan:
      return g / conj(a * a + 1);
    case Prim::kAtan2: {
      const Node r = a * a + b * b;
      const Node scaled = select(r == 0.0, zero_like(g), g / r);
      return which == 0 ? scaled * b : -scaled * a;
    }
    case Prim::kSinh:
      return g * conj(cosh(a));
    case Prim::kCosh:
      return g * conj(sinh(a));
    case Prim::kTanh:
      return g * conj(1 - y * y);
    case Prim::kAsinh:
      return g * conj(rsqrt(a * a + 1));
    case Prim::kAcosh:
      if (is_complex(a.dtype())) return g * conj(rsqrt(a - 1) * rsqrt(a + 1));
      return g * rsqrt(a * a - 1);
    case Prim::kAtanh:
      return g / conj(1 - a * a);
    case Prim::kErf:
      return g * (exp(-(a * a)) * (2 * std::numbers::inv_sqrtpi));
    case Prim::kGeluSlope:
      return g * (exp(-0.5 * (a * a)) * (std::numbers::inv_sqrtpi / std::numbers::sqrt2) * (2 - a * a));
    case Prim::kErfc:
      return g * (exp(-(a * a)) * (-2 * std::numbers::inv_sqrtpi));
    case Prim::kErfinv:
      return g * (exp(y * y) * (0.5 / std::numbers::inv_sqrtpi));
    case Prim::kLgamma:
      return g * digamma(a);
    case Prim::kDigamma:
      break;
    case Prim::kSigmoid:
      return g * conj((1 - y) * y);
    case Prim::kHypot:
      return g * ((which == 0 ? a : b) / y);
    case Prim::kFma:
      return which == 2 ? g : g * (which == 0 ? b : a);
    case Prim::kFloor:
    case Prim::kCeil:
    case Prim::kTrunc:
    case Prim::kRound:
      return zero_like(g);
    case Prim::kSelect:
      if (which == 0) return {};
      return which == 1 ? masked(a, g) : select(a, zero_like(g), g);
    case Prim::kCast:
      return is_complex(g.dtype()) && !is_complex(a.dtype()) ? cast(real(g), a.dtype()) : cast(g, a.dtype());
    case Prim::kReal:
      return cast(g, a.dtype());
    case Prim::kImag:
      return a.graph()->apply(Prim::kComplex, a.dtype(), zero_like(g), g);
    case Prim::kConj:
      return conj(g);
    case Prim::kComplex:
      return which == 0 ? real(g) : imag(g);
    case Prim::kAngle: {
      if (!is_complex(a.dtype())) return zero_like(g);
      const Node r = square(abs(a));
      const Node s = select(r == 0.0, zero_like(g), g / r);
      return a.graph()->apply(Prim::kComplex, a.dtype(), -imag(a) * s, real(a) * s);
    }
    case Prim::kSum:
      return g;
    case Prim::kProd: {
      // y / x where x is not zero; a row with zeros keeps the product of the others at its single zero.
      const Space span = y.graph()->node(y.id()).span;
      const Node is_zero = a == 0.0;
      const Node zeros = sum(select(is_zero, a.literal(1), a.literal(0)), span);
      const Node others = prod(select(is_zero, a.literal(1), a), span);
      const Node at_zero = is_complex(a.dtype()) ? abs(zeros) == 1.0 : zeros == 1.0;
      return g * conj(select(is_zero, select(at_zero, others, a.literal(0)), y / a));
    }
    case Prim::kAmax:
    case Prim::kAmin: {
      const Space span = y.graph()->node(y.id()).span;
      const Node hit = (a == y) | (is_nan(a) & is_nan(y));
      const Node hits = sum(select(hit, a.literal(1), a.literal(0)), span);
      return masked(hit, g / hits);
    }
    default:
      break;
  }
  (void)c;
  raise(ErrorKind::kNotImplemented, "the derivative for '", primitive(prim).name, "' is not implemented");
}

}  // namespace lohe::ir
