"""Independent NumPy/SciPy oracle for small one-shot markets: slow and plain on purpose.

Arrays are (actions, states); U[i][j] is what provider i gets from the action of user j; pis[i][j]
is the policy (states, messages) that provider i shows user j.
"""

import itertools

import numpy as np
from scipy.optimize import linprog


def lp(c, Aub=None, bub=None, Aeq=None, beq=None, bounds=None):
    """Minimise by HiGHS, at its tightest tolerances."""
    options = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    return linprog(
        c, A_ub=Aub, b_ub=bub, A_eq=Aeq, b_eq=beq, bounds=bounds, method="highs", options=options
    )


# Alignment distances.
def align_dist(u, Us, kind="hull", offset="const"):
    """Sup-norm distance of u from mixes of Us, and the weights; offset 'none', 'const', 'state'."""
    k, (A, Y) = len(Us), u.shape
    nc = {"const": 1, "state": Y, "none": 0}[offset]
    n = k + nc + 1
    rows, rhs = [], []
    for a in range(A):
        for y in range(Y):
            r = np.zeros(n)
            r[:k] = [U[a, y] for U in Us]
            if offset == "const":
                r[k] = 1
            if offset == "state":
                r[k + y] = 1
            p = r.copy()
            p[-1] = -1
            rows.append(p)
            rhs.append(u[a, y])
            q = -r
            q[-1] = -1
            rows.append(q)
            rhs.append(-u[a, y])
    c = np.zeros(n)
    c[-1] = 1
    Aeq = beq = None
    if kind == "hull":
        Aeq = np.zeros((1, n))
        Aeq[0, :k] = 1
        beq = [1.0]
    res = lp(
        c,
        np.array(rows),
        np.array(rhs),
        Aeq,
        beq,
        [(0, None)] * k + [(None, None)] * nc + [(0, None)],
    )
    return res.fun, res.x[:k]


def strong_align_dist(us, U, offset="const"):
    """The same with common weights for all users and scales lam_j >= 1; U includes the masses."""
    k, n = len(U), len(us)
    A, Y = us[0].shape
    nc = {"const": n, "state": n * Y, "none": 0}[offset]
    N = k + n + nc + 1
    rows, rhs = [], []
    for j in range(n):
        for a in range(A):
            for y in range(Y):
                r = np.zeros(N)
                r[:k] = [U[i][j][a, y] for i in range(k)]
                r[k + j] = -us[j][a, y]
                if offset == "const":
                    r[k + n + j] = 1
                if offset == "state":
                    r[k + n + j * Y + y] = 1
                p = r.copy()
                p[-1] = -1
                q = -r
                q[-1] = -1
                rows += [p, q]
                rhs += [0, 0]
    c = np.zeros(N)
    c[-1] = 1
    res = lp(
        c,
        np.array(rows),
        np.array(rhs),
        None,
        None,
        [(0, None)] * k + [(1, None)] * n + [(None, None)] * nc + [(0, None)],
    )
    return res.fun, res.x[:k], res.x[k : k + n]


# Values of a policy.
def user_value(pi, mu, u):
    """Value of policy pi (Y, M)."""
    return float(np.max(u @ (mu[:, None] * pi), axis=0).sum())


def full_value(mu, u):
    return float((mu * u.max(0)).sum())


def babble_value(mu, u):
    return float((u @ mu).max())


def full_pi(Y):
    return np.eye(Y)


def babble_pi(Y):
    return np.ones((Y, 1))


def outcome(pi, mu, u, Uts=None, tol=1e-12):
    """Joint distribution x[a, y]; ties broken to the first action."""
    x = np.zeros_like(u)
    s = u @ (mu[:, None] * pi)
    a = np.argmax(s >= s.max(0) - tol, axis=0)
    for m in range(pi.shape[1]):
        x[a[m]] += mu * pi[:, m]
    return x


