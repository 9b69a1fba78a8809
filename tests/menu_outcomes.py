"""Truthful direct menus as one plain linear program for HiGHS.

Variables: q[branch, message, state], then v[pair, branch, message], what a message of a branch is
worth to a pair that acts optimally, then the lead.
"""

import numpy as np

from .oracle import lp


class Menus:
    """The menus of pairs with weights [pairs, states] and utilities [pairs, actions, states].

    `tempted` [pairs, pairs]: whether a pair must not prefer a branch.
    """

    def __init__(self, weight, utility, tempted):
        pairs, actions, states = utility.shape
        self.shape, self.count = utility.shape, pairs * actions * states
        self.size = self.count + pairs * pairs * actions + 1
        self.values = utility * weight[:, None]
        rows = []
        for t, s, a, b in np.ndindex(pairs, pairs, actions, actions):
            if tempted[t][s] or t == s:
                row = self.row()
                row[: self.count].reshape(self.shape)[s, a] = utility[t, b] * weight[t]
                row[self.count : -1].reshape(pairs, pairs, actions)[t, s, a] = -1
                rows.append(row)
        for t, s in np.ndindex(pairs, pairs):
            if tempted[t][s] or t == s:
                row = self.row()
                row[: self.count].reshape(self.shape)[t] -= self.values[t]
                row[self.count : -1].reshape(pairs, pairs, actions)[t, s] += 1
                rows.append(row)
        self.truth = np.array(rows)
        sums = []
        for s, y in np.ndindex(pairs, states):
            row = self.row()
            row[: self.count].reshape(self.shape)[s, :, y] = 1
            sums.append(row)
        self.sums = np.array(sums)

    def row(self, table=None):
        row = np.zeros(self.size)
        if table is not None:
            row[: self.count] = table.ravel()
        return row

    def best(self, aim, floors=(), levels=(), lead=False):
        """The largest aim over menus with floors (table, at least, leads) and levels (table, is).

        Floors that lead are exceeded by the lead, which is then added to the aim.
        """
        below, limit = list(self.truth), [0.0] * len(self.truth)
        for table, least, leads in floors:
            row = -self.row(table)
            row[-1] = float(leads)
            below.append(row)
            limit.append(-least)
        equal = [*self.sums, *(self.row(table) for table, _ in levels)]
        right = [1.0] * len(self.sums) + [level for _, level in levels]
        bounds = [(0, 1)] * self.count + [(None, None)] * (self.size - self.count - 1)
        bounds.append((-10, 10) if lead else (0, 0))
        cost = -self.row(aim)
        cost[-1] = -float(lead)
        found = lp(cost, np.array(below), np.array(limit), np.array(equal), np.array(right), bounds)
        assert found.status == 0, found.message
        return -found.fun
