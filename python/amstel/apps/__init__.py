"""The applications: what the four model families are for, from files to results. The library below never imports them."""
