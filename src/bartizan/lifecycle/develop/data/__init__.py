"""Dataset quality: one file per measure, read from one view of the data, put together by ``quality``."""