# Exact best response (2^n LPs).
def best_response(us, Ui, mu, v_out, x_out, rates=None, margin=0.0, personalized_user=None):
    """Exact best response of one provider with an anonymous policy: (value, S, x[profile, y]).

    v_out[j] is the best value of user j elsewhere (-inf if none), x_out[j] her outcome there. One
    LP over action profiles for each captured set S; ties in the provider's favour.
    """
    n = len(us)
    A, Y = us[0].shape
    rates = np.ones(n) if rates is None else rates
    profs = list(itertools.product(range(A), repeat=n))
    P = len(profs)
    N = P * Y

    def idx(p, y):
        return p * Y + y

    Aeq = np.zeros((Y, N))
    for p in range(P):
        for y in range(Y):
            Aeq[y, idx(p, y)] = 1
    obed = []
    for p, pr in enumerate(profs):
        for j in range(n):
            for b in range(A):
                if b != pr[j]:
                    r = np.zeros(N)
                    r[p * Y : (p + 1) * Y] = us[j][b] - us[j][pr[j]]
                    obed.append(r)
    Vrow = [np.concatenate([us[j][pr[j]] for pr in profs]) for j in range(n)]
    best = (-np.inf, None, None)
    for S in itertools.product([0, 1], repeat=n):
        c = np.zeros(N)
        const = 0.0
        A_ub = list(obed)
        b_ub = [0.0] * len(obed)
        skip = False
        for j in range(n):
            if S[j]:
                c += rates[j] * np.concatenate([Ui[j][pr[j]] for pr in profs])
                if np.isfinite(v_out[j]):
                    A_ub.append(-Vrow[j])
                    b_ub.append(-(v_out[j] + margin))
            else:
                if not np.isfinite(v_out[j]):
                    skip = True
                    break
                const += rates[j] * float((x_out[j] * Ui[j]).sum())
                A_ub.append(Vrow[j])
                b_ub.append(v_out[j])
        if skip:
            continue
        r = lp(-c, np.array(A_ub), np.array(b_ub), Aeq, mu, [(0, None)] * N)
        if r.status == 0 and -r.fun + const > best[0] + 1e-12:
            best = (-r.fun + const, S, r.x.reshape(P, Y))
    return best


def best_response_menu(us, Ui, mu, v_out, x_out, rates=None, margin=0.0):
    """The same when the policy is a menu of experiments, one for each user, open to everybody."""
    n = len(us)
    A, Y = us[0].shape
    rates = np.ones(n) if rates is None else rates
    profs = list(itertools.product(range(A), repeat=n))
    P = len(profs)
    B = P * Y
    N = n * B
    Aeq = np.zeros((n * Y, N))
    for g in range(n):
        for p in range(P):
            for y in range(Y):
                Aeq[g * Y + y, g * B + p * Y + y] = 1
    beq = np.tile(mu, n)
    obed = []
    for g in range(n):
        for p, pr in enumerate(profs):
            for j in range(n):
                for b in range(A):
                    if b != pr[j]:
                        r = np.zeros(N)
                        r[g * B + p * Y : g * B + (p + 1) * Y] = us[j][b] - us[j][pr[j]]
                        obed.append(r)

    def V(j, g):
        r = np.zeros(N)
        r[g * B : (g + 1) * B] = np.concatenate([us[j][pr[j]] for pr in profs])
        return r

    ic = [V(j, g) - V(j, j) for j in range(n) for g in range(n) if g != j]
    best = (-np.inf, None, None)
    for S in itertools.product([0, 1], repeat=n):
        c = np.zeros(N)
        const = 0.0
        A_ub = obed + ic
        b_ub = [0.0] * len(A_ub)
        A_ub = list(A_ub)
        skip = False
        for j in range(n):
            if S[j]:
                c[j * B : (j + 1) * B] += rates[j] * np.concatenate([Ui[j][pr[j]] for pr in profs])
                if np.isfinite(v_out[j]):
                    A_ub.append(-V(j, j))
                    b_ub.append(-(v_out[j] + margin))
            else:
                if not np.isfinite(v_out[j]):
                    skip = True
                    break
                const += rates[j] * float((x_out[j] * Ui[j]).sum())
                A_ub.append(V(j, j))
                b_ub.append(v_out[j])
        if skip:
            continue
        r = lp(-c, np.array(A_ub), np.array(b_ub), Aeq, beq, [(0, None)] * N)
        if r.status == 0 and -r.fun + const > best[0] + 1e-12:
            best = (-r.fun + const, S, r.x.reshape(n, P, Y))
    return best


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


def market_state(pis, us, mu):
    """Chosen provider, value and outcome per user; the first provider wins ties."""
    n = len(us)
    ch, V, X = [], [], []
    for j in range(n):
        vals = [user_value(pis[i][j], mu, us[j]) for i in range(len(pis))]
        i = int(np.argmax(np.array(vals) >= max(vals) - 1e-9))
        ch.append(i)
        V.append(vals[i])
        X.append(outcome(pis[i][j], mu, us[j]))
    return ch, V, X


