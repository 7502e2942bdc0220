"""The guards that ship: one file each, or one folder."""
