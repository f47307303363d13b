"""Where one picture lies in another: affine maps that make frames agree, and frames seen through them.

Frames are float32 `(n, side, side)`; a map is float64 `(2, 3)`, from (x, y) of ours to (x, y) of theirs,
in pixels. Source: the enhanced correlation coefficient of Evangelidis and Psarakis, IEEE TPAMI 30(10),
2008.
"""

import functools

import numpy as np

from curation.matching.search_kernels import compiled

LEVELS = ((2.0, 6), (0.7, 6))  # blur in pixels, and steps of the refinement at it


def refine(
    ours: np.ndarray,
    theirs: np.ndarray,
    pairs: np.ndarray,
    start: np.ndarray,
    *,
    of_motion: bool = False,
) -> tuple[np.ndarray, float]:
    """The map that makes these frame pairs agree best, and how well they do.

    Args:
        of_motion: without the mean picture of each side: what stands still, as a logo does, has no say.
    """
    pairs = np.unique(pairs, axis=0)
    a, b = ours[pairs[:, 0]], theirs[pairs[:, 1]]
    if of_motion:
        a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    found, fit = start.astype(np.float64), -1.0
    for blur, steps in LEVELS:
        found, fit = ecc(blurred(a, blur), blurred(b, blur), found, steps)
    return found, fit


