"""How far a batch is: what a progress line shows and an early stop decides on."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a batch stands after a block of games.

    - `done`, `games`: how many games are finished, of how many. `certified`: of the finished ones.
    - `rate`: games per second, of this run alone: blocks read from a checkpoint do not count; NaN
        before the first block is computed. `seconds_left`: at that rate.
    """

    done: int
    games: int
    certified: int
    rate: float
    seconds_left: float

    @property
    def certified_share(self) -> float:
        """Certified games as a share of the finished ones."""
        return self.certified / self.done

    def __str__(self) -> str:
        left = "" if self.seconds_left != self.seconds_left else f", {self.seconds_left:.0f} s left"
        rate = (
            "resumed"
            if self.rate != self.rate
            else f"{self.rate:.{0 if self.rate >= 10 else 2}f} per second"
        )
        return (
            f"{self.done} of {self.games} games, {self.certified_share:.2%} certified, {rate}{left}"
        )
