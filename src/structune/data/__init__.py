"""Where examples come from: files, the hub, what is embedded. Knows no task, and needs no torch.

section: what a recipe says · sources: from there to tables · table: files to columns (file_text, quotes, header: what a
file holds; cells, numbers, empty_words: what a cell does) · hub, embedded: other sources · examples: what tasks make of
a table's rows · split: what is held out
"""
