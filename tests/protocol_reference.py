"""The best response by conversation by its definition, history by history, in HiGHS."""

import itertools

import numpy as np

from diffgame.market._protocol_plan import OFF

from .menus import flat
from .oracle import lp


def units_of(joint, timing):
    """The unit of each pair, and the weight of the pair's value in that of its unit."""
    users, types, _ = joint.shape
    if timing == "before":
        return np.repeat(np.arange(users), types), np.ones(users * types)
    return np.arange(users * types), 1 / joint.sum(axis=2).reshape(-1)


def reference_value(pairs, payoff, unit, outside, protocol, captured, plan, widest):
    """Optimum of the program in which the units `captured` follow `plan`; None: there is none.

    Variables: answers [leaves, states], then what each stage and leaf is worth to each pair that
    acts optimally, then the margin. `pairs`: weighted utilities [pairs, actions, states].
    """
    rounds, asks, hears = protocol.rounds, protocol.user_messages, protocol.provider_messages
    steps = list(itertools.product(range(asks), range(hears)))
    nodes = [past for turn in range(rounds + 1) for past in itertools.product(steps, repeat=turn)]
    count, _, states = pairs.shape
    columns = {}
    for past in nodes:
        for y in range(states):
            columns["r", past, y] = len(columns)
        for t in range(count):
            columns["v", past, t] = len(columns)
    columns["margin"] = len(columns)
    upper, equal, bound, target = [], [], [], []

    def row(*entries):
        table = np.zeros(len(columns))
        for name, entry in entries:
            table[columns[name]] += entry
        return table

    def act(t, a, past):
        return row(*((("r", past, y), pairs[t, a, y]) for y in range(states)))

    for past in nodes:
        if len(past) == rounds:
            for t, own in enumerate(pairs):
                for a in range(len(own)):
                    upper.append(act(t, a, past) - row((("v", past, t), 1)))
                    bound.append(0)
            continue
        for c in range(asks):
            later = [(*past, (c, m)) for m in range(hears)]
            for y in range(states):
                equal.append(row((("r", past, y), -1), *((("r", one, y), 1) for one in later)))
                target.append(0)
            for t in range(count):
                upper.append(row((("v", past, t), -1), *((("v", one, t), 1) for one in later)))
                bound.append(0)
    for y in range(states):
        equal.append(row((("r", (), y), 1)))
        target.append(1)
    leaves = [past for past in nodes if len(past) == rounds]
    worth = [np.zeros(len(columns)) for _ in pairs]
    gain = np.zeros(len(columns))
    for t in np.flatnonzero(captured[unit]):
        for past, action in zip(leaves, plan[t], strict=True):
            if action != OFF:
                worth[t] += act(t, action, past)
                gain += row(*((("r", past, y), payoff[t, action, y]) for y in range(states)))
        upper.append(row((("v", (), t), 1)) - worth[t])
        bound.append(0)
    for u, value in enumerate(np.asarray(outside.value)):
        fresh = captured[u] and not outside.held[u]
        inside = [t for t in range(len(pairs)) if unit[t] == u]
        if captured[u] and np.isfinite(value):
            upper.append(row(("margin", float(fresh))) - sum(worth[t] for t in inside))
            bound.append(-value)
        elif not captured[u]:
            upper.append(sum(row((("v", (), t), 1)) for t in inside))
            bound.append(value)
    limits = [(0, 1) if name[0] == "r" else (None, None) for name in columns]
    limits[-1] = (0, 1) if widest else (0, 0)
    cost = -row(("margin", 1.0)) if widest else -gain
    found = lp(cost, np.array(upper), bound, np.array(equal), target, limits)
    assert found.status in (0, 2), found.message
    return None if found.status == 2 else -found.fun


def all_plans(protocol, actions, captured):
    """Every plan of one round: a question, and an action after each answer."""
    asks, hears = protocol.user_messages, protocol.provider_messages
    own = []
    for c, taken in itertools.product(range(asks), itertools.product(range(actions), repeat=hears)):
        table = np.full((asks, hears), OFF)
        table[c] = taken
        own.append(table.reshape(-1))
    silent = [np.full(asks * hears, OFF)]
    return itertools.product(*(own if inside else silent for inside in captured))


def reference_best_response(joint, utility, objective, mass, outside, protocol, timing, plans):
    unit, share = units_of(joint, timing)
    weight, own, payoff = flat(joint, utility, objective, mass)
    pairs = own * weight[:, None] * share[:, None, None]
    elsewhere = np.asarray(outside.payoff)
    best = elsewhere.sum() if outside.exists else -np.inf
    for captured in itertools.product([False, True], repeat=len(elsewhere)):
        captured = np.array(captured)
        if not captured.any() or not np.all(captured | np.isfinite(outside.value)):
            continue
        for plan in plans(protocol, own.shape[1], captured[unit]):
            arguments = pairs, payoff, unit, outside, protocol, captured, plan
            value = reference_value(*arguments, widest=False)
            if value is None or value + elsewhere[~captured].sum() <= best:
                continue
            if np.any(captured & ~np.asarray(outside.held)):
                margin = reference_value(*arguments, widest=True)
                if margin is None or margin <= 1e-9:
                    continue
            best = value + elsewhere[~captured].sum()
    return best
