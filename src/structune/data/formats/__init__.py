"""Files to tables, one kind of file each.

content: bytes, unpacked · text: bytes to characters · kinds: what other files are · separated, objects, arrow,
workbook, text_folder: the kinds that are read
"""
