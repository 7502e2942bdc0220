"""Design: what the system is meant to do and must withstand, said before it is built."""
