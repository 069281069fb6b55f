"""TAT-QA: questions on a table and its paragraphs, scored by the official rule."""
