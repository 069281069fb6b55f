"""Rows of KNOBS by what they describe: what a task reads, shots, how answers are asked for."""
