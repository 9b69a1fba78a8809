"""Conversations: values and gradients on their trees, against NumPy and unbatched JAX."""

import dataclasses
import math
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

import diffgame as dg
from diffgame.market._conversation import Conversation
from diffgame.market._conversation_policy import ConversationTable
from diffgame.market._tree import Protocol

from ._harness import Row, alternate, arguments, machine, median_seconds, report

TEMPERATURE = 0.1
SAME_VALUE = 1e-9
SAME_GRADIENT = 1e-6
_STEP = 1e-5
_PARTS = 3
_RESPONSE = dg.Logit(TEMPERATURE)


@dataclasses.dataclass(frozen=True)
class Size:
    """Of one market with one user: providers, types, actions, states and the protocol."""

    protocol: Protocol
    providers: int = 2
    types: int = 2
    actions: int = 2
    states: int = 2

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of the tables, round by round."""
        messages = self.protocol.provider_messages
        turns = range(1, self.protocol.rounds + 1)
        asked = [self.protocol.questions(turn) for turn in turns]
        return [(self.providers, self.states, count, messages) for count in asked]


def draw(size: Size, batch: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Joint, utility, objective and tables, each with a batch axis: uniform, or flat Dirichlet."""
    rng = np.random.default_rng(seed)
    joint = rng.dirichlet(np.ones(size.types * size.states), size=batch)
    table = (size.types, size.actions, size.states)
    return (
        joint.reshape(batch, size.types, size.states),
        rng.uniform(size=(batch, *table)),
        rng.uniform(size=(batch, size.providers, *table)),
        *(rng.dirichlet(np.ones(shape[-1]), size=(batch, *shape[:-1])) for shape in size.shapes),
    )


def _game(protocol, joint, utility, objective):
    return Conversation(joint[None], utility[None], objective[:, None], jnp.ones(1), protocol)


def payoffs(protocol: Protocol):
    """A function of one market's arrays: the providers' payoffs."""

    def value(joint, utility, objective, *tables):
        profile = ConversationTable(tuple(table[:, None] for table in tables))
        return dg.provider_payoffs(_game(protocol, joint, utility, objective), _RESPONSE, profile)

    return value


def gradient(protocol: Protocol):
    """Likewise: provider 0's payoff and its gradient in its own tables."""

    def both(joint, utility, objective, *tables):
        def own(mine):
            moved = [t.at[0].set(m) for t, m in zip(tables, mine, strict=True)]
            return payoffs(protocol)(joint, utility, objective, *moved)[0]

        return jax.value_and_grad(own)([table[0] for table in tables])

    return both


