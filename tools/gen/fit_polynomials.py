"""Fit the polynomials of src/ir/math_*.cpp and write src/ir/math_coefficients.h and src/ir/math_pieces.h.

Method: the Remez exchange (E. Remez, 1934) in 80-digit arithmetic on the weighted error, started from
Chebyshev nodes, so the result is deterministic and needs no seed. Every table's comment states the function,
its interval and the maximal weighted error reached. Needs mpmath.

usage: python tools/gen/fit_polynomials.py [output folder]
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import mpmath as mp
import numpy as np

mp.mp.dps = 80
Function = Callable[[mp.mpf], mp.mpf]


def remez(f: Function, weight: Function, a: mp.mpf, b: mp.mpf, degree: int) -> tuple[list[mp.mpf], float]:
    """The polynomial p, constant first, that minimises max |weight (f - p)| on [a, b], and that maximum."""
    a, b = mp.mpf(a), mp.mpf(b)
    n = degree + 2
    middle, half = (a + b) / 2, (b - a) / 2
    nodes = [middle - half * mp.cos(mp.pi * (2 * i + 1) / (2 * n)) for i in range(n)]
    grid = [middle - half * mp.cos(mp.pi * i / (16 * n)) for i in range(16 * n + 1)]
    cached = [(x, (x - middle) / half, f(x), weight(x)) for x in grid]
    best = None
    for _ in range(30):
        rows, right = mp.matrix(n, n), mp.matrix(n, 1)
        for i, x in enumerate(nodes):
            u = (x - middle) / half
            for j in range(degree + 1):
                rows[i, j] = u**j
            rows[i, n - 1] = (-1) ** i / weight(x)
            right[i] = f(x)
        solution = mp.lu_solve(rows, right)
        scaled = [solution[j] for j in range(degree + 1)]
        errors = [(w * (y - mp.polyval(scaled[::-1], u))) for _, u, y, w in cached]
        worst = max(abs(e) for e in errors)
        if best is None or worst < best[1]:
            best = (scaled, worst)
        if worst <= abs(solution[n - 1]) * mp.mpf("1.02"):
            break
        # New nodes: the largest error of every run of equal sign.
        runs: list[int] = []
        for i, e in enumerate(errors):
            if runs and (errors[runs[-1]] > 0) == (e > 0):
                if abs(e) > abs(errors[runs[-1]]):
                    runs[-1] = i
            else:
                runs.append(i)
        while len(runs) > n:
            runs.pop(0 if abs(errors[runs[0]]) < abs(errors[runs[-1]]) else -1)
        if len(runs) < n:
            break
        nodes = [grid[i] for i in runs]
    assert best is not None
    # From u = (x - middle) / half back to x.
    coefficients = [mp.mpf(0)] * (degree + 1)
    for c in reversed(best[0]):
        shifted = [mp.mpf(0)] * (degree + 1)
        for j in range(degree + 1):
            shifted[j] -= coefficients[j] * middle / half
            if j:
                shifted[j] += coefficients[j - 1] / half
        coefficients = shifted
        coefficients[0] += c
    return coefficients, float(best[1])


def taylor_safe(f: Function, series: Callable[[mp.mpf], mp.mpf]) -> Function:
    """f, but `series` close to zero where f cancels."""
    return lambda x: series(x) if abs(x) < mp.mpf(10) ** -30 else f(x)


def tables() -> list[tuple[str, str, list[mp.mpf], float, bool]]:
    """(name, what it is, coefficients, error, float32?)."""
    result = []

    def fit(name: str, what: str, f: Function, weight: Function, a: object, b: object, degree: int) -> None:
        single = name.endswith("F32")
        coefficients, error = remez(f, weight, mp.mpf(a), mp.mpf(b), degree)
        result.append((name, what, coefficients, error, single))
        print(f"{name:14s} degree {degree:2d} error 2^{float(mp.log(error, 2)):.1f}", file=sys.stderr)

    # |r|, kept off 0, where a weight of 0 would leave the exchange without a scale.
    def size(r: mp.mpf) -> mp.mpf:
        return max(abs(r), mp.mpf("0.02"))

    ln2h = mp.log(2) / 2 * mp.mpf("1.0001")
    exp_tail = taylor_safe(lambda r: (mp.expm1(r) - r) / r**2, lambda r: mp.mpf(1) / 2 + r / 6)
    for suffix, degree in (("F32", 4), ("F64", 10)):
        fit(
            "kExp" + suffix,
            "(exp(r) - 1 - r) / r^2 on +-ln(2)/2, weight r",
            exp_tail,
            size,
            -ln2h,
            ln2h,
            degree,
        )
    exp2_tail = taylor_safe(
        lambda r: mp.expm1(r * mp.log(2)) / r, lambda r: mp.log(2) + r * mp.log(2) ** 2 / 2
    )
    for suffix, degree in (("F32", 5), ("F64", 11)):
        fit("kExp2" + suffix, "(2^r - 1) / r on +-1/2, weight r", exp2_tail, size, -0.5, 0.5, degree)
    log_tail = taylor_safe(lambda f: (mp.log1p(f) - f) / f**2, lambda f: -mp.mpf(1) / 2 + f / 3)
    fit(
        "kLogF32",
        "(log(1 + f) - f) / f^2 on [sqrt(1/2), sqrt(2)] - 1, weight f",
        log_tail,
        size,
        mp.sqrt(0.5) - 1,
        mp.sqrt(2) - 1,
        8,
    )
    atanh_tail = taylor_safe(
        lambda z: (2 * mp.atanh(mp.sqrt(z)) / mp.sqrt(z) - 2) / z, lambda z: mp.mpf(2) / 3 + z * 2 / 5
    )
    s = (mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)
    fit(
        "kLogF64",
        "(2 atanh(s) / s - 2) / z, z = s^2, |s| <= (sqrt(2) - 1) / (sqrt(2) + 1), weight z",
        atanh_tail,
        lambda z: z,
        mp.mpf(10) ** -20,
        s**2 * mp.mpf("1.001"),
        6,
    )
    atanh5 = taylor_safe(
        lambda z: ((2 * mp.atanh(mp.sqrt(z)) / mp.sqrt(z) - 2) / z - mp.mpf(2) / 3) / z,
        lambda z: mp.mpf(2) / 5 + z * 2 / 7,
    )
    fit(
        "kPowLogF64",
        "((2 atanh(s) / s - 2) / z - 2/3) / z, as kLogF64, weight z^2",
        atanh5,
        lambda z: z**2,
        mp.mpf(10) ** -20,
        s**2 * mp.mpf("1.001"),
        7,
    )
    root = mp.sqrt
    tanh_tail = taylor_safe(
        lambda z: (mp.tanh(root(z)) / root(z) - 1) / z, lambda z: -mp.mpf(1) / 3 + z * 2 / 15
    )
    for suffix, degree in (("F64", 10),):
        fit(
            "kTanh" + suffix,
            "(tanh(x) / x - 1) / z, z = x^2, |x| <= 0.625, weight z",
            tanh_tail,
            lambda z: z,
            mp.mpf(10) ** -20,
            mp.mpf("0.625") ** 2,
            degree,
        )
    sinh_tail = taylor_safe(lambda z: (mp.sinh(root(z)) / root(z) - 1) / z, lambda z: mp.mpf(1) / 6 + z / 120)
    for suffix, degree in (("F64", 5),):
        fit(
            "kSinh" + suffix,
            "(sinh(x) / x - 1) / z, z = x^2, |x| <= 1, weight z",
            sinh_tail,
            lambda z: z,
            mp.mpf(10) ** -20,
            1,
            degree,
        )
    erf_head = taylor_safe(
        lambda z: mp.erf(root(z)) / root(z) - 1, lambda z: 2 / mp.sqrt(mp.pi) * (1 - z / 3) - 1
    )
    for suffix, degree in (("F64", 11),):
        fit(
            "kErf" + suffix,
            "erf(x) / x - 1, z = x^2, |x| <= 1",
            erf_head,
            lambda z: mp.mpf(1),
            mp.mpf(10) ** -20,
            1,
            degree,
        )
    k = mp.mpf(4)

    def erfcx_of(t: mp.mpf) -> mp.mpf:
        if t >= 1:
            return 2 / mp.sqrt(mp.pi)
        x = k * (1 + t) / (1 - t)
        if x > 200:  # asymptotic series; its terms fall below 1e-40 here
            z, term, total = 1 / (2 * x * x), mp.mpf(1), mp.mpf(1)
            for i in range(1, 20):
                term *= -(2 * i - 1) * z
                total += term
            return total / (x * mp.sqrt(mp.pi)) * (1 + 2 * x)
        return mp.exp(x * x) * mp.erfc(x) * (1 + 2 * x)

    fit(
        "kErfcF64",
        "(1 + 2x) exp(x^2) erfc(x), t = (x - 4) / (x + 4), 0.5 <= x <= 28",
        erfcx_of,
        lambda t: 1 / erfcx_of(t),
        (mp.mpf("0.5") - k) / (mp.mpf("0.5") + k),
        (28 - k) / (28 + k),
        22,
    )
    # float32 counts quarters with 2/pi as one float, which leaves up to 0.042 more than pi/4.
    quarter2 = {"F32": (mp.pi / 4 + mp.mpf("0.045")) ** 2, "F64": (mp.pi / 4 * mp.mpf("1.0001")) ** 2}
    more = {"F32": " + 0.045", "F64": ""}
    sin_tail = taylor_safe(lambda z: (mp.sin(root(z)) / root(z) - 1) / z, lambda z: -mp.mpf(1) / 6 + z / 120)
    cos_tail = taylor_safe(lambda z: (mp.cos(root(z)) - 1 + z / 2) / z**2, lambda z: mp.mpf(1) / 24 - z / 720)
    for suffix, ds, dc in (("F32", 2, 2), ("F64", 5, 5)):
        fit(
            "kSin" + suffix,
            f"(sin(r) / r - 1) / z, z = r^2, |r| <= pi/4{more[suffix]}, weight z",
            sin_tail,
            lambda z: z,
            mp.mpf(10) ** -20,
            quarter2[suffix],
            ds,
        )
        fit(
            "kCos" + suffix,
            f"(cos(r) - 1 + z/2) / z^2, z = r^2, |r| <= pi/4{more[suffix]}, weight z^2",
            cos_tail,
            lambda z: z**2,
            mp.mpf(10) ** -20,
            quarter2[suffix],
            dc,
        )
    tan_tail = taylor_safe(
        lambda z: (mp.tan(root(z)) / root(z) - 1) / z, lambda z: mp.mpf(1) / 3 + z * 2 / 15
    )
    fit(
        "kTanF32",
        "(tan(r) / r - 1) / z, z = r^2, |r| <= pi/4 + 0.045, weight z",
        tan_tail,
        lambda z: z,
        mp.mpf(10) ** -20,
        quarter2["F32"],
        6,
    )
    atan_tail = taylor_safe(lambda z: (mp.atan(root(z)) / root(z) - 1) / z, lambda z: -mp.mpf(1) / 3 + z / 5)
    for suffix, degree in (("F32", 8), ("F64", 19)):
        fit(
            "kAtan" + suffix,
            "(atan(x) / x - 1) / z, z = x^2, |x| <= 1, weight z",
            atan_tail,
            lambda z: z,
            mp.mpf(10) ** -20,
            1,
            degree,
        )
    asin_tail = taylor_safe(
        lambda z: (mp.asin(root(z)) / root(z) - 1) / z, lambda z: mp.mpf(1) / 6 + z * 3 / 40
    )
    for suffix, degree in (("F32", 5), ("F64", 12)):
        fit(
            "kAsin" + suffix,
            "(asin(x) / x - 1) / z, z = x^2, |x| <= 1/2, weight z",
            asin_tail,
            lambda z: z,
            mp.mpf(10) ** -20,
            0.25,
            degree,
        )

    def lgamma_quotient(u: mp.mpf) -> mp.mpf:
        x = mp.mpf("1.5") + u
        if abs(x - 1) < mp.mpf(10) ** -25:
            return mp.euler
        if abs(x - 2) < mp.mpf(10) ** -25:
            return 1 - mp.euler
        return mp.loggamma(x) / ((x - 1) * (x - 2))

    fit(
        "kLgammaF64",
        "lgamma(x) / ((x - 1) (x - 2)), u = x - 1.5, |u| <= 1/2",
        lgamma_quotient,
        lambda u: 1 / lgamma_quotient(u),
        "-0.5",
        "0.5",
        20,
    )

    def erfinv_of_w(w: mp.mpf) -> mp.mpf:
        """erfinv(x) / x with w = -log(1 - x^2)."""
        if w < mp.mpf(10) ** -25:
            return mp.sqrt(mp.pi) / 2
        x = mp.sqrt(-mp.expm1(-w))
        complement = mp.exp(-w) / (1 + x)  # 1 - x without cancellation
        y = mp.erfinv(x) if w < 4 else mp.sqrt(w)
        for _ in range(12 if w >= 4 else 0):  # Newton on log(erfc(y)), which is nearly quadratic
            e = mp.erfc(y)
            y += mp.log(e / complement) * e * mp.sqrt(mp.pi) / 2 * mp.exp(y * y)
        return y / x

    fit(
        "kErfinvCentreF64",
        "erfinv(x) / x, u = w - 3.125, w = -log(1 - x^2) < 6.25",
        lambda u: erfinv_of_w(u + mp.mpf("3.125")),
        lambda u: 1 / erfinv_of_w(u + mp.mpf("3.125")),
        "-3.125",
        "3.13",
        24,
    )
    fit(
        "kErfinvTailF64",
        "erfinv(x) / x, u = sqrt(w) - 3.25, 2.5 <= sqrt(w) < 4",
        lambda u: erfinv_of_w((u + mp.mpf("3.25")) ** 2),
        lambda u: 1 / erfinv_of_w((u + mp.mpf("3.25")) ** 2),
        "-0.751",
        "0.751",
        20,
    )
    fit(
        "kErfinvEdgeF64",
        "erfinv(x) / x, u = sqrt(w) - 5, 4 <= sqrt(w) <= 6.1",
        lambda u: erfinv_of_w((u + 5) ** 2),
        lambda u: 1 / erfinv_of_w((u + 5) ** 2),
        "-1.001",
        "1.1",
        17,
    )
    return result


def gelu_slope(x: mp.mpf) -> mp.mpf:
    """The derivative of x Phi(x), Phi the normal distribution's, less its value at 0."""
    return mp.ncdf(x) + x * mp.npdf(x) - mp.mpf("0.5")