def exploitability(pis, us, U, mu, mode, rates=None):
    """Gain of each provider's best response, mode 'anon' or 'pers', and the users' values."""
    n, k = len(us), len(U)
    rates = np.ones(n) if rates is None else rates
    _ch, V, X = market_state(pis, us, mu)
    gains = []
    for i in range(k):
        cur = sum(rates[j] * float((X[j] * U[i][j]).sum()) for j in range(n))
        vo, xo = [], []
        for j in range(n):
            others = [(user_value(pis[h][j], mu, us[j]), h) for h in range(k) if h != i]
            if others:
                v = max(o[0] for o in others)
                h = next(o[1] for o in others if o[0] >= v - 1e-9)
                vo.append(v)
                xo.append(outcome(pis[h][j], mu, us[j]))
            else:
                vo.append(-np.inf)
                xo.append(None)
        if mode == "anon":
            br = best_response(us, U[i], mu, vo, xo, rates)[0]
        else:
            br = sum(
                best_response([us[j]], [U[i][j]], mu, [vo[j]], [xo[j]], [rates[j]])[0]
                for j in range(n)
            )
        gains.append(br - cur)
    return np.array(gains), np.array(V)


# Worst-case equilibrium loss certificate (LP).
def worst_equilibrium_loss(us, U, mu, mode, rates=None, user=None, delta=0.0):
    """Most that users lose over obedient outcomes which nobody leaves for full revelation.

    Mode 'anon': one row per provider; 'pers': one per provider and user, each with its own delta.
    """
    n, k = len(us), len(U)
    A, Y = us[0].shape
    rates = np.ones(n) if rates is None else rates
    N = n * A * Y

    def off(j):
        return j * A * Y

    Aeq, beq, Aub, bub = [], [], [], []
    for j in range(n):
        for y in range(Y):
            r = np.zeros(N)
            for a in range(A):
                r[off(j) + a * Y + y] = 1
            Aeq.append(r)
            beq.append(mu[y])
        for a in range(A):
            for b in range(A):
                if a != b:
                    r = np.zeros(N)
                    r[off(j) + a * Y : off(j) + (a + 1) * Y] = us[j][b] - us[j][a]
                    Aub.append(r)
                    bub.append(0)
    xf = [outcome(full_pi(Y), mu, us[j]) for j in range(n)]
    for i in range(k):
        if mode == "anon":
            r = np.zeros(N)
            t = 0.0
            for j in range(n):
                r[off(j) : off(j) + A * Y] = -rates[j] * U[i][j].ravel()
                t += rates[j] * float((xf[j] * U[i][j]).sum())
            Aub.append(r)
            bub.append(-t + delta)
        else:
            for j in range(n):
                r = np.zeros(N)
                r[off(j) : off(j) + A * Y] = -rates[j] * U[i][j].ravel()
                Aub.append(r)
                bub.append(-rates[j] * float((xf[j] * U[i][j]).sum()) + delta)
    c = np.zeros(N)
    opt = 0.0
    for j in range(n):
        if user is None or j == user:
            c[off(j) : off(j) + A * Y] = us[j].ravel()
            opt += full_value(mu, us[j])
    r = lp(c, np.array(Aub), np.array(bub), np.array(Aeq), np.array(beq), [(0, None)] * N)
    return opt - r.fun


def opposed_users(gain=1.0, loss=3.0):
    """E1: user 1 wants a = y, user 2 wants a != y, "safe" pays 0."""
    u1 = np.array([[0, 0], [gain, -loss], [-loss, gain]], float)
    u2 = np.array([[0, 0], [-loss, gain], [gain, -loss]], float)
    return u1, u2


def threshold_user(t):
    """Acts (second action) iff the posterior of state 1 is at least t."""
    return np.array([[0, 0], [-t / (1 - t), 1.0]])


# Random markets, and the same market in a larger shape.
def random_market(seed, users, actions, states, providers, aligned=False):
    """Prior, mass, utilities [users, A, Y] and objectives [providers, users, A, Y]."""
    rng = np.random.default_rng(seed)
    mu, mass = rng.dirichlet(np.ones(states)), rng.uniform(0.5, 2, users)
    us = rng.uniform(size=(users, actions, states))
    U = rng.uniform(size=(providers, users, actions, states))
    if aligned:
        us = np.einsum("ji,ijay->jay", rng.dirichlet(np.ones(providers), users), U)
    return mu, mass, us, U


