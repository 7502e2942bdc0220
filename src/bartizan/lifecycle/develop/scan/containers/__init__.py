"""Archives and compressed files: their members are examined by content, like files."""
