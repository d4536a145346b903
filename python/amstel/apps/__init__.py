"""The applications of the four model families, from files to results. The library never imports them."""