def padded(market, users, actions, states, providers):
    """An equivalent market of this shape, so that one compilation serves all sizes.

    Added users are indifferent and indifferent to all, added actions repeat the first one, added
    states repeat the first one with probability zero, added providers repeat the first one.
    """
    mu, mass, us, U = market
    n, A, Y = us.shape
    mu = np.concatenate([mu, np.zeros(states - Y)])
    mass = np.concatenate([mass, np.ones(users - n)])
    a, y = np.r_[0:A, [0] * (actions - A)].astype(int), np.r_[0:Y, [0] * (states - Y)].astype(int)
    i = np.r_[0 : len(U), [0] * (providers - len(U))].astype(int)
    us = np.concatenate([us[:, a][:, :, y], np.zeros((users - n, actions, states))])
    U = U[i][:, :, a][..., y]
    return mu, mass, us, np.concatenate([U, np.zeros((providers, users - n, actions, states))], 1)


def mixed_markets(count, users=(1, 2, 3), actions=(2, 3), states=(2, 3), providers=(2, 3)):
    """`count` markets of mixed sizes, every third one with exact weak alignment."""
    sizes = list(itertools.product(users, actions, states, providers))
    return [random_market(seed, *sizes[seed % len(sizes)], seed % 3 == 0) for seed in range(count)]


def batched(markets, shape=None, count=None):
    """Prior, mass, utilities, objectives of markets padded to one shape, stacked.

    With `count`, the first market is repeated up to that number.
    """
    if shape is None:
        shape = np.max([(*us.shape, len(U)) for _, _, us, U in markets], axis=0)
    filled = [*markets, *[markets[0]] * ((count or 0) - len(markets))]
    return [np.stack(part) for part in zip(*(padded(m, *shape) for m in filled), strict=True)]


def repeated(arrays, count):
    """Stacked arrays with the first entry repeated up to `count`: one batch size, one compile."""
    index = np.arange(max(count, len(arrays[0])))
    index[len(arrays[0]) :] = 0
    return [np.asarray(array)[index] for array in arrays]


def recommendations(pis, mu, us, profiles):
    """Signals [providers, profiles, states] that say what users do at tables (states, messages)."""
    index = {tuple(p): at for at, p in enumerate(np.asarray(profiles).tolist())}
    q = np.zeros((len(pis), len(index), len(mu)))
    for k, pi in enumerate(pis):
        for m in range(pi.shape[1]):
            values = [u @ (mu * pi[:, m]) for u in us]
            q[k, index[tuple(int(np.argmax(v >= v.max() - 1e-12)) for v in values)]] += pi[:, m]
    return q


def playable(mu, u):
    """Which actions user u takes at some posterior, ties to the lowest index, by HiGHS."""
    low, size = u.min(), np.ptp(u) or 1.0
    u = ((u - low) / size)[:, mu > 0]
    A, Y = u.shape
    result = []
    for a in range(A):
        others = [b for b in range(A) if b != a]
        lead = [np.r_[u[b] - u[a], float(b < a)] for b in others]
        r = lp(
            np.r_[np.zeros(Y), -1.0],
            np.array(lead).reshape(len(others), Y + 1),
            np.zeros(len(others)),
            np.r_[np.ones(Y), 0.0][None],
            [1.0],
            [(0, None)] * Y + [(None, 1)],
        )
        result.append(r.status == 0 and -r.fun > 1e-9)
    return np.array(result)


def persuasion(mu, u, U):
    """The most that a provider alone gets from user u, unplayable actions left out, by HiGHS."""
    chosen, seen = playable(mu, u), mu > 0
    low, size = U[:, seen].min(), np.ptp(U[:, seen]) or 1.0
    u = ((u - u.min()) / (np.ptp(u) or 1.0))[chosen][:, seen]
    gain = ((U - low) / size)[chosen][:, seen] * mu[seen]
    A, Y = u.shape
    rows = []
    for a in range(A):
        for b in range(A):
            lag = (u[b] - u[a]) * mu[seen]
            if np.any(lag):
                row = np.zeros((A, Y))
                row[a] = lag / np.abs(lag).max()
                rows.append(row.ravel())
    obey = np.array(rows).reshape(len(rows), A * Y)
    sums = np.kron(np.ones(A), np.eye(Y))
    r = lp(-gain.ravel(), obey, np.zeros(len(rows)), sums, np.ones(Y), [(0, None)] * (A * Y))
    return low + size * -r.fun
