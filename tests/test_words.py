"""Numbers in words: singular and plural, and a deviation only where there are several values."""

import pytest

from amstel._words import counted, over, percent


def test_counts_and_shares_in_words() -> None:
    assert [counted(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert (percent([2 / 3]), over(1)) == ("66.67%", "over 1 seed")
    assert (percent([0.5, 0.6]), over(2)) == ("55.00 ± 5.00%", "over 2 seeds (± standard deviation)")


def test_an_axis_of_epochs_has_no_fractions() -> None:
    pytest.importorskip("matplotlib")
    from amstel.plot import convergence

    axes = convergence([1.0, 0.5])
    axes.figure.canvas.draw()
    assert all(tick == int(tick) for tick in axes.get_xticks())
