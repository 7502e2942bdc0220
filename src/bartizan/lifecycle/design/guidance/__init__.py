"""Guidance for people: briefings for each role, notices for users, lessons to run, all about one declared system."""
