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
