"""Recognises attacks while they go on, by what their queries have to do with one another.

Every attack that searches asks about rows that lie closer together than what anybody asks by chance, or along the
boundary between two answers, or where no natural row lies. This guard remembers the queries of everybody in a short
form, counts what speaks for such a search by account and by place, and steps down what is answered.
"""
