"""Files that other people wrote, read within limits: bytes, text of any encoding, tables, headers of `.npy`."""