def numpy_payoffs(protocol: Protocol, joint, utility, objective, *tables) -> np.ndarray:
    """The same by plain backward induction, one array operation per level."""
    providers, states = tables[0].shape[:2]
    types, actions, _ = utility.shape
    probability = np.ones((providers, states, 1))
    for table in tables:
        answers = table.reshape(providers, states, probability.shape[-1], -1, table.shape[-1])
        probability = (probability[..., None, None] * answers).reshape(providers, states, -1)
    likely = probability.swapaxes(1, 2)
    # Last comes 1, whose expectation is how likely nature is to lead to a node.
    counted = np.concatenate([utility[None], objective, np.ones_like(utility)[None]])
    worth = np.stack([likely @ table.reshape(-1, states).T for table in joint[:, None] * counted])
    # [her, the providers and nature; providers, histories, types, actions]
    worth = worth.reshape(*worth.shape[:3], types, actions)

    def decide(worth):
        values = worth[0] / (worth[-1] * TEMPERATURE)
        weights = np.exp(values - values.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return np.sum(weights * worth, axis=-1)

    worth = decide(worth)
    for _ in range(protocol.rounds):
        moves = -1, protocol.user_messages, protocol.provider_messages, types
        worth = worth.reshape(*worth.shape[:2], *moves).sum(axis=4)
        worth = decide(np.moveaxis(worth, 3, 4))
    return decide(worth[:, :, 0].sum(axis=-1))[1:-1]


def numpy_slopes(protocol: Protocol, data: Sequence[np.ndarray], entries) -> np.ndarray:
    """Provider 0's payoff differenced in the given entries (round, state, history, message).

    All messages of the same history give way evenly: what tables that do not sum to one are worth
    is a matter of convention.
    """
    slopes = []
    for turn, *history, message in entries:
        ends = []
        messages = data[3 + turn].shape[-1]
        move = _STEP * (np.eye(messages)[message] - 1 / messages)
        for sign in (1, -1):
            tables = list(data[3:])
            tables[turn] = tables[turn].copy()
            tables[turn][(0, *history)] += sign * move
            ends.append(numpy_payoffs(protocol, *data[:3], *tables)[0])
        slopes.append((ends[0] - ends[1]) / (2 * _STEP))
    return np.array(slopes)


def _on_simplex(gradient) -> np.ndarray:
    """Slopes in each entry when all messages of the same history give way evenly."""
    gradient = np.asarray(gradient)
    return gradient - gradient.mean(axis=-1, keepdims=True)


def _share(found, wanted, tolerance: float) -> float:
    """Share of items that agree up to `tolerance`, relative to 1 plus their size."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    fine = np.isfinite(found) & (np.abs(found - wanted) <= tolerance * (1 + np.abs(wanted)))
    return float(np.mean(fine.reshape(len(fine), -1).all(axis=1)))


def _all_entries(size: Size) -> list[tuple[int, ...]]:
    """All parameters of one provider."""
    shapes = [shape[1:] for shape in size.shapes]
    return [(turn, *at) for turn, shape in enumerate(shapes) for at in np.ndindex(*shape)]


@dataclasses.dataclass(frozen=True)
class Call:
    """A compiled function and what it is called with; calling it waits for the result."""

    compiled: jax.stages.Compiled
    arrays: tuple[jax.Array, ...]
    compile_seconds: float

    def __call__(self):
        """The result, computed."""
        return jax.block_until_ready(self.compiled(*self.arrays))


def _compile(function, arrays: tuple[jax.Array, ...]) -> Call:
    begin = time.perf_counter()
    compiled = jax.jit(function).lower(*arrays).compile()
    return Call(compiled, arrays, time.perf_counter() - begin)


def compare_batches(size: Size, batch: int, measured: int) -> list[Row]:
    """A batch of small conversations against loops over single ones."""
    data = draw(size, batch)
    arrays = tuple(jnp.asarray(part) for part in data)
    protocol, entries = size.protocol, _all_entries(size)

    def numpy_values(part):
        return [numpy_payoffs(protocol, *(array[at] for array in data)) for at in part]

    def numpy_gradients(part):
        return [numpy_slopes(protocol, [a[at] for a in data], entries) for at in part]

    name = f"{batch} trees of {_nodes(size)} nodes"
    # One call for the whole batch: there is no loop in it, so XLA itself uses all cores.
    value = _compile(jax.vmap(payoffs(protocol)), arrays)
    both = _compile(jax.vmap(gradient(protocol)), arrays)
    ratio = _gradient_ratio(value, both, 9)
    parts = np.array_split(np.arange(min(batch, measured)), _PARTS)
    seconds, peer, answers = alternate(value, numpy_values, parts)
    order = np.concatenate(parts)
    same = _share(value()[order], np.concatenate(answers), SAME_VALUE)
    rows = [
        Row(
            f"value, {name}",
            batch,
            seconds,
            "NumPy, one market after another",
            sum(peer) / len(order) * batch,
            same,
            same,
            value.compile_seconds,
            len(order),
        )
    ]
    few = np.array_split(np.arange(min(batch, max(measured // 50, _PARTS))), _PARTS)
    seconds, peer, answers = alternate(both, numpy_gradients, few)
    order = np.concatenate(few)
    gradients = both()[1]
    found = np.concatenate([_on_simplex(g).reshape(batch, -1) for g in gradients], axis=1)
    same = _share(found[order], np.concatenate(answers), SAME_GRADIENT)
    rows.append(
        Row(
            f"gradient, {name}",
            batch,
            seconds,
            f"NumPy, central differences in {len(entries)} entries",
            sum(peer) / len(order) * batch,
            same,
            same,
            both.compile_seconds,
            len(order),
            f"gradient / value {ratio:.2f}",
        )
    )
    single = jax.jit(gradient(protocol)).lower(*(array[0] for array in arrays)).compile()
    pieces = [[tuple(array[at] for array in arrays) for at in part] for part in parts]

    def one_by_one(piece):
        return [jax.block_until_ready(single(*part)) for part in piece]

    one_by_one(pieces[0])
    seconds, peer, answers = alternate(both, one_by_one, pieces)
    order = np.concatenate(parts)
    wanted = np.stack(
        [np.concatenate([np.ravel(g) for g in answer[1]]) for part in answers for answer in part]
    )
    found = np.concatenate([g.reshape(batch, -1) for g in gradients], axis=1)
    same = _share(found[order], wanted, SAME_VALUE)
    rows.append(
        Row(
            f"gradient, {name}",
            batch,
            seconds,
            "JAX, jitted, one market after another",
            sum(peer) / len(order) * batch,
            same,
            same,
            both.compile_seconds,
            len(order),
        )
    )
    return rows


def _nodes(size: Size) -> int:
    joint, utility, objective, *_ = (part[0] for part in draw(size, 1))
    return _game(size.protocol, joint, utility, objective).nodes


def compare_tree(size: Size, entries: int = 3) -> list[Row]:
    """One market: its value and provider 0's gradient against NumPy, entry by entry."""
    data = tuple(part[0] for part in draw(size, 1))
    arrays = tuple(jnp.asarray(part) for part in data)
    protocol = size.protocol
    ours, slopes = _compile(payoffs(protocol), arrays), _compile(gradient(protocol), arrays)

    value_seconds, peer, answers = alternate(
        ours, lambda _: numpy_payoffs(protocol, *data), range(_PARTS)
    )
    same = _share(ours()[None], answers[:1], SAME_VALUE)
    memory = [_working_memory(call.compiled) for call in (ours, slopes)]
    shape = f"{protocol.rounds} rounds {protocol.user_messages}x{protocol.provider_messages}"
    nodes = _nodes(size)
    rows = [
        Row(
            f"value, {nodes} nodes, {shape}",
            1,
            value_seconds,
            "NumPy",
            sum(peer) / _PARTS,
            same,
            same,
            ours.compile_seconds,
            _PARTS,
            f"{value_seconds / nodes * 1e9:.1f} ns per node; working memory {memory[0]}",
        )
    ]
    count = sum(math.prod(shape[1:]) for shape in size.shapes)
    rng = np.random.default_rng(1)
    # The first round, where slopes are largest, and the last, in turn.
    turns = [0 if at % 2 == 0 else protocol.rounds - 1 for at in range(entries)]
    chosen = [
        (turn, *(int(rng.integers(length)) for length in size.shapes[turn][1:])) for turn in turns
    ]
    seconds, peer, answers = alternate(
        slopes, lambda entry: numpy_slopes(protocol, data, [entry]), chosen
    )
    _, found = slopes()
    picked = [[_on_simplex(found[turn])[tuple(at)]] for turn, *at in chosen]
    same = _share(picked, answers, SAME_GRADIENT)
    rows.append(
        Row(
            f"gradient, {nodes} nodes, {shape}",
            1,
            seconds,
            f"NumPy, central differences in {count} entries (extrapolated)",
            sum(peer) / entries * count,
            same,
            same,
            slopes.compile_seconds,
            entries,
            f"gradient / value {_gradient_ratio(ours, slopes):.2f}; working memory {memory[1]}",
        )
    )
    return rows


def _working_memory(compiled: jax.stages.Compiled) -> str:
    """What a compiled function needs besides its arguments and results."""
    analysis = compiled.memory_analysis()
    return "unknown" if analysis is None else f"{analysis.temp_size_in_bytes / 2**20:.1f} MiB"


def _gradient_ratio(value, both, rounds: int = 5) -> float:
    """Best of several rounds in turn, so that other work on the machine counts for neither."""
    seconds = [(median_seconds(value, 1), median_seconds(both, 1)) for _ in range(rounds)]
    return min(own for _, own in seconds) / min(own for own, _ in seconds)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what the command line asks for."""
    parser = arguments("conversation", "Conversations by backward induction against NumPy.")
    options = parser.parse_args(argv)
    jax.config.update("jax_enable_x64", True)
    small = Size(Protocol(2, 2, 2))
    if options.quick:
        rows = compare_batches(small, 12, 6)
        rows += compare_tree(Size(Protocol(2, 2, 3)))
    else:
        rows = compare_batches(small, 1000, 300)
        for rounds in (2, 3, 4, 5):
            rows += compare_tree(Size(Protocol(rounds, 2, 4), actions=6, states=4))
        # Two moves everywhere, the deepest tree of this size.
        rows += compare_tree(Size(Protocol(9, 2, 2), providers=1))
    report(rows, machine([]), options.json)


if __name__ == "__main__":
    main()
