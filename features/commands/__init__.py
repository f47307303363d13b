"""The commands of `features`, each a thin layer over a function."""