def piece_start(i: int) -> float:
    """1, 1.25, 1.5, 1.75, 2, 2.5, ...: numbers of an exponent and two bits of a mantissa."""
    return (1 + i % 4 / 4) * 2 ** (i // 4)


def pieces(
    f: Function, last: float, scale: float, first: int, count: int, degree: int, limit: float
) -> tuple[list[list[float]], float]:
    """f on [0, last], f(0) = 0, in 8 or 16 pieces: rows centre, f(centre), slope, then the coefficients of q, constant first.

    Piece i begins where piece_start(first) + scale x is piece_start(first + i): the exponent and two bits of the
    mantissa of that number, which stays below piece_start(first + count), number it. Row entries stand where the
    last four bits of that number say, of eight pieces twice. f(x) = f(centre) + slope u + u q(u), u = x - centre:
    with the slope, a number of few bits, q is small and so is what its roundings do. Centres are floats whose f is
    nearly a float; the last one is `last`, where f counts as `limit`. Also returns the largest relative error, the
    rounding of the coefficients included.
    """
    starts = [(piece_start(first + i) - piece_start(first)) / scale for i in range(count + 1)]
    near = mp.mpf(10) ** -20
    rows, worst = [[0.0] * 16 for _ in range(degree + 3)], mp.mpf(0)
    for i in range(count):
        # A little beyond the ends: the number is rounded.
        low = mp.mpf(starts[i]) * (1 - mp.mpf(2) ** -20)
        high = mp.mpf(min(starts[i + 1], last)) * (1 + mp.mpf(2) ** -20)
        if i == 0:
            centre, value, low = mp.mpf(0), mp.mpf(0), mp.mpf(10) ** -12
        elif starts[i + 1] >= last:
            centre, value = mp.mpf(last), mp.mpf(limit)
        else:
            candidate = np.float32((low + high) / 2)
            tried = []
            for _ in range(2000):
                y = f(mp.mpf(float(candidate)))
                tried.append((abs(y - mp.mpf(float(np.float32(float(y))))), float(candidate)))
                candidate = np.nextafter(candidate, np.float32(100))
            centre = mp.mpf(min(tried)[1])
            value = mp.mpf(float(np.float32(float(f(centre)))))
        exact = f(centre)
        slope = mp.nint(mp.diff(f, max(centre, near)) * 8) / 8

        def rest(u: mp.mpf, centre: mp.mpf = centre, exact: mp.mpf = exact, slope: mp.mpf = slope) -> mp.mpf:
            return ((f(centre + u) - exact) / u if abs(u) > near else mp.diff(f, max(centre, near))) - slope

        def weight(u: mp.mpf, centre: mp.mpf = centre) -> mp.mpf:
            return max(abs(u), mp.mpf("1e-3")) / max(f(centre + u), mp.mpf("1e-3"))

        q, _ = remez(rest, weight, low - centre, high - centre, degree - 1)
        place = (12 + first + i) % 16
        column = [float(centre), float(value), float(slope)] + [float(np.float32(float(c))) for c in q]
        if i == 0 and abs(column[3]) < 1e-7:
            column[3] = 0.0  # f(x) = x for small x
        for row, x in zip(rows, column, strict=True):
            for copy in range(0, 16, count):
                row[(place + copy) % 16] = x
        for j in range(200):
            u = low + (high - low) * j / 199 - centre
            y = value + slope * u + u * mp.polyval([mp.mpf(c) for c in reversed(column[3:])], u)
            worst = max(worst, abs(y - f(centre + u)) / f(centre + u))
    return rows, float(worst)


def two_over_pi() -> tuple[list[list[float]], list[float]]:
    """The bits of 2/pi for reduction: float32's four bands of three parts, float64's 53-bit chunks."""
    mp.mp.prec = 1600
    value = 2 / mp.pi
    bands = []
    for low in (None, 32, 64, 96):
        # Bits whose product with any float of exponent >= low is a multiple of 4 are left out.
        rest = value if low is None else value - mp.floor(mp.ldexp(value, low - 25)) * mp.ldexp(1, 25 - low)
        top = 0 if low is None else 25 - low
        first = mp.floor(mp.ldexp(rest, 29 - top)) * mp.ldexp(1, top - 29)
        second = mp.mpf(float(rest - first))
        bands.append([float(first), float(second), float(rest - first - second)])
    chunks = [
        float(mp.floor(mp.ldexp(value, 53 * (i + 1))) - mp.floor(mp.ldexp(value, 53 * i)) * mp.ldexp(1, 53))
        for i in range(25)
    ]
    mp.mp.dps = 80
    return bands, chunks


def wrap(values: list[str], indent: str = "    ") -> str:
    lines, line = [], indent
    for value in values:
        if len(line) + len(value) + 2 > 108:
            lines.append(line.rstrip())
            line = indent
        line += value + ", "
    lines.append(line.rstrip(", "))
    return "\n".join(lines)


def file_of(what: str, includes: list[str], lines: list[str]) -> str:
    return "\n".join(
        [
            "#pragma once",
            "",
            *(f"#include <{name}>" for name in includes),
            *([""] if includes else []),
            f"/// By tools/gen/fit_polynomials.py: {what}",
            "namespace lohe::ir::math {",
            "",
            "// clang-format off",
            *lines,
            "// clang-format on",
            "",
            "}  // namespace lohe::ir::math",
            "",
        ]
    )


def coefficients_header() -> str:
    out = []
    for name, what, coefficients, error, single in tables():
        rounded = [repr(float(np.float32(float(c))) if single else float(c)) for c in coefficients]
        out += [
            f"/// {what}: 2^{float(mp.log(error, 2)):.1f}",
            f"inline constexpr double {name}[] = {{",
            wrap(rounded) + "};",
        ]
    bands, chunks = two_over_pi()
    out += [
        "/// 2/pi in three parts for |x| below 2^32, 2^64, 2^96, 2^128, less bits that give multiples of 4.",
        "inline constexpr double kTwoOverPiBands[4][3] = {",
    ]
    out += ["    {" + ", ".join(repr(v) for v in band) + "}," for band in bands]
    out += [
        "};",
        "/// 2/pi as 53-bit integers: the sum of chunk[i] * 2^(-53 (i + 1)).",
        "inline constexpr double kTwoOverPiChunks[] = {",
        wrap([repr(v) for v in chunks]) + "};",
    ]
    return file_of("polynomial coefficients, constant term first.", [], out)


def pieces_header() -> str:
    out = [
        "/// The leading bits of first + scale x number the piece, for x up to last; rows are centre, value there,",
        "/// slope, coefficients. See piecewise().",
        "template <size_t kRows>",
        "struct Pieces {",
        "  double last, scale, first;",
        "  std::array<double, 16> rows[kRows];",
        "};",
    ]
    for name, what, f, last, scale, first, count, degree, limit in (
        ("kTanhPieces", "tanh(x)", mp.tanh, 10.0, 1.484375, 0, 16, 5, 1.0),
        ("kErfPieces", "erf(x)", mp.erf, 4.0, 1.1875, 3, 8, 6, 1.0),
        ("kGeluSlopePieces", "d/dx x Phi(x) - 1/2", gelu_slope, 6.25, 0.828125, 3, 8, 7, 0.5),
    ):
        rows, worst = pieces(f, last, scale, first, count, degree, limit)
        print(f"{name:14s} error 2^{float(mp.log(worst, 2)):.1f}", file=sys.stderr)
        out += [
            f"/// {what}: 2^{float(mp.log(worst, 2)):.1f}",
            f"inline constexpr Pieces<{len(rows)}> {name} = {{",
            f"    {last!r}, {scale!r}, {piece_start(first)!r}, {{",
        ]
        for row in rows:
            out += ["        {" + wrap([repr(x) for x in row], " " * 9).lstrip() + "},"]
        out += ["    }};"]
    return file_of("functions in eight or sixteen polynomials each.", ["array", "cstddef"], out)


def write(target: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=target.parent, delete=False) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(file.name, 0o644)
    os.replace(file.name, target)


def main() -> None:
    root = Path(__file__).resolve().parents[2]
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else root / "src" / "ir"
    write(folder / "math_coefficients.h", coefficients_header())
    write(folder / "math_pieces.h", pieces_header())


if __name__ == "__main__":
    main()
