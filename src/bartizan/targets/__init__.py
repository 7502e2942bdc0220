"""The one shape of a system under test, whatever framework or server is behind it."""
