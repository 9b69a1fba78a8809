"""The oracle's best responses by menus, one experiment for each user; arrays as in `oracle`."""

import itertools

import numpy as np

from .oracle import lp


def best_response_menu_poly(us, Ui, mu, v_out, x_out, rates=None, margin=0.0):
    """The optimum of `best_response_menu` from a program of polynomial size per captured set."""
    n = len(us)
    A, Y = us[0].shape
    rates = np.ones(n) if rates is None else rates
    best = (-np.inf, None, None)
    Nx = n * A * Y
    N = Nx + n * n * A

    def X(g, m, y):
        return g * A * Y + m * Y + y

    def T(j, g, m):
        return Nx + (j * n + g) * A + m

    for S in itertools.product([0, 1], repeat=n):
        if any((not S[j]) and not np.isfinite(v_out[j]) for j in range(n)):
            continue
        C = [j for j in range(n) if S[j]]
        c = np.zeros(N)
        const = 0.0
        Aub, bub, Aeq, beq = [], [], [], []
        for g in C:
            for y in range(Y):
                r = np.zeros(N)
                r[[X(g, m, y) for m in range(A)]] = 1
                Aeq.append(r)
                beq.append(mu[y])
            for m in range(A):
                for y in range(Y):
                    c[X(g, m, y)] = rates[g] * Ui[g][m, y]
                for b in range(A):
                    if b != m:
                        r = np.zeros(N)
                        r[[X(g, m, y) for y in range(Y)]] = us[g][b] - us[g][m]
                        Aub.append(r)
                        bub.append(0)
                for j in range(n):
                    for a in range(A):
                        r = np.zeros(N)
                        r[[X(g, m, y) for y in range(Y)]] = us[j][a]
                        r[T(j, g, m)] = -1
                        Aub.append(r)
                        bub.append(0)

        def own(g):
            r = np.zeros(N)
            for m in range(A):
                r[[X(g, m, y) for y in range(Y)]] = us[g][m]
            return r

        for j in range(n):
            for g in C:
                if g == j:
                    continue
                r = np.zeros(N)
                r[[T(j, g, m) for m in range(A)]] = 1
                if S[j]:
                    Aub.append(r - own(j))
                    bub.append(0)
                else:
                    Aub.append(r)
                    bub.append(v_out[j])
            if S[j]:
                if np.isfinite(v_out[j]):
                    Aub.append(-own(j))
                    bub.append(-(v_out[j] + margin))
            else:
                const += rates[j] * float((x_out[j] * Ui[j]).sum())
        if not C:
            val, x = const, None
        else:
            r = lp(
                -c,
                np.array(Aub),
                np.array(bub),
                np.array(Aeq),
                np.array(beq),
                [(0, None)] * Nx + [(None, None)] * (N - Nx),
            )
            if r.status != 0:
                continue
            val, x = -r.fun + const, r.x
        if val > best[0] + 1e-12:
            best = (val, S, x)
    return best