def blurred(frames: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of `(k, side, side)` by two products of matrices; edges count once."""
    kernel = _blur_matrix(frames.shape[-1], sigma)
    return np.ascontiguousarray(kernel @ frames @ kernel.T)


def _blur_matrix(side: int, sigma: float) -> np.ndarray:
    key = (side, sigma)
    if key not in _BLURS:
        steps = np.arange(side)
        kernel = np.exp(-0.5 * ((steps[:, None] - steps[None]) / sigma) ** 2)
        _BLURS[key] = (kernel / kernel.sum(axis=1, keepdims=True)).astype(np.float32)
    return _BLURS[key]


_BLURS: dict[tuple[int, float], np.ndarray] = {}


@compiled
def ecc(ours: np.ndarray, theirs: np.ndarray, start: np.ndarray, steps: int) -> tuple[np.ndarray, float]:
    """`steps` Gauss-Newton steps of the enhanced correlation coefficient from the map `start`.

    Returns the best map on the way and its correlation; -1 where the pictures do not meet.
    """
    map_, best, best_fit = start.copy(), start.copy(), -1.0
    values = np.empty((ours.shape[1] * ours.shape[2], 8))
    for step in range(steps + 1):
        products, n = _products(ours, theirs, map_, values)
        ww, tt, wt = products[6, 6], products[7, 7], products[6, 7]
        if n < 0.15 * ours.size or ww <= 1e-6 or tt <= 1e-6:
            break
        fit = wt / np.sqrt(ww * tt)
        if fit > best_fit:
            best_fit, best = fit, map_.copy()
        if step == steps:
            break
        hessian = products[:6, :6].copy()
        for c in range(6):
            hessian[c, c] = 1.001 * hessian[c, c] + 1e-6
        gw, gt = products[:6, 6].copy(), products[:6, 7].copy()
        pw, pt = np.linalg.solve(hessian, gw), np.linalg.solve(hessian, gt)
        above, below = ww - (gw * pw).sum(), wt - (gt * pw).sum()
        scale = above / below if below > 1e-9 else wt / tt
        change = scale * pt - pw
        for c in range(3):
            map_[0, c] += change[c]
            map_[1, c] += change[3 + c]
        if not (0.3 < map_[0, 0] < 3.3 and 0.3 < map_[1, 1] < 3.3):
            break
        if abs(map_[0, 1]) > 0.35 or abs(map_[1, 0]) > 0.35:
            break
    return best, best_fit


@compiled
def _products(
    ours: np.ndarray, theirs: np.ndarray, map_: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, int]:
    """Sums over pixels of products of eight values, each without its mean in the frame, and the pixels.

    The values: how the warped picture changes with the six numbers of the map, that picture, ours.

    Args:
        values: room for them, `(side * side, 8)`.
    """
    frames, side, _ = ours.shape
    products, pixels = np.zeros((8, 8)), 0
    total = np.empty(8)
    for k in range(frames):
        n = 0
        total[:] = 0
        for y in range(side):
            for x in range(side):
                u = map_[0, 0] * x + map_[0, 1] * y + map_[0, 2]
                v = map_[1, 0] * x + map_[1, 1] * y + map_[1, 2]
                if u < 0 or v < 0 or u > side - 1.001 or v > side - 1.001:
                    continue
                i, j = int(v), int(u)
                fy, fx = v - i, u - j
                p00, p01 = theirs[k, i, j], theirs[k, i, j + 1]
                p10, p11 = theirs[k, i + 1, j], theirs[k, i + 1, j + 1]
                gx = (1 - fy) * (p01 - p00) + fy * (p11 - p10)
                gy = (1 - fx) * (p10 - p00) + fx * (p11 - p01)
                value = values[n]
                value[0], value[1], value[2] = gx * x, gx * y, gx
                value[3], value[4], value[5] = gy * x, gy * y, gy
                value[6] = (1 - fy) * ((1 - fx) * p00 + fx * p01) + fy * ((1 - fx) * p10 + fx * p11)
                value[7] = ours[k, y, x]
                for c in range(8):
                    total[c] += value[c]
                n += 1
        if n:
            for c in range(0, 8, 2):
                _add_products(values, n, c, products)
            for c in range(8):
                for d in range(8):
                    products[c, d] -= total[c] * total[d] / n
        pixels += n
    return products, pixels


@compiled
def _add_products(values: np.ndarray, n: int, c: int, products: np.ndarray) -> None:
    """Add the products of values c and c + 1 of the first n pixels with all eight.

    The sums are kept apart by name so that they stay in registers.
    """
    a0, a1, a2, a3 = products[c, 0], products[c, 1], products[c, 2], products[c, 3]
    a4, a5, a6, a7 = products[c, 4], products[c, 5], products[c, 6], products[c, 7]
    e = c + 1
    b0, b1, b2, b3 = products[e, 0], products[e, 1], products[e, 2], products[e, 3]
    b4, b5, b6, b7 = products[e, 4], products[e, 5], products[e, 6], products[e, 7]
    for p in range(n):
        a, b = values[p, c], values[p, c + 1]
        v0, v1, v2, v3 = values[p, 0], values[p, 1], values[p, 2], values[p, 3]
        v4, v5, v6, v7 = values[p, 4], values[p, 5], values[p, 6], values[p, 7]
        a0, a1, a2, a3 = a0 + a * v0, a1 + a * v1, a2 + a * v2, a3 + a * v3
        a4, a5, a6, a7 = a4 + a * v4, a5 + a * v5, a6 + a * v6, a7 + a * v7
        b0, b1, b2, b3 = b0 + b * v0, b1 + b * v1, b2 + b * v2, b3 + b * v3
        b4, b5, b6, b7 = b4 + b * v4, b5 + b * v5, b6 + b * v6, b7 + b * v7
    products[c] = np.array((a0, a1, a2, a3, a4, a5, a6, a7))
    products[e] = np.array((b0, b1, b2, b3, b4, b5, b6, b7))


def pixels_at(frames: np.ndarray, places: np.ndarray) -> np.ndarray:
    """A copy of these pixels of every frame, float32 `(frames, places)`."""
    chosen: np.ndarray = frames.reshape(len(frames), -1).take(places, axis=1)
    return chosen


@functools.cache
def _places(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows of all pixels, line by line; float64."""
    y, x = np.divmod(np.arange(side * side, dtype=np.float64), side)
    return x, y


def seen_under(side: int, map_: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which pixels of the held-out clip the training clip shows, and where: places, columns, rows."""
    x, y = _places(side)
    u = map_[0, 0] * x + map_[0, 1] * y + map_[0, 2]
    v = map_[1, 0] * x + map_[1, 1] * y + map_[1, 2]
    seen = np.flatnonzero((u >= -0.5) & (v >= -0.5) & (u <= side - 0.5) & (v <= side - 0.5))
    return seen, np.clip(u[seen], 0, side - 1.001), np.clip(v[seen], 0, side - 1.001)


@compiled
def sample(frames: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Bilinear samples `(n, places)` of `(n, side, side)` at columns `u` and rows `v`."""
    n, side, _ = frames.shape
    places = np.empty(len(u), np.int64)
    weights = np.empty((4, len(u)), np.float32)
    for p in range(len(u)):
        i, j = int(v[p]), int(u[p])
        fy, fx = v[p] - i, u[p] - j
        places[p] = i * side + j
        weights[0, p], weights[1, p] = (1 - fy) * (1 - fx), (1 - fy) * fx
        weights[2, p], weights[3, p] = fy * (1 - fx), fy * fx
    out = np.empty((n, len(u)), np.float32)
    flat = frames.reshape(n, side * side)
    for k in range(n):
        for p in range(len(u)):
            q = places[p]
            out[k, p] = (
                weights[0, p] * flat[k, q] + weights[1, p] * flat[k, q + 1]
                + weights[2, p] * flat[k, q + side] + weights[3, p] * flat[k, q + side + 1]
            )  # fmt: skip
    return out
