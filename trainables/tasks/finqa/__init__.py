"""FinQA: questions on annual reports, answered by a number or by a program."""
