"""The tables and figures of the two papers: from their published numbers and, by the same functions, from our own runs.

Nothing published is kept here: numbers come from files that are read at run time (`golden`), or are passed in. What is not known
is drawn and printed as not known.
"""
