"""What a model may write that is hard to read: endless numbers, programs that compute them."""

from __future__ import annotations

OPERATORS = ("add", "subtract", "multiply", "divide", "exp", "greater")
ENDLESS = ["9" * 309, "9" * 4_301, "9" * 20_000, "\u0663" * 4_301]  # int() reads 4,300 digits
ODD = ("1e999", "-1e999", "1e-999", "1e+", "inf", "-infinity", "nan", "--5", "+-5", "1_0")
UNICODE = ("\u22125e\u22125", "\u00b2", "\uff15")
NUMBERS = [
    *ENDLESS,
    *(f"{number}.5" for number in ENDLESS),
    *(f"1e{'9' * 5_000}", f"0.{'0' * 5_000}1", f"{'-' * 5_000}5", "1" * 307),
    *ODD,
    *UNICODE,
]
FORMS = ("({})", "-{}%", "$ {} billion percent", "It is so.\nAnswer: {}")
REPEATED = (*"|($%,_ \n\0\ud800", "1.", "yes", "Answer:")
ANSWERS = [
    *NUMBERS,
    *(form.format(number) for number in ENDLESS for form in FORMS),
    *(text * 10_000 for text in REPEATED),
    *(f"5 million{' ' * 20_000}x", f"{'9' * 20_000}x", f"5 {'1 ' * 2_000}"),
]
PROGRAMS = [
    *(f"{name}({each}, {each})" for name in OPERATORS for each in NUMBERS),
    *(f"{name}({each}, 0.5), {name}(#0, #0)" for name in OPERATORS for each in NUMBERS),
    *(f"{name}({'9' * 20_000}x, none)" for name in OPERATORS),
    *("exp(-8, 0.333)", "exp(0, -1)", "exp(1e300, 1e300)", "divide(0, 0)", "add(#9999, 1)"),
    *("subtract(1e999, 1e999), greater(#0, #0)", "add(" * 5_000, "add(1, 1), " * 5_000),
    f"add(9, 9), {', '.join(f'multiply(#{step}, #{step})' for step in range(400))}",
]
