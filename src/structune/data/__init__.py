"""Where examples come from: files, the hub, what is embedded. Knows no task, and needs no torch.

section: what a recipe says · sources: from there to tables · reading, several: files and folders (formats: one kind
each; quotes, header: what texts with a separator hold) · pieces: rows some at a time · hub, embedded: other sources
(features: names of classes) · table: columns by name (cells, numbers, empty_words: what a cell holds) · examples: what
tasks make of a table's rows · split: what is held out
"""
